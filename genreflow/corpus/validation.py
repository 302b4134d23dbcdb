"""Whether decoded audio is fit to train on: what is not goes to quarantine with a reason and a sentence."""

import math

import numpy as np

from genreflow.audio import BLOCK_SAMPLES, Audio
from genreflow.core.errors import AudioError
from genreflow.corpus.settings import IngestSettings

QUIETEST_DBFS = -200.0
"""What a level of zero is written as."""


def dbfs(level: float) -> float:
    """A linear level in dB of full scale, at least `QUIETEST_DBFS`."""
    return max(QUIETEST_DBFS, 20 * math.log10(level)) if level > 0 else QUIETEST_DBFS


def levels(audio: Audio) -> tuple[float, float]:
    """Root mean square, a constant offset aside, and absolute peak, in dB of full scale."""
    samples = audio.samples
    mean = samples.mean(dtype=np.float64)
    # by blocks: an hour of audio in double precision, twice, would be gigabytes
    power = sum(
        float(np.square(samples[start : start + BLOCK_SAMPLES] - mean).sum())
        for start in range(0, len(samples), BLOCK_SAMPLES)
    )
    peak = max(float(samples.max()), -float(samples.min()))
    return dbfs(math.sqrt(power / len(samples))), dbfs(peak)


def check(audio: Audio, settings: IngestSettings, name: str) -> tuple[float, float]:
    """Refuse what `decode` lets through but cannot be trained on.

    Returns:
        `levels` of the audio.

    Raises:
        AudioError: too short or silent; `reason` is one of docs/data.md.
    """
    if audio.seconds < settings.min_seconds:
        raise AudioError(
            f"{name} is too short: {audio.seconds:.2f} s; at least {settings.min_seconds:g} s are needed.",
            "too-short",
        )
    rms, peak = levels(audio)
    if rms < settings.silence_dbfs:
        raise AudioError(
            f"{name} is silent: its level is {rms:.0f} dBFS, under {settings.silence_dbfs:g} dBFS.", "silent"
        )
    return rms, peak
