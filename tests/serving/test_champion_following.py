"""What starting and following cost: only what is needed is imported, and a model is read once."""

import io
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from servers import free_port
from services import POLL_SECONDS, Champion, Service, until

from genreflow import registry
from genreflow.core import home
from serving.champion import CONNECTED, RequestedModel, follow

SERVED = RequestedModel(tag="genreflow:v1-served", reason="the first", registry=CONNECTED)


def test_only_the_process_that_shows_the_page_imports_gradio(champion: Champion) -> None:
    """BentoML imports the service in three processes, and Gradio takes longer than all else together."""
    code = "import sys, serving.service; sys.exit('gradio' in sys.modules)"
    environment = os.environ | champion.environment | {"GENREFLOW_MODEL_TAG": champion.model_tag}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_looking_for_a_new_champion_does_not_fetch_the_model_again(service: Service, tmp_path: Path) -> None:
    fetched = Path(service.champion.environment["GENREFLOW_HOME"]) / "models" / service.champion.digest
    shutil.move(fetched, tmp_path / "aside")
    try:
        time.sleep(8 * POLL_SECONDS)
        assert not fetched.exists()
        assert service.model()["registry"] == "connected"
    finally:
        if not fetched.exists():
            shutil.move(tmp_path / "aside", fetched)


@contextmanager
def following(file: Path, interval: float = 0.1) -> Iterator[None]:
    """The registry of this process is followed, as `genreflow serve` does beside the service."""
    stop = threading.Event()
    thread = threading.Thread(target=follow, args=(file, "champion", "auto", SERVED, interval, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def noted(file: Path) -> RequestedModel:
    return RequestedModel.model_validate_json(file.read_text())


def troubled(file: Path) -> bool:
    return file.is_file() and noted(file).registry != CONNECTED


def test_only_a_registry_that_does_not_respond_is_reported_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    file, logged = tmp_path / "champion.json", io.StringIO()
    # a logger of its own: other libraries configure those that are registered
    logger = logging.Logger("following")
    logger.addHandler(logging.StreamHandler(logged))
    monkeypatch.setattr("serving.champion.log", logger)
    with following(file):
        until(lambda: troubled(file), "nothing was said")
    found = noted(file)
    assert found.tag == SERVED.tag
    assert found.registry.startswith("The registry has not responded since 2")
    assert re.search(r"since [-0-9]+ [:0-9]+[+-]\d\d:\d\d: ", found.registry)
    assert "127.0.0.1" not in found.registry
    assert "127.0.0.1" in logged.getvalue()


def test_an_alias_that_is_gone_is_reported_as_such(champion: Champion, tmp_path: Path) -> None:
    own, file = champion.copy(tmp_path / "own"), tmp_path / "champion.json"
    with own.registry():
        MlflowClient(home.tracking_uri()).delete_registered_model_alias(registry.MODEL_NAME, "champion")
        with following(file):
            until(lambda: troubled(file), "nothing was said")
    assert noted(file).registry.startswith("The registry has not resolved the alias champion since 2")


def test_a_champion_without_its_files_is_reported_as_such_and_not_fetched_at_every_look(
    champion: Champion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, file, fetched = champion.copy(tmp_path / "own"), tmp_path / "champion.json", []
    second = own.register("second", 1)
    fetch = registry.fetch

    def counted(version: str) -> Path:
        fetched.append(version)
        return fetch(version)

    monkeypatch.setattr(registry, "fetch", counted)
    with own.registry():
        (weights,) = (
            path
            for path in (champion.root / "home").rglob("openvino/model.bin")
            if path.read_bytes() == (own.root / "second-model" / "openvino" / "model.bin").read_bytes()
        )
        weights.write_bytes(b"damaged")
        registry.set_champion(second, "it is better")
        with following(file, interval=0.01):
            until(lambda: troubled(file), "nothing was said")
            time.sleep(1)
    assert fetched == [second]
    sentence = noted(file).registry
    assert sentence.startswith(f"Version {second} is champion but could not be fetched since 2")
    assert str(tmp_path) not in sentence
