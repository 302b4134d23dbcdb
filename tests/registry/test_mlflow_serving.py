"""`mlflow models serve` on the champion: a real server answers real audio over HTTP."""

import base64
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile
from candidates import Candidate
from corpora import split_of
from servers import free_port, served

import genreflow
from genreflow import registry
from genreflow.core import home


def test_mlflow_serves_the_champion(candidate: Callable[..., Candidate], tmp_path: Path) -> None:
    made = candidate()
    registry.register(made.packaged, made.evaluation, made.corpus, split_of(made.corpus), None)
    registry.set_champion("1", "the first")
    song = tmp_path / "song.flac"
    soundfile.write(song, np.random.default_rng(0).normal(size=24_000) * 0.1, 8_000)
    port = free_port()
    argv = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        f"models:/{registry.MODEL_NAME}@champion",
    ]
    argv += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # MLflow looks for uvicorn on the PATH, which holds it only in an activated environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"MLFLOW_TRACKING_URI": home.tracking_uri(), "PATH": path}
    address = f"http://127.0.0.1:{port}"
    with served(argv, tmp_path / "serve.log", environment, f"{address}/ping"):
        audio = base64.b64encode(song.read_bytes()).decode()
        asked = {"dataframe_split": {"columns": ["audio"], "data": [[audio], [audio]]}}
        answer = requests.post(f"{address}/invocations", json=asked, timeout=60)
        junk = base64.b64encode(b"<html>not audio</html>").decode()
        asked = {"dataframe_split": {"columns": ["audio"], "data": [[junk]]}}
        refused = requests.post(f"{address}/invocations", json=asked, timeout=60)
    assert answer.status_code == 200, answer.text
    first, second = answer.json()["predictions"]
    assert first == second
    expected = genreflow.load("champion").classify(song)
    assert first["genre"] == expected.genre
    assert abs(first["confidence"] - expected.confidence) < 1e-5
    assert refused.status_code == 400
    assert "Row 0" in refused.text


def test_a_tracking_server_keeps_and_gives_the_model(
    candidate: Callable[..., Candidate], tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything over HTTP, artifacts proxied by the server, as on a cluster."""
    port = free_port()
    argv = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    argv += ["--backend-store-uri", f"sqlite:///{store}", "--artifacts-destination", str(tmp_path / "server")]
    address = f"http://127.0.0.1:{port}"
    with served(
        argv, tmp_path / "server.log", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, f"{address}/health"
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        made = candidate()
        run_id = registry.open_run("genreflow", {"family": "encoder"})
        with registry.log_curves(run_id) as curves:
            curves(1, {"loss": 1.0})
        registry.close_run(run_id)
        assert curves.lost == 0
        assert registry.register(
            made.packaged, made.evaluation, made.corpus, split_of(made.corpus), run_id
        ).created
        assert not registry.register(
            made.packaged, made.evaluation, made.corpus, split_of(made.corpus), run_id
        ).created
        registry.set_champion("1", "the first")
        assert registry.version("champion").metrics["accuracy"] == 0.8
        assert registry.fetch("champion").name == made.digest
    assert not (home.home() / "mlartifacts").exists()
