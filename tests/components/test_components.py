"""The components, called with real KFP artifacts on a corpus of tones, one after another as in a pipeline."""

import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl
from sounds import tone, write

from components.build import build
from components.evaluate import evaluate
from components.extract_features import extract_features
from components.fine_tune import fine_tune
from components.ingest import ingest
from components.package import package
from components.promote import promote
from components.register import register
from components.resolve import resolve
from components.split import split
from genreflow import registry, steps
from genreflow.core.documents import CorpusDocument, PackagedDocument, Representation, SplitDocument
from genreflow.core.errors import ArtifactMissingError, GenreflowError
from genreflow.steps.reporting import MADE_BY
from tests.checkpoints import tiny_checkpoint
from tests.conftest import need

NOBODY = 65534
GENRES = ["blues", "jazz", "rock"]
COMPONENTS = [
    resolve, ingest, split, extract_features, fine_tune, evaluate, package, register, promote, build
]  # fmt: skip


class Chain:
    """Artifacts under one folder, each made by the component that `python_func` is of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.artifacts: dict[str, Any] = {}
        self.values: dict[str, Any] = {}

    def new(self, kind: type, name: str) -> Any:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        self.artifacts[name] = kind(name=name, uri=str(self.folder / name))
        return self.artifacts[name]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("chain")
    for number, genre in enumerate(GENRES):
        for clip in range(6):
            samples = tone(seconds=3.2, pitch=220.0 * 2**number + clip)
            write(folder / "clips" / genre / f"{clip}.wav", samples)
    chain = Chain(folder)
    source, made, new = str(folder / "clips"), chain.artifacts, chain.new
    corpus = {"genres": GENRES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENREFLOW_HOME", str(folder / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        source_print, representation, backbone = resolve.python_func(
            source, json.dumps(corpus), "mfcc_cnn", "{}"
        )
        ingest.python_func(source, source_print, json.dumps(corpus), new(dsl.Dataset, "corpus"))
        split.python_func(made["corpus"], json.dumps({"protocol": "grouped"}), new(dsl.Dataset, "split"))
        extract_features.python_func(made["corpus"], representation, "cpu", 8, new(dsl.Dataset, "features"))
        training = json.dumps({"epochs": 2, "device": "cpu"})
        run_id = fine_tune.python_func(
            made["corpus"],
            made["features"],
            made["split"],
            "mfcc_cnn",
            "{}",
            backbone,
            training,
            "tests",
            new(dsl.Model, "model"),
        )
        package.python_func(
            made["model"], made["corpus"], made["split"], "{}", "auto", new(dsl.Model, "packaged")
        )
        evaluate.python_func(
            made["packaged"],
            made["corpus"],
            made["split"],
            new(dsl.Artifact, "evaluation"),
            new(dsl.Metrics, "metrics"),
            new(dsl.ClassificationMetrics, "confusion"),
            new(dsl.HTML, "report"),
        )
        lineage = (made["packaged"], made["evaluation"], made["corpus"])
        version, created = register.python_func(*lineage, made["split"], run_id)
        policy = json.dumps({"min_clips": 1, "min_accuracy": 0.0, "confidence": 0.51})
        decision, aliases = folder / "decision", folder / "aliases"
        to_build = promote.python_func(version, *lineage, policy, str(decision), str(aliases))
        chain.values = {
            "source_print": source_print,
            "representation": representation,
            "run_id": run_id,
            "version": version,
            "created": created,
            "decision": json.loads(decision.read_text()),
            "aliases": json.loads(aliases.read_text()),
            "to_build": to_build,
            "again": register.python_func(*lineage, made["split"], run_id),
        }
        yield chain


@pytest.fixture(autouse=True)
def _the_chains_home(_own_home: None, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENREFLOW_HOME", str(chain.folder / "home"))


def test_resolve_gives_a_fingerprint_and_the_representation_that_the_family_trains_on(chain: Chain) -> None:
    assert len(chain.values["source_print"]) == 64
    found = Representation.model_validate_json(chain.values["representation"])
    assert (found.kind, found.stage, found.backbone, found.digest) == ("none", "inputs", None, None)
    assert found.canonical() == chain.values["representation"]


def test_the_representation_follows_the_backbones_content(chain: Chain) -> None:
    folder = tiny_checkpoint("hubert", chain.folder / "weights")

    def representation() -> str:
        model = json.dumps({"backbone": str(folder), "window_seconds": 0.5})
        source, genres = str(chain.folder / "clips"), json.dumps({"genres": GENRES})
        return resolve.python_func(source, genres, "encoder", model)[1]

    before = representation()
    assert representation() == before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layerdrop": 0.2}))
    assert representation() != before


def test_ingest_and_split_say_on_their_artifacts_what_they_are(chain: Chain) -> None:
    corpus = chain.artifacts["corpus"]
    document = CorpusDocument.read(Path(corpus.path))
    assert corpus.metadata["fingerprint"] == document.fingerprint
    assert corpus.metadata["clips"] == 18
    parts = chain.artifacts["split"]
    assert parts.metadata["fingerprint"] == SplitDocument.read(Path(parts.path)).fingerprint
    assert parts.metadata["protocol"] == "grouped"
    assert sum(value for key, value in parts.metadata.items() if key.startswith("clips_")) == 18


def test_fine_tune_returns_the_run_that_trained_and_closes_it(chain: Chain) -> None:
    run = registry.store.connect().get_run(chain.values["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["training.epochs"] == "2"
    assert any(key.endswith("loss") for key in run.data.metrics)


def test_evaluate_fills_metrics_confusion_matrix_and_page(chain: Chain) -> None:
    assert 0 <= chain.artifacts["metrics"].metadata["accuracy"] <= 1
    matrix = chain.artifacts["confusion"].metadata["confusionMatrix"]
    assert [entry["displayName"] for entry in matrix["annotationSpecs"]] == GENRES
    assert len(matrix["rows"]) == len(GENRES)
    assert "<html" in Path(chain.artifacts["report"].path).read_text()


def test_every_artifact_leaves_a_file_so_that_its_step_can_be_cached(chain: Chain) -> None:
    for artifact in chain.artifacts.values():
        assert Path(artifact.path).exists(), artifact.name


def test_package_says_the_digest_under_which_it_is_registered(chain: Chain) -> None:
    packaged = chain.artifacts["packaged"]
    assert packaged.metadata["digest"] == PackagedDocument.read(Path(packaged.path)).digest
    assert registry.version("1").digest == packaged.metadata["digest"]


def test_the_same_model_is_registered_once(chain: Chain) -> None:
    assert (chain.values["version"], chain.values["created"]) == ("1", True)
    assert tuple(chain.values["again"]) == ("1", False)


def test_the_alias_follows_the_decision(chain: Chain) -> None:
    decision = chain.values["decision"]
    assert decision["verdict"] == ("promoted" if decision["promote"] else "kept")
    assert chain.values["aliases"] == ["champion" if decision["promote"] else "challenger"]
    assert chain.values["to_build"] is decision["promote"]
    assert registry.version("1").tags["decision_reason"] == decision["reason"]


BUILD = """
import sys
from kfp import dsl
from components.build import build
print(build.python_func("1", "auto", True, dsl.Artifact(name="bento", uri=sys.argv[1])))
"""


def test_an_exported_bento_is_imported_elsewhere_with_its_model(chain: Chain, tmp_path: Path) -> None:
    def python(home: str, *arguments: str) -> str:
        environment = os.environ | {"BENTOML_HOME": str(tmp_path / home)}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    tag = python("pod", "-c", BUILD, str(tmp_path / "first")).splitlines()[-1]
    assert registry.version("1").tags["bento"] == tag
    # a pod that is retried: what it made is there, or is gone
    assert python("pod", "-c", BUILD, str(tmp_path / "second")).splitlines()[-1] == tag
    assert python("other pod", "-c", BUILD, str(tmp_path / "third")).splitlines()[-1] == tag
    python("cluster", "-m", "bentoml", "import", str(tmp_path / "second" / "genreflow.tar"))
    bentos = json.loads(python("cluster", "-m", "bentoml", "list", "-o", "json"))
    assert [bento["tag"] for bento in bentos] == [tag]
    (model,) = json.loads(python("cluster", "-m", "bentoml", "models", "list", "-o", "json"))
    assert tag.startswith(model["tag"])


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.name)
def test_a_component_installs_nothing_and_explains_itself(component: Any) -> None:
    spec = component.component_spec
    assert spec.description
    for name, given in (spec.inputs or {}).items():
        assert given.description, f"{component.name}: {name}"
    assert "pip install" not in " ".join(spec.implementation.container.command)


READ = [
    (component, name)
    for component in COMPONENTS
    for name, given in (component.component_spec.inputs or {}).items()
    if given.type.startswith("system.")
]
"""Every artifact that a component reads."""


@pytest.mark.parametrize(("component", "read"), READ, ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("left", [None, "empty", "without its document"])
def test_an_artifact_that_was_purged_is_named_by_the_component_that_reads_it(
    component: Any, read: str, left: str | None, tmp_path: Path
) -> None:
    """KFP's launcher fetches what lies in the object store: nothing, where nothing is there any more."""
    spec, given = component.component_spec, {}
    for name in inspect.signature(component.python_func).parameters:
        place = tmp_path / name
        if name in (spec.inputs or {}):
            if not spec.inputs[name].type.startswith("system."):
                given[name] = 8 if spec.inputs[name].type == "NUMBER_INTEGER" else "{}"
                continue
            document = MADE_BY[name][1]
            if name != read:
                place.mkdir()
                (place / document).write_text("{}")
            elif left:
                place.mkdir()
                if left != "empty":
                    (place / "other").touch()
        given[name] = dsl.Artifact(uri=str(place))
    with pytest.raises(
        ArtifactMissingError, match=f"The artifact {read} of the step {MADE_BY[read][0]} is not"
    ):
        component.python_func(**given)


