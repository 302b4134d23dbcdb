"""The clips a model is most wrong about, made playable, with its predictions over the clip."""

import io
import logging
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray

from genreflow.audio import resample
from genreflow.corpus.store import Corpus
from genreflow.evaluation.metrics import losses
from genreflow.evaluation.predictions import probability_columns
from genreflow.inference.classifier import Classifier

WORST = 10
EXCERPT_SECONDS = 30.0
"""What can be played of a clip; around its worst window where the clip is longer."""
CURVE_POINTS = 16
"""Windows that a clip's curve is drawn from, where the model's own hop gives fewer."""
CURVE_BUDGET_SECONDS = 8.0
"""The finer hop is skipped after so many seconds: curves of a slow model keep its own hop."""
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
MP3_COMPRESSION = 0.75
"""0 (best) to 1 (smallest): about 110 kB for 30 s at 22,050 Hz."""
ENCODE_BLOCK = 1 << 16

log = logging.getLogger("genreflow")


@dataclass(frozen=True)
class WorstClip:
    """One clip with everything that the report shows of it."""

    clip_id: str
    genre: str
    predicted: str
    vote: str
    loss: float
    """Negative log-likelihood of the true genre, in nats."""
    probabilities: dict[str, float]
    seconds: float
    window_seconds: float
    starts: NDArray[np.float64]
    """(windows,) seconds."""
    curve: NDArray[np.float64]
    """(windows, genres) probabilities, in label order."""
    genres: tuple[str, ...]
    excerpt_start: float
    """Seconds into the clip where the playable part begins."""
    excerpt_seconds: float
    audio: bytes
    """The playable part as MP3, mono."""

    @property
    def right(self) -> bool:
        return self.genre == self.predicted


def collect_worst_clips(classifier: Classifier, corpus: Corpus, predictions: pd.DataFrame) -> list[WorstClip]:
    """The `WORST` clips by loss on the true genre, wrong ones first, predicted again with a finer hop."""
    genres = classifier.document.genres
    columns = probability_columns(genres)
    clips = predictions[predictions["level"] == "clip"].reset_index(drop=True)
    truth = clips["genre"].map({genre: index for index, genre in enumerate(genres)}).to_numpy(np.int64)
    loss = losses(truth, clips[columns].to_numpy(float))
    right = (clips["genre"] == clips["predicted"]).to_numpy(bool)
    order = np.lexsort((-loss, right))[:WORST]
    windows = predictions[predictions["level"] == "window"].groupby("clip_id", sort=False)
    row_of = {clip_id: row for row, clip_id in enumerate(corpus.manifest["clip_id"])}
    window_seconds = classifier.document.input_spec.window_seconds
    found = []
    deadline = time.monotonic() + CURVE_BUDGET_SECONDS
    for index in order.tolist():
        clip = clips.iloc[index]
        row = row_of[clip["clip_id"]]
        samples, rate = corpus.samples(row), corpus.sample_rate(row)
        own = windows.get_group(clip["clip_id"])
        starts, curve = own["start_seconds"].to_numpy(float), own[columns].to_numpy(float)
        seconds = len(samples) / rate
        spare = seconds - window_seconds
        if spare > 0 and len(starts) < CURVE_POINTS and time.monotonic() < deadline:
            logits, starts = classifier.window_logits(samples, rate, hop_seconds=spare / (CURVE_POINTS - 1))
            curve = classifier.probabilities(logits).astype(float)
        worst_window = float(starts[curve[:, truth[index]].argmin()])
        begin = np.clip(
            worst_window + (window_seconds - EXCERPT_SECONDS) / 2, 0, max(0.0, seconds - EXCERPT_SECONDS)
        )
        excerpt = samples[round(begin * rate) :][: round(EXCERPT_SECONDS * rate)]
        found.append(
            WorstClip(
                clip_id=clip["clip_id"],
                genre=clip["genre"],
                predicted=clip["predicted"],
                vote=clip["vote"],
                loss=float(loss[index]),
                probabilities={
                    genre: float(clip[column]) for genre, column in zip(genres, columns, strict=True)
                },
                seconds=seconds,
                window_seconds=window_seconds,
                starts=starts,
                curve=curve,
                genres=genres,
                excerpt_start=float(begin),
                excerpt_seconds=len(excerpt) / rate,
                audio=mp3(excerpt, rate),
            )
        )
    return found


def mp3(samples: NDArray[np.float32], rate: int) -> bytes:
    """(n,) mono samples as MP3, which every browser plays; resampled to the next rate that MP3 knows."""
    target = next((known for known in MP3_RATES if known >= rate), MP3_RATES[-1])
    samples = np.clip(resample(samples, rate, target), -1, 1)
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer,
        "w",
        target,
        1,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=MP3_COMPRESSION,
    ) as file:
        for start in range(0, len(samples), ENCODE_BLOCK):
            file.write(samples[start : start + ENCODE_BLOCK])
    return buffer.getvalue()
