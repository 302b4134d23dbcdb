"""A model whose runtime is not in the image of the service: refused by a sentence, before it is loaded."""

import os
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

import pytest
from candidates import write_corpus, write_evaluation, write_packaged
from corpora import split_of
from servers import START_SECONDS, free_port, running

from components.image import ROOT
from genreflow import publishing, registry
from genreflow.core.documents import PackagedDocument, Served
from genreflow.inference.backends import BACKENDS, backend
from genreflow.publishing import Published

SERVE = [sys.executable, "-m", "bentoml", "serve", "serving.service:GenreClassifier", "--host", "127.0.0.1"]
MISSING = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        missing = name.partition(".")[0] in ("sklearn", "skops", "threadpoolctl", "xgboost")
        return None if missing else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""
"""As in the image of the service, which is without the packages of one runtime."""


def write_native_alone(folder: Path, **fields: Any) -> None:
    """A packaged model of family shallow whose ONNX form missed parity."""
    write_packaged(folder, 0, {"family": "shallow", "settings": {}, "pretrained": None} | fields)
    document = PackagedDocument.read(folder)
    (report,) = document.runtimes
    reason = "one probability is 0.2 off"
    exported = report.model_copy(update={"name": "onnxruntime", "usable": False, "reason": reason})
    native = report.model_copy(update={"name": "sklearn"})
    changed = {"runtimes": (native, exported), "served": Served(runtime="sklearn", precision="f32")}
    document.model_copy(update=changed).write(folder)


@pytest.fixture
def without_packages(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(MISSING)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])}


def check(said: str) -> None:
    assert "served by scikit-learn, which is not installed here (sklearn, skops, threadpoolctl)" in said
    assert "a bento of its own" in said
    assert "Traceback" not in said


def test_the_service_does_not_start_and_the_error_names_a_solution(
    tmp_path: Path, without_packages: dict[str, str]
) -> None:
    """Its inner process was started again and again, each time with a traceback."""
    write_native_alone(tmp_path / "models")
    environment = without_packages | {"GENREFLOW_MODEL_PATH": str(tmp_path / "models")}
    log = tmp_path / "serve.log"
    with running([*SERVE, "--port", str(free_port())], log, environment) as process:
        assert process.wait(START_SECONDS) != 0
    check(log.read_text())


@pytest.fixture
def published(tmp_path: Path, aws: Any, monkeypatch: pytest.MonkeyPatch) -> Published:
    """Such a model in a bucket, from a registry of its own."""
    monkeypatch.setenv("GENREFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write_native_alone(tmp_path / "model")
    write_corpus(tmp_path / "corpus", {})
    write_evaluation(tmp_path / "scores", tmp_path / "model", 0.8, {})
    registry.register(
        tmp_path / "model", tmp_path / "scores", tmp_path / "corpus", split_of(tmp_path / "corpus"), None
    )
    bucket = f"models-{uuid.uuid4().hex[:12]}"
    aws.create_bucket(Bucket=bucket)
    return publishing.publish("1", f"s3://{bucket}/genres/1")


def test_a_pods_init_container_fetches_no_model_that_its_image_cannot_serve(
    published: Published, tmp_path: Path, without_packages: dict[str, str]
) -> None:
    (note,) = published.notes
    assert note.startswith("This model is served by scikit-learn, which the image of the service does not")
    to = tmp_path / "models"
    argv = ["-m", "serving.fetch", "--from", published.url, "--digest", published.digest, "--to", str(to)]

    def fetched(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *argv],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    done = fetched(without_packages)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    check(done.stderr)
    assert list(to.iterdir()) == []
    assert fetched({}).returncode == 0
    assert (to / "model" / "weights.npy").is_file()


def test_the_extra_for_an_image_has_what_scikit_learn_needs_as_pinned_for_training() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {re.split("[=>]", line)[0] for line in extras["sklearn"]} == set(backend("sklearn").packages)
    assert set(extras["sklearn"]) <= set(extras["train"])
    assert "sklearn" in (ROOT / "infra" / "images" / "Dockerfile").read_text()


@pytest.mark.parametrize("name", BACKENDS)
def test_what_a_runtime_imports_is_there_where_all_is_installed(name: str) -> None:
    assert backend(name).missing() == ()
