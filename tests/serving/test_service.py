"""The bento of the champion, served by a real process over HTTP."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bentoml
import numpy as np
import pytest
import requests
import soundfile
from candidates import write_corpus, write_evaluation, write_packaged
from servers import free_port, served

import genreflow
from genreflow import registry
from genreflow.artifacts import PackagedDocument
from genreflow.runtime import Classification

CLI = [sys.executable, "-m", "pipelines.cli"]
SAMPLE_RATE = 8_000


class Service:
    """A running service, and what the same model answers without it."""

    def __init__(self, address: str, song: Path, expected: Classification, digest: str) -> None:
        self.address, self.song, self.expected, self.digest = address, song, expected, digest

    def post(self, path: str, content: bytes, **fields: str) -> requests.Response:
        files = {"file": ("upload", content)}
        return requests.post(f"{self.address}/{path}", files=files, data=fields, timeout=60)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("service")
    environment = {"GENREFLOW_HOME": str(root / "home"), "BENTOML_HOME": str(root / "bentoml")}
    song = root / "song.flac"
    soundfile.write(song, np.random.default_rng(0).normal(size=3 * SAMPLE_RATE) * 0.1, SAMPLE_RATE)
    packaged, evaluation, corpus = root / "packaged", root / "evaluation", root / "corpus"
    write_packaged(packaged, 0, {})
    write_corpus(corpus, {})
    write_evaluation(evaluation, packaged, 0.8, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENREFLOW_HOME", environment["GENREFLOW_HOME"])
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        registry.register(packaged, evaluation, corpus, None)
        registry.set_champion("1", "the first")
        expected = genreflow.load("champion").classify(song)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    argv = [*CLI, "serve", "--port", str(port)]
    with served(argv, root / "serve.log", environment, f"{address}/readyz"):
        yield Service(address, song, expected, PackagedDocument.read(packaged).digest)


def requirements(bentoml_home: Path) -> str:
    """What the one bento there asks to be installed."""
    (bento,) = (bentoml_home / "bentos" / "genreflow").glob("*/env/python/requirements.txt")
    return bento.read_text()


def test_a_bento_carries_pytorch_only_where_openvino_does_not_serve_the_model(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slim = requirements(service.song.parent / "bentoml")
    assert "openvino==" in slim
    assert "torch==" not in slim
    packaged, evaluation, corpus = tmp_path / "packaged", tmp_path / "evaluation", tmp_path / "corpus"
    write_packaged(packaged, 0, {})
    document = PackagedDocument.read(packaged)
    refused = document.runtimes[0].model_copy(update={"usable": False, "reason": "parity failed"})
    document.model_copy(update={"runtimes": (refused,)}).write(packaged)
    write_corpus(corpus, {})
    write_evaluation(evaluation, packaged, 0.8, {})
    registry.register(packaged, evaluation, corpus, None)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    done = subprocess.run([*CLI, "build", "--model", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole = requirements(tmp_path / "bentoml")
    for package in ("torch", "transformers", "safetensors", "openvino"):
        assert f"{package}==" in whole


def test_a_clip_is_classified_as_the_library_does_with_the_lineage_of_the_model(service: Service) -> None:
    answer = service.post("classify", service.song.read_bytes())
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["genre"] == service.expected.genre
    assert found["probabilities"] == pytest.approx(service.expected.probabilities, abs=1e-5)
    assert found["seconds"] == pytest.approx(3.0)
    assert found["lineage"]["version"] == "1"
    assert found["lineage"]["digest"] == service.digest
    assert found["lineage"]["corpus_fingerprint"] == "c0" * 32


def test_a_song_has_a_timeline_at_the_hop_asked_for(service: Service) -> None:
    found = service.post("timeline", service.song.read_bytes(), hop_seconds="0.5").json()
    assert np.diff(found["starts"])[:-1] == pytest.approx(0.5)
    assert found["segments"][0]["start"] == 0
    assert found["segments"][-1]["end"] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"<html>not audio</html>", "text, not audio"), (b"", "empty")],
    ids=["html", "empty"],
)
def test_what_is_no_audio_is_refused_with_a_sentence(service: Service, content: bytes, said: str) -> None:
    answer = service.post("classify", content)
    assert answer.status_code == 400
    assert said in answer.text


def test_bentomls_own_client_is_answered(service: Service) -> None:
    with bentoml.SyncHTTPClient(service.address) as client:
        assert client.classify(file=service.song)["genre"] == service.expected.genre


def test_a_port_in_use_is_told_in_a_sentence_at_once(service: Service) -> None:
    port = service.address.rpartition(":")[2]
    done = subprocess.run([*CLI, "serve", "--port", port], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"Port {port}" in done.stderr
    assert "Traceback" not in done.stderr
