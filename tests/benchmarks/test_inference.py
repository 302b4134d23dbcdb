"""Measurement: thirty seconds of audio through DistilHuBERT in PyTorch and in OpenVINO, f32 and bf16."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import HubertConfig

from genreflow.core.documents import ModelDocument
from genreflow.core.genres import GENRES
from genreflow.families import family
from genreflow.inference.backends.openvino import compile_openvino, openvino_precisions
from genreflow.inference.classifier import Classifier
from genreflow.inference.loading import load_trained
from genreflow.inference.package_files import OPENVINO_MODEL
from genreflow.inference.processor import processor
from genreflow.packaging.export import export_openvino
from tests.checkpoints import tiny_checkpoint

DISTILHUBERT = {
    key: getattr(HubertConfig(), key)
    for key in (
        "conv_dim",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "num_conv_pos_embeddings",
        "num_conv_pos_embedding_groups",
        "classifier_proj_size",
    )
}
"""HuBERT base's dimensions with two transformer layers: 23.7 million parameters, random weights."""
SECONDS = 30.0
REPEATS = 5


def untrained_distilhubert(folder: Path) -> ModelDocument:
    """A model of DistilHuBERT's size with windows of 10 s in `folder`."""
    checkpoint = tiny_checkpoint("hubert", folder.with_name("distilhubert"), **DISTILHUBERT)
    kind = family("encoder")
    chosen = kind.settings_type.model_validate({"backbone": str(checkpoint), "window_seconds": 10.0})
    module = kind.build(chosen, GENRES, "inputs", seed=0)
    kind.save(module.eval(), folder)
    document = ModelDocument(
        family="encoder",
        settings=chosen.model_dump(mode="json"),
        genres=GENRES,
        input_spec=kind.input_spec(chosen),
        temperature=1.0,
        training={},
        pretrained=None,
        synthetic=True,
        train_clips={},
        validation_clips={},
        corpus_fingerprint="c0" * 32,
        features_fingerprint="fe" * 32,
        protocol="grouped",
        fold=None,
        leaky=False,
        leak_reason=None,
        code_version="",
        run_id=None,
    )
    document.write(folder)
    return document


def best_of(answer: Callable[[], object]) -> float:
    """Seconds of the quickest of `REPEATS` runs after one to warm up: other load only ever adds time."""
    answer()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        answer()
        times.append(time.perf_counter() - began)
    return min(times)


@pytest.mark.bench
def test_openvino_answers_thirty_seconds_of_audio_faster_than_pytorch(tmp_path: Path) -> None:
    document = untrained_distilhubert(tmp_path / "model")
    rate = document.input_spec.sample_rate
    song = np.random.default_rng(0).uniform(-1, 1, round(SECONDS * rate)).astype(np.float32)
    inputs = song.reshape(3, -1) * np.array([[0.2], [0.5], [1.0]], dtype=np.float32)
    path = tmp_path / OPENVINO_MODEL
    export_openvino(tmp_path / "model", document, inputs, path)

    classifiers = {
        "PyTorch f32": load_trained(tmp_path / "model", document, "f32", "cpu"),
        "PyTorch bf16": load_trained(tmp_path / "model", document, "bf16", "cpu"),
        "OpenVINO f32": Classifier(document, compile_openvino(path, "f32"), "openvino", "f32"),
    }
    if "bf16" in openvino_precisions():
        compiled = compile_openvino(path, "bf16")
        classifiers["OpenVINO bf16"] = Classifier(document, compiled, "openvino", "bf16")

    expected = classifiers["PyTorch f32"].logits(inputs)
    seconds = {}
    print(f"\n30 s of audio as 3 windows of 10 s, DistilHuBERT's dimensions, {processor()}")
    for name, classifier in classifiers.items():
        seconds[name] = best_of(lambda classifier=classifier: classifier.classify_samples(song, rate))  # type: ignore[misc]
        difference = np.abs(classifier.logits(inputs) - expected).max()
        ratio = seconds["PyTorch f32"] / seconds[name]
        print(f"{name:14} {seconds[name]:6.2f} s  {ratio:4.1f}× PyTorch f32  logits within {difference:.1g}")

    assert seconds["PyTorch f32"] / seconds["OpenVINO f32"] > 1.5
    if "OpenVINO bf16" in seconds:
        assert seconds["PyTorch f32"] / seconds["OpenVINO bf16"] > 2.5
