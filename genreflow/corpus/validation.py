"""Whether decoded audio is fit to train on: what is not goes to quarantine with a reason and a sentence."""

import math

import numpy as np

from genreflow.audio import BLOCK_SAMPLES, Audio
from genreflow.corpus.settings import CorpusSettings
from genreflow.errors import AudioError

QUIETEST_DBFS = -200.0
"""What a level of zero is written as."""


def dbfs(level: float) -> float:
    """A linear level in dB of full scale, at least `QUIETEST_DBFS`."""
    return max(QUIETEST_DBFS, 20 * math.log10(level)) if level > 0 else QUIETEST_DBFS


def levels(audio: Audio) -> tuple[float, float]:
    """Root mean square, a constant offset aside, and absolute peak, in dB of full scale."""
    samples = audio.samples
    if len(samples) == 0:
        return QUIETEST_DBFS, QUIETEST_DBFS
    mean = samples.mean(dtype=np.float64)
    # by blocks: an hour of audio in double precision, twice, would be gigabytes
    power = sum(
        float(np.square(samples[start : start + BLOCK_SAMPLES] - mean).sum())
        for start in range(0, len(samples), BLOCK_SAMPLES)
    )
    peak = max(float(samples.max()), -float(samples.min()))
    return dbfs(math.sqrt(power / len(samples))), dbfs(peak)


def check(audio: Audio, settings: CorpusSettings | None = None, name: str = "the clip") -> None:
    """Refuse what cannot be trained on.

    Raises:
        AudioError: too short, too long, not finite or silent; `reason` is one of docs/data.md.
    """
    settings = settings or CorpusSettings()
    if audio.seconds < settings.min_seconds:
        raise AudioError(
            f"{name} is too short: {audio.seconds:.2f} s; at least {settings.min_seconds:g} s are wanted.",
            "too-short",
        )
    if audio.seconds > settings.max_seconds:
        raise AudioError(
            f"{name} is too long: {audio.seconds:.0f} s; at most {settings.max_seconds:g} s are wanted.",
            "too-long",
        )
    if not np.isfinite(audio.samples).all():
        raise AudioError(f"{name} holds samples that are not finite numbers (NaN or infinity).", "not-finite")
    rms, _ = levels(audio)
    if rms < settings.silence_dbfs:
        raise AudioError(
            f"{name} is silent: its level is {rms:.0f} dBFS, under {settings.silence_dbfs:g} dBFS.", "silent"
        )
