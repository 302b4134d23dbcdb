"""The temperature of `linear`: from clips of held-out artists, also where every clip is trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from genreflow.core.documents import ModelDocument
from genreflow.corpus.splitting import Split
from genreflow.families import family
from genreflow.families.linear import LinearSettings
from genreflow.features.descriptors import NAMES
from genreflow.fitting.fine_tuning import fine_tune
from genreflow.inference.answers import softmax
from tests.corpora import split_of
from tests.training.test_training import write_features

GENRES = ("blues", "disco", "metal")
LINEAR = family("linear")


def music(artists: int, clips: int, seed: int) -> tuple[NDArray[np.float32], list[dict[str, Any]]]:
    """Features in which artists differ more than genres do, and their index."""
    genres = np.random.default_rng(0).normal(0, 0.25, (len(GENRES), len(NAMES)))
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    features = []
    for label, genre in enumerate(GENRES):
        for artist in range(artists):
            own = genres[label] + rng.normal(0, 1, len(NAMES))
            for clip in range(clips):
                features.append(own + rng.normal(0, 0.3, len(NAMES)))
                name = f"{genre}.{artist}.{clip}"
                rows.append(
                    {
                        "row": len(rows),
                        "clip_id": name,
                        "sha256": f"sha-{name}",
                        "duplicate_cluster": name,
                        "near_duplicate_cluster": f"{genre}.{artist}",
                        "genre": genre,
                        "label": label,
                        "split": "train",
                        "start_seconds": 0.0,
                        "view": 0,
                    }
                )
    return np.asarray(features, dtype=np.float32), rows


def fitted(folder: Path, artists: int, **training: Any) -> ModelDocument:
    features, rows = music(artists, clips=4, seed=1)
    model = {"backbone": "descriptors"}
    write_features(folder / "features", "linear", model, rows, features, GENRES, f"{artists} artists")
    return fine_tune(
        folder / "features", split_of(folder / "features"), folder / "model", LINEAR, model, training
    )


def mean_confidence(folder: Path, temperature: float) -> tuple[float, float]:
    """Accuracy and mean confidence on other artists."""
    features, rows = music(40, clips=1, seed=2)
    predict = LINEAR.load(folder / "model", LinearSettings(backbone="descriptors"), GENRES)
    probabilities = softmax(predict(features) / temperature)
    labels = np.array([row["label"] for row in rows])
    return float((probabilities.argmax(axis=1) == labels).mean()), float(probabilities.max(axis=1).mean())


def test_trained_on_every_clip_confidence_is_near_accuracy_on_other_artists(tmp_path: Path) -> None:
    document = fitted(tmp_path, artists=12, C=10.0)
    assert document.validation_clips == {}
    assert document.calibration is not None
    assert document.calibration.startswith("5-fold cross-validation of 144 training clips")
    accuracy, confidence = mean_confidence(tmp_path, document.temperature)
    _, uncalibrated = mean_confidence(tmp_path, 1.0)
    assert abs(confidence - accuracy) < 0.1
    assert uncalibrated - accuracy > 0.15


def test_clips_of_one_artist_never_lie_on_both_sides(tmp_path: Path) -> None:
    apart = fitted(tmp_path, artists=12)
    figures = apart.training["cross_validation"]
    accuracy, _ = mean_confidence(tmp_path, 1.0)
    # by clip it would be near 1: artists are recognised
    assert figures["accuracy"] == pytest.approx(accuracy, abs=0.15)
    assert accuracy < 0.85


def test_genres_of_one_artist_alone_are_calibrated_clip_by_clip(tmp_path: Path) -> None:
    document = fitted(tmp_path, artists=1)
    assert document.calibration is not None
    assert document.calibration.endswith("by clip: no genre has 3 artists")
    assert document.training["cross_validation"]["clips"] == 12


def test_without_calibration_the_document_says_so(tmp_path: Path) -> None:
    document = fitted(tmp_path, artists=3, calibrate=False)
    assert (document.temperature, document.calibration) == (1.0, None)


def test_the_group_of_a_clip_is_its_artist_and_its_recordings(tmp_path: Path) -> None:
    fitted(tmp_path, artists=3)
    groups = Split.open(split_of(tmp_path / "features")).groups()
    assert groups.nunique() == 9
