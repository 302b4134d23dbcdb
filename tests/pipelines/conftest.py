"""What tests of Kubeflow share: a server that answers as its API does, and answers of a real one."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubeflow_api import Document, KubeflowApi

from pipelines import cluster, kubeflow


@pytest.fixture
def real(shared: Path) -> Callable[[str], Document]:
    """An answer that a real Kubeflow Pipelines 2.17.0 gave."""

    def answer(name: str) -> Document:
        document: Document = json.loads((shared / "reference" / "kfp_api" / f"{name}.json").read_text())
        return document

    return answer


@pytest.fixture
def api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real: Callable[[str], Document]
) -> Iterator[KubeflowApi]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    server = KubeflowApi(real)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time between two looks, nor between two tries."""
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(kubeflow, "SECONDS_BETWEEN_TRIES", 0.01)
