"""Every family through every way to predict: each gives the probabilities of the library's classifier.

One small fit a family on one corpus; registry, service and processes are shared.
"""

import base64
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from candidates import write_evaluation
from checkpoints import tiny_checkpoint
from corpora import ingest_and_split, split_of
from pitch_model import GENRES, RATE, melody, write_music
from servers import free_port, served
from services import CLI, POLL_SECONDS, Champion, Service, until
from sounds import write
from typer.testing import CliRunner

import genreflow
from genreflow import packaging, registry
from genreflow.core import home
from genreflow.core.documents import CorpusDocument, SplitDocument
from genreflow.corpus.settings import CorpusSettings
from genreflow.extraction import extract
from genreflow.families import built_in, family
from genreflow.fitting.fine_tuning import fine_tune
from genreflow.inference.answers import Classification
from genreflow.publishing.layout import lay_out
from pipelines import cli

TOLERANCE = 1e-4
"""Of a probability: the runtimes round alike, batches of other sizes do not quite."""
SONG_SECONDS = 7.0
ONCE = {"epochs": 1, "batch_size": 8, "threads": 1}
SMALLEST: dict[str, tuple[Callable[[Path], dict[str, Any]], dict[str, Any]]] = {
    "encoder": (
        lambda folder: {"backbone": str(tiny_checkpoint("hubert", folder)), "window_seconds": 2.0},
        ONCE,
    ),
    "linear": (lambda _: {"backbone": "descriptors", "window_seconds": 2.0}, {}),
    "mfcc_cnn": (lambda _: {}, ONCE),
    "shallow": (lambda _: {"classifier": "logistic_regression"}, {"search": "none"}),
    "vgg": (
        lambda _: {"window_seconds": 3.0, "channels": [4, 4], "convolutions": [1, 1], "dense": [8]},
        ONCE,
    ),
    "vit": (
        lambda _: {
            "window_seconds": 3.0,
            "patch": 24,
            "width": 16,
            "blocks": 1,
            "heads": 2,
            "feed_forward": 16,
        },
        ONCE,
    ),
}
"""Settings of model and training of each family, as small as it goes: add a line for a new family."""


