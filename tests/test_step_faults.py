"""What befalls any step: it is killed, or there is no room to write into."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from corpora import split_of
from disks import little_room
from sounds import genre_folder

from genreflow import steps
from genreflow.core.documents import (
    CorpusDocument,
    FeaturesDocument,
    ModelDocument,
    PackagedDocument,
    SplitDocument,
)
from genreflow.core.errors import GenreflowError
from genreflow.core.progress import PROGRESS_VARIABLE
from genreflow.core.seals import verify_seal
from genreflow.evaluation.document import EvaluationDocument
from genreflow.families import family
from genreflow.fitting import fine_tuning
from genreflow.packaging.export import export_openvino
from tests.training.test_training import FAST, features, fine_tune

DOCUMENTS = (
    CorpusDocument,
    SplitDocument,
    FeaturesDocument,
    ModelDocument,
    EvaluationDocument,
    PackagedDocument,
)
CORPUS = {"genres": ["jazz", "rock"]}
KILLED_BEFORE_THE_END = """
import os, signal, sys
from pathlib import Path
from genreflow import steps
from genreflow.core import documents
def killed(*_): os.kill(os.getpid(), signal.SIGKILL)
documents.Document.write = killed
source, corpus, out = sys.argv[1:]
settings = {"genres": ["jazz", "rock"]}
fingerprint, representation, _ = steps.resolve(source, settings, "mfcc_cnn", {})
if out:
    steps.extract_features(Path(corpus), representation, Path(out), device="cpu")
else:
    steps.ingest(source, fingerprint, settings, Path(corpus))
"""


@pytest.fixture
def music(tmp_path: Path) -> str:
    return str(genre_folder(tmp_path / "music"))


def ingest(music: str, out: Path) -> CorpusDocument:
    return steps.ingest(music, steps.resolve(music, CORPUS, "mfcc_cnn", {})[0], CORPUS, out)


def extract(corpus: Path, out: Path) -> FeaturesDocument:
    network = family("mfcc_cnn")
    representation = network.representation(network.settings_type()).canonical()
    return steps.extract_features(corpus, representation, out, device="cpu")


def test_a_killed_ingest_or_extraction_leaves_nothing_that_counts_as_complete(
    music: str, tmp_path: Path
) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "features"

    def kill(*arguments: str) -> None:
        command = [sys.executable, "-c", KILLED_BEFORE_THE_END, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr

    kill(music, str(corpus), "")
    assert not corpus.exists()
    made = ingest(music, corpus)
    assert made.fingerprint == ingest(music, tmp_path / "undisturbed").fingerprint
    kill(music, str(corpus), str(out))
    assert any(out.iterdir())
    with pytest.raises(GenreflowError, match="is not a genreflow FeaturesDocument"):
        FeaturesDocument.read(out)
    again = extract(corpus, out)
    whole = extract(corpus, tmp_path / "whole")
    assert again.fingerprint == whole.fingerprint


def trained(music: str, folder: Path) -> tuple[Path, Path]:
    """A corpus with its split beside it, and a model of it."""
    corpus, features, model = (folder / name for name in ("corpus", "features", "model"))
    ingest(music, corpus)
    steps.split(corpus, {"protocol": "grouped"}, split_of(corpus))
    extract(corpus, features)
    fine_tuning.fine_tune(features, split_of(corpus), model, family("mfcc_cnn"), {}, {**FAST, "epochs": 1})
    return corpus, model


@pytest.mark.parametrize("step", ["ingest", "split", "extract_features", "fine_tune", "evaluate", "package"])
def test_a_full_disk_gives_an_error_message_and_the_next_run_succeeds(
    step: str, music: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "events.jsonl"
    out, source = tmp_path / "out", tmp_path / "source"
    if step in ("split", "extract_features"):
        ingest(music, source)
    if step == "fine_tune":
        features(source)
    if step in ("evaluate", "package"):
        corpus, model = trained(music, source)
    if step == "evaluate":
        steps.package(model, corpus, split_of(corpus), tmp_path / "packaged", {})
    monkeypatch.setenv(PROGRESS_VARIABLE, str(events))

    def run() -> None:
        if step == "ingest":
            ingest(music, out)
        elif step == "extract_features":
            extract(source, out)
        elif step == "split":
            steps.split(source, {}, out)
        elif step == "evaluate":
            steps.evaluate(tmp_path / "packaged", corpus, split_of(corpus), out)
        elif step == "package":
            steps.package(model, corpus, split_of(corpus), out, {})
        else:
            with steps.report_step(step):  # not the whole step: its MLflow store is larger than the room
                fine_tune(source, out, {**FAST, "epochs": 1})

    with (
        little_room(2_000 if step == "split" else 20_000),
        pytest.raises(GenreflowError, match=r"There is no room left.* run again"),
    ):
        run()
    assert "There is no room left" in events.read_text()
    assert not any((out / document.file_name).exists() for document in DOCUMENTS)
    assert verify_seal(out)
    run()
    assert any((out / document.file_name).exists() for document in DOCUMENTS)


def test_where_there_is_no_room_for_openvino_the_model_is_not_served_without_it(
    music: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, model = trained(music, tmp_path)
    export, out = export_openvino, tmp_path / "packaged"

    def cramped(*arguments: Any) -> None:
        with little_room(1000):
            export(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["genreflow.packaging.export"], "export_openvino", cramped)
        with pytest.raises(GenreflowError, match=r"OpenVINO could not write .*model.xml .*make room"):
            steps.package(model, corpus, split_of(corpus), out, {})
    assert not (out / PackagedDocument.file_name).exists()
    done = steps.package(model, corpus, split_of(corpus), out, {})
    assert all(runtime.usable for runtime in done.runtimes if runtime.precision == "f32")
