"""A family fitted on a corpus and packaged, without pipeline and registry."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpora import ingest_and_split, split_of
from sounds import tone, write
from torch import nn

from genreflow import packaging
from genreflow.core.documents import PackagedDocument
from genreflow.core.openvino import convert_module, save_model
from genreflow.corpus.settings import CorpusSettings
from genreflow.corpus.splitting import open_corpus
from genreflow.evaluation.predictions import predict
from genreflow.extraction import extract
from genreflow.families import family
from genreflow.fitting import fine_tuning
from genreflow.inference.backends.openvino import compile_openvino
from genreflow.inference.loading import load_classifier
from genreflow.training.export import logits_only

SYNTHETIC_GENRES = ("classical", "hiphop", "metal")
SHORT_GENRES = ("blues", "jazz", "rock")
LONE_GENRE = "jazz"


def synthetic_corpus(folder: Path) -> Path:
    """Sixteen generated clips of 4 s in each of three genres, split by groups."""
    settings = CorpusSettings(protocol="grouped", genres=SYNTHETIC_GENRES)
    return ingest_and_split("synthetic?clips=16&seconds=4", settings, folder / "corpus")


def short_corpus(folder: Path) -> Path:
    """Clips of 1.3 s, shorter than the windows of `vit` and `vgg`; of one genre a single clip trains."""
    for number, genre in enumerate(SHORT_GENRES):
        for clip in range(2 if genre == LONE_GENRE else 8):
            samples = tone(1.3, 22_050, 200 + 600 * number + 10 * clip)
            write(folder / "music" / genre / f"{clip}.wav", samples)
    settings = CorpusSettings(protocol="grouped", genres=SHORT_GENRES)
    return ingest_and_split(folder / "music", settings, folder / "corpus")


def package_fitted(
    name: str, corpus: Path, out: Path, model: dict[str, Any], training: dict[str, Any]
) -> Path:
    """Extract, fit and package a family on a corpus; the packaged model's folder."""
    kind = family(name)
    split = split_of(corpus)
    extract(corpus, kind.representation(kind.settings(model)), out / "features", device="cpu")
    training = {"device": "cpu", "precision": "fp32", "threads": 1, "seed": 1} | training
    fine_tuning.fine_tune(out / "features", split, out / "model", kind, model, training)
    packaging.package(out / "model", corpus, split, out / "packaged")
    return out / "packaged"


def right_share(packaged: Path, corpus: Path) -> float:
    """Share of the validation and test clips that a packaged model, as it is served, predicts correctly."""
    clips = open_corpus(corpus, split_of(corpus))
    rows = [*clips.rows("validation"), *clips.rows("test")]
    table = predict(load_classifier(packaged), clips, rows)
    table = table[table["level"] == "clip"]
    return float((table["predicted"] == table["genre"]).mean())


def check_openvino_predicts_as(module: nn.Module, inputs: torch.Tensor, path: Path) -> None:
    """OpenVINO's logits are the module's, in batches of any size.

    Args:
        inputs: five rows.
        path: where the IR is written.
    """
    save_model(convert_module(logits_only(module), inputs.numpy()), path)
    predict_logits = compile_openvino(path, "f32")
    with torch.inference_mode():
        expected = module(inputs).logits.numpy()
    found = np.concatenate([predict_logits(inputs[rows].numpy()) for rows in (slice(1), slice(1, 5))])
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(1, np.ptp(expected)))


def check_learned_and_served_by_openvino(packaged: Path, corpus: Path) -> None:
    """A family fitted on `synthetic_corpus` learned it, and OpenVINO, which holds parity, serves it."""
    document = PackagedDocument.read(packaged)
    f32 = next(one for one in document.runtimes if (one.name, one.precision) == ("openvino", "f32"))
    assert f32.usable, f32.reason
    assert document.served.runtime == "openvino"
    # guessing among three genres reaches this in one of a thousand tries
    assert right_share(packaged, corpus) >= 0.73


def check_classifies_a_short_clip(packaged: Path, corpus: Path) -> None:
    """A family fitted on `short_corpus` predicts a clip that is shorter than its window."""
    found = load_classifier(packaged).classify(next(corpus.parent.glob(f"music/{LONE_GENRE}/*.wav")))
    assert (found.windows, found.seconds) == (1, pytest.approx(1.3))
    assert set(found.probabilities) == set(SHORT_GENRES)
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-5)