@dataclass
class Everywhere:
    """A registry with a version of each family, made when asked for, and one service for all."""

    root: Path
    song: Path
    versions: dict[str, str] = field(default_factory=dict)
    open: ExitStack = field(default_factory=ExitStack)
    _service: Service | None = None

    def version(self, name: str) -> str:
        """The version of a family, fitted, packaged and registered once."""
        if name not in self.versions:
            assert name in SMALLEST, (
                f"The family {name} has no line in SMALLEST of {Path(__file__).name}: add its smallest "
                "settings, so that every way to predict is tried with it."
            )
            settings, training = SMALLEST[name]
            folder, corpus, kind = self.root / name, self.root / "corpus", family(name)
            model = settings(self.root / f"{name}-backbone")
            extract(corpus, kind.representation(kind.settings(model)), folder / "features", device="cpu")
            fine_tune(
                folder / "features", split_of(corpus), folder / "model", kind, model, training, corpus=corpus
            )
            packaging.package(folder / "model", corpus, split_of(corpus), folder / "packaged")
            known = {
                "corpus_fingerprint": CorpusDocument.read(corpus).fingerprint,
                "split_fingerprint": SplitDocument.read(split_of(corpus)).fingerprint,
            }
            write_evaluation(folder / "evaluation", folder / "packaged", 0.5, known)
            self.versions[name] = registry.register(
                folder / "packaged", folder / "evaluation", corpus, split_of(corpus), None
            ).version
        return self.versions[name]

    def service(self, version: str) -> Service:
        """`genreflow serve`, once it predicts with this version."""
        registry.set_champion(version, "its turn")
        if self._service is None:
            port = free_port()
            address = f"http://127.0.0.1:{port}"
            argv = [*CLI, "serve", "--port", str(port), "--poll", str(POLL_SECONDS), "--no-page"]
            log = self.root / "serve.log"
            self.open.enter_context(served(argv, log, {}, f"{address}/readyz"))
            none = Classification("", 0.0, {}, "", 0.0, 0, None)
            self._service = Service(Champion(self.root, self.song, none, ""), address)
        service = self._service
        until(
            lambda: str(service.model()["lineage"]["version"]) == version,
            f"version {version} is not served",
        )
        return service


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everywhere]:
    root = tmp_path_factory.mktemp("everywhere")
    song = write(root / "song.wav", melody("middle", 20, SONG_SECONDS), RATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENREFLOW_HOME", str(root / "home"))
        patch.setenv("BENTOML_HOME", str(root / "bentoml"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        music = write_music(root / "music", clips=5)
        ingest_and_split(music, CorpusSettings(protocol="grouped", genres=GENRES), root / "corpus")
        made = Everywhere(root, song)
        with made.open:
            yield made


@pytest.fixture
def here(everywhere: Everywhere, monkeypatch: pytest.MonkeyPatch) -> Everywhere:
    """The same, where this test's process looks for its registry."""
    monkeypatch.setenv("GENREFLOW_HOME", str(everywhere.root / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(everywhere.root / "bentoml"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", home.tracking_uri())  # what MLflow's own loader reads
    return everywhere


def from_the_shell(*arguments: str) -> Any:
    """What a command of the command line writes as JSON."""
    done = CliRunner().invoke(cli.app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def mean_of_windows(song: dict[str, Any]) -> dict[str, float]:
    """A clip's probabilities from a timeline at the model's own hop."""
    means = np.mean(song["probabilities"], axis=0)
    return dict(zip(song["genres"], means.tolist(), strict=True))


@pytest.mark.parametrize("name", built_in())
def test_every_way_to_predict_gives_the_same_probabilities(
    name: str, here: Everywhere, tmp_path: Path
) -> None:
    version = here.version(name)
    expected = genreflow.load(version).classify(here.song).probabilities
    assert list(expected) == list(GENRES)
    content = here.song.read_bytes()

    (classified,) = from_the_shell("classify", str(here.song), "--model", version)
    lay_out(registry.version(version), registry.fetch(version), "hf://owner/name", tmp_path / "published")
    model = mlflow.pyfunc.load_model(f"models:/{registry.MODEL_NAME}/{version}")
    (row,) = model.predict(pd.DataFrame({"audio": [content]})).to_dict("records")
    service = here.service(version)
    answer = service.post("classify", content, here.song.name)
    curve = service.post("timeline", content, here.song.name)
    assert (answer.status_code, curve.status_code) == (200, 200), answer.text + curve.text
    found = {
        "classify": classified["probabilities"],
        "timeline": mean_of_windows(from_the_shell("timeline", str(here.song), "--model", version)),
        "published": genreflow.load(str(tmp_path / "published")).classify(here.song).probabilities,
        "MLflow pyfunc": {genre: row[f"p_{genre}"] for genre in GENRES},
        "service": answer.json()["probabilities"],
        "service's timeline": mean_of_windows(curve.json()),
    }
    assert found == {way: pytest.approx(expected, abs=TOLERANCE) for way in found}


def test_mlflow_models_serve_gives_the_same_probabilities(here: Everywhere, tmp_path: Path) -> None:
    version = here.version("linear")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--workers", "1"]
    argv += ["-m", f"models:/{registry.MODEL_NAME}/{version}", "--host", "127.0.0.1", "--port", str(port)]
    # MLflow looks for uvicorn on the PATH, which holds it only in an activated environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"MLFLOW_TRACKING_URI": home.tracking_uri(), "PATH": path}
    audio = base64.b64encode(here.song.read_bytes()).decode()
    with served(argv, tmp_path / "serve.log", environment, f"{address}/ping"):
        rows = {"dataframe_split": {"columns": ["audio"], "data": [[audio]]}}
        answer = requests.post(f"{address}/invocations", json=rows, timeout=60)
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["predictions"]
    expected = genreflow.load(version).classify(here.song).probabilities
    assert {genre: row[f"p_{genre}"] for genre in GENRES} == pytest.approx(expected, abs=TOLERANCE)


def test_a_family_without_a_line_of_smallest_settings_fails_with_an_error_message(
    everywhere: Everywhere,
) -> None:
    with pytest.raises(AssertionError, match="The family newest has no line in SMALLEST"):
        everywhere.version("newest")
