"""The service over a published model in a folder, as its image runs: `serving.fetch`, then the server."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from servers import free_port, served
from services import Champion

from genreflow import publishing, registry
from genreflow.core.errors import PublishError
from genreflow.publishing import Published
from serving.fetch import fetch

SERVE = [sys.executable, "-m", "bentoml", "serve", "serving.service:GenreClassifier", "--host", "127.0.0.1"]
NEVER_LOADED = {
    "mlflow",
    "torch",
    "transformers",
    "kfp",
    "pandas",
    "genreflow.registry",
    "genreflow.publishing",
}


@pytest.fixture(scope="module")
def registered(champion: Champion, tmp_path_factory: pytest.TempPathFactory) -> Champion:
    """A registry with a version of a family that has no form for transformers."""
    copied = champion.copy(tmp_path_factory.mktemp("to-publish"))
    copied.register("linear", 5, family="linear", settings={}, pretrained=None)
    return copied


@pytest.fixture
def published(registered: Champion, aws: Any) -> Iterator[Published]:
    bucket = f"models-{uuid.uuid4().hex[:12]}"
    aws.create_bucket(Bucket=bucket)
    with registered.registry():
        yield publishing.publish("2", f"s3://{bucket}/genres/2")


def test_a_published_version_is_fetched_and_served_without_registry_and_store(
    published: Published, registered: Champion, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    argv = ["-m", "serving.fetch", "--from", published.url, "--digest", published.digest, "--to", str(models)]
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("Version 2 (")
    assert {path.name for path in models.iterdir()} == {
        "openvino", "packaged.json", "published.json", "reference.npz"
    }  # fmt: skip
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    environment = {
        "GENREFLOW_MODEL_PATH": str(models),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "GENREFLOW_MONITORING": str(tmp_path / "monitoring"),
    }
    with served([*SERVE, "--port", str(port)], tmp_path / "serve.log", environment, f"{address}/readyz"):
        with registered.song.open("rb") as song:
            answer = requests.post(f"{address}/classify", files={"file": song}, timeout=60).json()
        card = requests.get(f"{address}/model", timeout=60).json()
    assert answer["lineage"] == card["lineage"]
    with registered.registry():
        found = registry.version("2")
    assert card["lineage"]["version"] == "2"
    assert card["lineage"]["digest"] == found.digest
    assert card["lineage"]["model"].startswith("genreflow:v2-")
    assert card["accuracy"] == pytest.approx(float(found.tags["accuracy"]))
    assert card["accuracy_ci95"] == json.loads(found.tags["accuracy_ci95"])
    assert not list((tmp_path / "bentoml").rglob("*.yaml"))  # BentoML makes the folders of its stores


def test_fetching_loads_neither_registry_nor_what_trains() -> None:
    code = f"import sys, serving.fetch; sys.exit(str({NEVER_LOADED!r} & sys.modules.keys() or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_what_is_there_is_not_fetched_again_and_what_was_altered_is(
    published: Published, aws: Any, tmp_path: Path
) -> None:
    fetch(published.url, published.digest, tmp_path / "models")
    weights = tmp_path / "models" / "openvino" / "model.bin"
    before, content = weights.stat().st_mtime_ns, weights.read_bytes()
    fetch(published.url, published.digest, tmp_path / "models")
    assert weights.stat().st_mtime_ns == before
    weights.write_bytes(b"half")
    (weights.parent / "int8.xml").write_text("of another model")
    fetch(published.url, published.digest, tmp_path / "models")
    assert weights.read_bytes() == content
    assert not (weights.parent / "int8.xml").exists()
    assert not list((tmp_path / "models").glob(".fetch-*"))


def test_another_content_than_the_digest_names_is_refused(
    published: Published, aws: Any, tmp_path: Path
) -> None:
    with pytest.raises(PublishError, match="is not the version that was named"):
        fetch(published.url, "0" * 64, tmp_path / "models")
    bucket = published.url.split("/")[2]
    aws.put_object(Bucket=bucket, Key="genres/2/openvino/model.bin", Body=b"altered")
    with pytest.raises(PublishError, match=r"model\.bin was altered since it was published"):
        fetch(published.url, published.digest, tmp_path / "models")
    assert not (tmp_path / "models" / "packaged.json").exists()
    with pytest.raises(PublishError, match=f"There is no model at s3://{bucket}/genres/3"):
        fetch(f"s3://{bucket}/genres/3", published.digest, tmp_path / "models")
    with pytest.raises(PublishError, match="There is no model at s3://nowhere/genres/3"):
        fetch("s3://nowhere/genres/3", published.digest, tmp_path / "models")


def test_a_folder_with_other_files_is_unchanged(published: Published, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(PublishError, match=r"holds thesis\.txt, which is no part of a model"):
        fetch(published.url, published.digest, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_without_a_model_the_service_says_how_to_get_one(tmp_path: Path) -> None:
    environment = os.environ | {"GENREFLOW_MODEL_PATH": str(tmp_path)}
    argv = [*SERVE, "--port", str(free_port())]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert f"There is no packaged model in {tmp_path}" in done.stdout + done.stderr
    assert "python -m serving.fetch" in done.stdout + done.stderr
