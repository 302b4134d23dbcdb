"""A classifier that predicts by pitch, and music that it gets right: what tests score without training."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sounds import tone, write

from genreflow.core.documents import InputSpec, ModelDocument
from genreflow.inference.classifier import Classifier

RATE = 16_000
PITCHES = {"bass": 110.0, "middle": 440.0, "treble": 1760.0}
GENRES = tuple(PITCHES)
SPEC = InputSpec(
    sample_rate=RATE,
    window_seconds=1.0,
    hop_seconds=1.0,
    extend="repeat",
    representation="waveform",
    parameters={"normalise": False},
)


def by_pitch(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of windows (n, samples), by how often they cross zero."""
    crossings = np.abs(np.diff(np.signbit(inputs).astype(int), axis=-1)).sum(-1) / 2
    pitches = np.maximum(crossings, 1) * RATE / inputs.shape[-1]
    return (-((np.log(pitches[:, None] / np.array(list(PITCHES.values())))) ** 2)).astype(np.float32)


def classifier(
    train_clips: dict[str, str] | None = None,
    validation_clips: dict[str, str] | None = None,
    corpus_fingerprint: str = "c" * 64,
) -> Classifier:
    """The classifier, trained on clips by sha256 and exact cluster."""
    document = ModelDocument(
        family="by_pitch",
        settings={},
        genres=GENRES,
        input_spec=SPEC,
        temperature=1.0,
        training={},
        pretrained=None,
        synthetic=True,
        train_clips=train_clips or {},
        validation_clips=validation_clips or {},
        corpus_fingerprint=corpus_fingerprint,
        features_fingerprint="f" * 64,
        protocol="grouped",
        fold=None,
        leaky=False,
        leak_reason=None,
        code_version="test",
        run_id=None,
    )
    return Classifier(document, by_pitch, "openvino", "f32")


def write_music(folder: Path, clips: int = 3, seconds: float = 4.0, genres: tuple[str, ...] = GENRES) -> Path:
    """Genre folders of so many clips each, no two of them the same recording."""
    for genre in genres:
        for number in range(clips):
            write(folder / genre / f"{number}.wav", melody(genre, number, seconds), RATE)
    return folder


def melody(genre: str, number: int, seconds: float = 4.0) -> NDArray[np.float32]:
    """Notes around the genre's pitch, others for every genre and number."""
    rng = np.random.default_rng([number, GENRES.index(genre)])
    notes = [
        tone(0.25, RATE, PITCHES[genre] * float(rng.uniform(0.9, 1.1)), level=float(rng.uniform(0.2, 0.5)))
        for _ in range(round(seconds / 0.25))
    ]
    return np.concatenate(notes).astype(np.float32)
