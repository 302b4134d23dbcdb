"""Schema versions of the documents in artifacts: older files are upgraded, newer ones refused."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
from candidates import Candidate, model_document, write_corpus, write_evaluation, write_packaged
from corpora import split_of
from mlflow import MlflowClient

from genreflow import registry
from genreflow.comparison.candidate import CandidateDocument
from genreflow.comparison.generalisation import GeneralisationDocument
from genreflow.comparison.leaderboard import ComparisonDocument
from genreflow.comparison.robustness import RobustnessDocument
from genreflow.core import home
from genreflow.core.digests import file_digest
from genreflow.core.documents import (
    CorpusDocument,
    Document,
    FeaturesDocument,
    ModelDocument,
    PackagedDocument,
    PublishedDocument,
    SplitDocument,
    Upgrade,
)
from genreflow.core.errors import GenreflowError, ModelError, NewerDocumentError
from genreflow.evaluation.document import EvaluationDocument

DOCUMENTS = (
    CorpusDocument,
    FeaturesDocument,
    ModelDocument,
    PackagedDocument,
    EvaluationDocument,
    PublishedDocument,
    SplitDocument,
    CandidateDocument,
    ComparisonDocument,
    GeneralisationDocument,
    RobustnessDocument,
)


def first_step(data: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in data.items() if name != "colour"}
    return kept | {"color": data["colour"]}


def second_step(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"color": data["color"].upper()}


class Paint(Document):
    """A document in its third schema version."""

    file_name: ClassVar[str] = "paint.json"
    upgrades: ClassVar[tuple[Upgrade, ...]] = (first_step, second_step)
    color: str


class Room(Document):
    """A document with another in it."""

    file_name: ClassVar[str] = "room.json"
    paint: Paint


def write(folder: Path, kind: type[Document], content: dict[str, Any]) -> Path:
    (folder / kind.file_name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "content",
    [
        {"colour": "red"},
        {"schema_version": 1, "colour": "red"},
        {"schema_version": 2, "color": "red"},
        {"schema_version": 3, "color": "RED"},
    ],
)
def test_a_document_of_any_older_schema_version_is_upgraded_step_by_step(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    expected = Paint(color="RED")
    assert expected.schema_version == 3
    assert Paint.read(write(tmp_path, Paint, content)) == expected
    if content.get("schema_version") != 3:
        inside = Room.read(write(tmp_path, Room, {"paint": content}))
        assert inside == Room(paint=expected)


def test_a_document_is_written_with_the_current_schema_version(tmp_path: Path) -> None:
    Room(paint=Paint(color="RED")).write(tmp_path)
    written = json.loads((tmp_path / Room.file_name).read_text())
    assert written == {"schema_version": 1, "paint": {"schema_version": 3, "color": "RED"}}


@pytest.mark.parametrize(
    ("kind", "content", "versions"),
    [
        (Paint, {"schema_version": 4, "hue": 17}, (4, 3)),
        (Room, {"schema_version": 2}, (2, 1)),
        (Room, {"paint": {"schema_version": 9}}, (9, 3)),
    ],
)
def test_a_document_of_a_newer_genreflow_is_refused_with_what_to_do(
    tmp_path: Path, kind: type[Document], content: dict[str, Any], versions: tuple[int, int]
) -> None:
    path = write(tmp_path, kind, content) / kind.file_name
    with pytest.raises(NewerDocumentError) as refused:
        kind.read(tmp_path)
    assert str(refused.value) == (
        f"{path} was written by a newer genreflow (schema version {versions[0]}, and this genreflow reads "
        f"versions up to {versions[1]}): upgrade genreflow."
    )


@pytest.mark.parametrize("version", [0, -1, "x", None, 1.5, True, [1]])
def test_an_invalid_schema_version_gives_an_error_message(tmp_path: Path, version: Any) -> None:
    with pytest.raises(GenreflowError, match=r"is not a readable Paint: schema_version"):
        Paint.read(write(tmp_path, Paint, {"schema_version": version, "color": "RED"}))


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_document_has_a_schema_version(kind: type[Document], tmp_path: Path) -> None:
    assert issubclass(kind, Document)
    newer = write(tmp_path, kind, {"schema_version": len(kind.upgrades) + 2})
    with pytest.raises(NewerDocumentError, match="upgrade genreflow"):
        kind.read(newer)


def test_there_are_no_other_documents() -> None:
    ours = {kind for kind in Document.__subclasses__() if kind.__module__.startswith("genreflow")}
    assert ours == set(DOCUMENTS)


def test_documents_of_version_0_1_0_have_no_schema_version_and_are_read(tmp_path: Path) -> None:
    model_document().write(tmp_path)
    path = tmp_path / ModelDocument.file_name
    content = json.loads(path.read_text())
    assert content.pop("schema_version") == 2
    content["hearing"] = content.pop("input_spec")
    path.write_text(json.dumps(content))
    assert ModelDocument.read(tmp_path) == model_document()


def test_a_registered_version_of_a_newer_genreflow_names_the_upgrade_and_is_not_trained_anew(
    tmp_path: Path,
) -> None:
    made = Candidate(*(tmp_path / part for part in ("packaged", "evaluation", "corpus")))
    write_packaged(made.packaged, 0, {})
    write_corpus(made.corpus, {})
    write_evaluation(made.evaluation, made.packaged, 0.8, {})
    registry.register(made.packaged, made.evaluation, made.corpus, split_of(made.corpus), None)
    (stored,) = (home.home() / "mlartifacts").rglob(PackagedDocument.file_name)
    newer = json.loads(stored.read_text()) | {"schema_version": 99}
    stored.write_text(json.dumps(newer))
    client = MlflowClient(home.tracking_uri())
    client.set_model_version_tag(registry.MODEL_NAME, "1", "packaged_sha256", file_digest(stored))
    with pytest.raises(ModelError) as refused:
        registry.fetch("1")
    assert re.match(
        r"Version 1 cannot be loaded: .*packaged\.json was written by a newer", str(refused.value)
    )
    assert "anew" not in str(refused.value)
    assert [version.version for version in registry.versions()] == ["1"]
