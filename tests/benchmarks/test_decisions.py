"""What is served decides as the trained model does, in every precision: Whisper-tiny on gtzan-mini."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from services import CLI

from genreflow.core.documents import PackagedDocument
from genreflow.features import window_inputs
from genreflow.inference.loading import load_classifier

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

AGREEMENT = 0.995
STARTS = (0, 12, 24)
"""Seconds at which windows of 30 s begin in each clip played twice."""


def test_every_precision_that_is_served_decides_as_pytorch_in_fp32(shared: Path, tmp_path: Path) -> None:
    clips, backbone = shared / "gtzan-mini", shared / "weights" / "whisper-tiny.en-encoder"
    summary = tmp_path / "summary.json"
    argv = [*CLI, "run", "--source", str(clips), "--backbone", str(backbone), "--set", "packaging.int8=true"]
    environment = os.environ | {"GENREFLOW_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [*argv, "--summary", str(summary)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (path.parent for path in (tmp_path / "home" / "pipelines").rglob("packaged.json"))
    document = PackagedDocument.read(folder).model

    windows = []
    for song in sorted(clips.rglob("*.wav")):
        samples, rate = soundfile.read(song, dtype="float32")
        twice = np.tile(samples[: 30 * rate], 2)
        for start in STARTS:
            windows.append(
                window_inputs(document.input_spec, twice[start * rate : (start + 30) * rate], rate)[0][:1]
            )
    inputs = np.concatenate(windows)
    pytorch = load_classifier(folder, runtime="pytorch", precision="f32")
    expected = pytorch.probabilities(pytorch.logits(inputs))

    accuracy = json.loads(summary.read_text())["metrics"]["accuracy"]
    print(
        f"\n{len(inputs)} windows of {len(windows) // len(STARTS)} clips; the model's accuracy {accuracy:.0%}"
    )
    for report in PackagedDocument.read(folder).runtimes:
        if report.name != "openvino" or not report.usable:
            continue
        classifier = load_classifier(folder, "openvino", report.precision)  # type: ignore[arg-type]
        answers = classifier.probabilities(classifier.logits(inputs))
        agreement = (answers.argmax(axis=1) == expected.argmax(axis=1)).mean()
        print(
            f"OpenVINO {report.precision}: {report.latency_ms_p50:.0f} ms a window, decisions equal on "
            f"{agreement:.1%}, probabilities within {np.abs(answers - expected).max():.4f}"
        )
        assert agreement >= AGREEMENT
