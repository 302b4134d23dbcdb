"""`genreflow serve` as a real process, over the champion of a registry of its own."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import pytest
import requests
import soundfile
from bentoml._internal.models.model import ModelStore
from candidates import write_corpus, write_evaluation, write_packaged
from corpora import split_of
from servers import free_port, served

import genreflow
from genreflow import registry
from genreflow.core.documents import PackagedDocument
from genreflow.inference.answers import Classification

CLI = [sys.executable, "-m", "pipelines.cli"]
SAMPLE_RATE = 8_000
POLL_SECONDS = 0.3
FIGURE = re.compile(r"^genreflow_(\w+_(?:sum|count))(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
PROCESS_SECONDS = 60


@dataclass(frozen=True)
class Champion:
    """A registry with one version, the champion, and its bento; and what the library answers with it."""

    root: Path
    song: Path
    expected: Classification
    digest: str

    @property
    def environment(self) -> dict[str, str]:
        return {"GENREFLOW_HOME": str(self.root / "home"), "BENTOML_HOME": str(self.root / "bentoml")}

    @property
    def model_tag(self) -> str:
        """Of the model in BentoML's store."""
        (folder,) = (self.root / "bentoml" / "models" / "genreflow").glob("v*")
        return f"genreflow:{folder.name}"

    def stored(self, tag: str) -> Path:
        """The folder of a model in BentoML's store."""
        return self.root / "bentoml" / "models" / tag.replace(":", "/")

    def store(self, tag: str, packaged: Path) -> None:
        """Put a packaged model into BentoML's store."""
        store = ModelStore(self.root / "bentoml" / "models")
        labels = {"version": "9", "digest": PackagedDocument.read(packaged).digest}
        with bentoml.models.create(tag, labels=labels, _model_store=store) as stored:
            shutil.copytree(packaged, stored.path, dirs_exist_ok=True)

    def copy(self, root: Path) -> "Champion":
        """The same, to be changed."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return replace(self, root=root)

    @contextmanager
    def registry(self) -> Iterator[None]:
        """This process asks the registry of this champion."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GENREFLOW_HOME", self.environment["GENREFLOW_HOME"])
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            yield

    def register(self, name: str, seed: int, work: int = 0, **fields: Any) -> str:
        """Another version, not champion; its number."""
        packaged, evaluation, corpus = (
            self.root / f"{name}-{part}" for part in ("model", "scores", "corpus")
        )
        write_packaged(packaged, seed, fields, work)
        write_corpus(corpus, {})
        write_evaluation(evaluation, packaged, 0.8, {})
        with self.registry():
            return registry.register(packaged, evaluation, corpus, split_of(corpus), None).version


def crowned(root: Path) -> Champion:
    """A first champion under `root`."""
    song = root / "song.flac"
    soundfile.write(song, np.random.default_rng(0).normal(size=3 * SAMPLE_RATE) * 0.1, SAMPLE_RATE)
    champion = Champion(root, song, Classification("", 0.0, {}, "", 0.0, 0, None), "")
    champion.register("first", 0)
    with champion.registry():
        registry.set_champion("1", "the first")
        expected = genreflow.load("champion").classify(song)
    built = subprocess.run(
        [*CLI, "build"], env=os.environ | champion.environment, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return replace(champion, expected=expected, digest=PackagedDocument.read(root / "first-model").digest)


@dataclass(frozen=True)
class Service:
    """`genreflow serve` over a champion."""

    champion: Champion
    address: str

    @property
    def song(self) -> Path:
        return self.champion.song

    @property
    def expected(self) -> Classification:
        return self.champion.expected

    @property
    def log(self) -> str:
        return (self.champion.root / "serve.log").read_text()

    def post(self, path: str, content: bytes, name: str = "upload", **fields: str) -> requests.Response:
        files = {"file": (name, content)}
        return requests.post(f"{self.address}/{path}", files=files, data=fields, timeout=60)

    def figures(self) -> dict[str, float]:
        """Sums and counts of the service's own histograms."""
        text = requests.get(f"{self.address}/metrics", timeout=60).text
        found: dict[str, float] = {}
        for name, value in FIGURE.findall(text):
            found[name] = found.get(name, 0.0) + float(value)
        return found

    def model(self) -> dict[str, Any]:
        answer = requests.get(f"{self.address}/model", timeout=60)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@contextmanager
def running(champion: Champion, *options: str, **environment: str) -> Iterator[Service]:
    """`genreflow serve` as a real process."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    argv = [*CLI, "serve", "--port", str(port), "--poll", str(POLL_SECONDS), *options]
    log = champion.root / "serve.log"
    with served(argv, log, champion.environment | environment, f"{address}/readyz"):
        yield Service(champion, address)


def until(true: Callable[[], object], what: str) -> None:
    """Wait for something; fail with `what` where it does not come."""
    deadline = time.monotonic() + PROCESS_SECONDS
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