def test_a_file_that_is_missing_in_an_artifact_is_named_when_it_is_read(chain: Chain, tmp_path: Path) -> None:
    shutil.copytree(chain.artifacts["features"].path, tmp_path / "features")
    (tmp_path / "features" / "windows.npy").unlink()
    with pytest.raises(
        ArtifactMissingError, match=r"artifact features .*windows\.npy is missing.*--no-cache"
    ):
        steps.fine_tune(
            tmp_path / "features",
            Path(chain.artifacts["split"].path),
            tmp_path / "m",
            "mfcc_cnn",
            {},
            {"epochs": 1},
        )


def test_the_documents_that_make_artifacts_whole_are_those_that_are_written(chain: Chain) -> None:
    assert set(MADE_BY) - set(chain.artifacts) == {"candidate"}  # a comparison's
    for name in MADE_BY.keys() & chain.artifacts.keys():
        assert (Path(chain.artifacts[name].path) / MADE_BY[name][1]).is_file()


def test_resolve_says_where_a_claim_cannot_be_written(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    need(os.geteuid() == 0, "root, to become another user")
    folder = Path(tempfile.mkdtemp(prefix="claim-"))
    folder.chmod(0o755)
    monkeypatch.setenv("GENREFLOW_HOME", str(folder))
    os.seteuid(NOBODY)
    try:
        for first in (
            lambda: resolve.python_func("synthetic", "{}", "mfcc_cnn", "{}"),
            lambda: steps.resolve_candidates("synthetic", {}, [{"family": "mfcc_cnn", "model": {}}]),
        ):
            with pytest.raises(GenreflowError, match=f"which user {NOBODY} .*Permission denied.*fsGroup"):
                first()
    finally:
        os.seteuid(0)
        folder.rmdir()
    resolve.python_func("synthetic", "{}", "mfcc_cnn", "{}")


def test_a_component_compiles_when_its_file_is_run(tmp_path: Path) -> None:
    file = tmp_path / "resolve.py"
    file.write_bytes((Path(__file__).parent.parent.parent / "components" / "resolve.py").read_bytes())
    subprocess.run([sys.executable, str(file)], check=True, capture_output=True)
    assert yaml.safe_load((tmp_path / "resolve.yaml").read_text())["pipelineInfo"]["name"] == "resolve"
