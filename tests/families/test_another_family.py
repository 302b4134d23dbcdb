"""A family in one file of another distribution: through the whole pipeline to an HTTP answer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from servers import free_port, served
from services import CLI
from sounds import tone, write

GENRES = ["blues", "jazz", "rock"]
LIMIT_SECONDS = 900
FAMILY = '''
"""Nearest mean spectrum: a family without torch in one file."""

from typing import ClassVar

import numpy as np
from openvino import Model, opset13
from pydantic import Field
from safetensors.numpy import load_file, save_file

from genreflow.core.documents import Frozen, InputSpec, Representation
from genreflow.core.openvino import save_model
from genreflow.fitting import Family, FamilySettings, FitResult


class Settings(FamilySettings):
    """Nearest mean spectrum."""

    hop_seconds: float = Field(default=1.5, gt=0)
    """From one window of 2.992 s to the next."""


class Training(Frozen):
    """How the means are taken."""

    sharpness: float = Field(default=1.0, gt=0)
    """Factor on squared distances."""


class Nearest(Family):
    name: ClassVar[str] = "nearest"
    title: ClassVar[str] = "the genre with the nearest mean spectrum"
    settings_type = Settings
    training_type = Training

    def representation(self, settings):
        spec = InputSpec(sample_rate=16000, window_seconds=2.992, hop_seconds=settings.hop_seconds,
            extend="repeat", representation="musicnn_log_mel")
        return Representation(kind="none", input_spec=spec)

    def training_defaults(self, settings):
        return {"sharpness": 0.5}

    def fit(self, context):
        rows = context.features.rows("train")
        spectra = context.features.array(rows).mean(axis=1)
        labels = context.features.index["label"].to_numpy()[rows]
        means = np.stack([spectra[labels == label].mean(axis=0) for label in range(len(context.genres))])
        weight = 2 * context.training.sharpness * means
        bias = -context.training.sharpness * (means**2).sum(axis=1)
        save_file({"weight": weight, "bias": bias}, context.out / "model.safetensors")
        return FitResult(temperature=1.0, calibration=None, training={"notes": []})

    def load(self, folder, settings, genres, precision="f32", device="cpu"):
        tensors = load_file(folder / "model.safetensors")
        return lambda inputs: inputs.mean(axis=1) @ tensors["weight"].T + tensors["bias"]

    def export_openvino(self, folder, document, inputs, path):
        tensors = load_file(folder / "model.safetensors")
        given = opset13.parameter([-1, *inputs.shape[1:]], np.float32)
        spectrum = opset13.reduce_mean(given, opset13.constant(np.array([1])), False)
        product = opset13.matmul(spectrum, opset13.constant(tensors["weight"]), False, True)
        logits = opset13.add(product, opset13.constant(tensors["bias"]))
        save_model(Model([logits], [given], "nearest"), path)


FAMILY = Nearest()
'''


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables under which a distribution with the family is installed, and state lies apart."""
    plugins = tmp_path / "plugins"
    information = plugins / "nearest_spectrum-1.0.dist-info"
    information.mkdir(parents=True)
    (plugins / "nearest_spectrum.py").write_text(FAMILY)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: nearest-spectrum\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[genreflow.families]\nnearest = nearest_spectrum:FAMILY\n")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(plugins), os.environ.get("PYTHONPATH")])),
        "GENREFLOW_HOME": str(tmp_path / "home"),
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "GENREFLOW_IMAGE": "genreflow:latest",
    }


def genreflow(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [*CLI, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(2 * LIMIT_SECONDS)
def test_a_family_in_one_file_is_trained_packaged_and_answers_over_http(
    environment: dict[str, str], tmp_path: Path
) -> None:
    for number, genre in enumerate(GENRES):
        for clip in range(6):
            write(
                tmp_path / "music" / genre / f"{clip}.wav", tone(seconds=4.0, pitch=220.0 * 3**number + clip)
            )
    source = ["--source", str(tmp_path / "music"), "--set", f"corpus.genres={json.dumps(GENRES)}"]
    summary = tmp_path / "summary.json"
    genreflow(
        environment, "run", *source, "--family", "nearest", "--set", "training.sharpness=2",
        "--summary", str(summary),
    )  # fmt: skip
    assert json.loads(summary.read_text())["metrics"]["accuracy"] == 1.0
    genreflow(environment, "promote", "1")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    serve = [*CLI, "serve", "--port", str(port), "--no-page"]
    with served(serve, tmp_path / "serve.log", environment, f"{address}/readyz"):
        song = (tmp_path / "music" / "jazz" / "0.wav").read_bytes()
        answer = requests.post(f"{address}/classify", files={"file": ("song.wav", song)}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["genre"] == "jazz"


def test_a_family_that_cannot_be_loaded_gives_an_error_message(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "plugins" / "nearest_spectrum.py").write_text("import a_module_that_is_not_here")
    code = "import pipelines.cli as cli, sys; sys.argv = ['genreflow', *sys.argv[1:]]; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "--source", str(tmp_path), "--family", "nearest"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "The family nearest of nearest_spectrum:FAMILY cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr
