"""Resampling, and windows of one length over a waveform."""

from typing import Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from genreflow.core.errors import AudioError

RESAMPLING_QUALITY = "HQ"
"""soxr's."""
SKIPPED_REST_SHARE = 0.05
"""Of a window: a rest after the last whole window that is shorter gets no window of its own."""


def resample(samples: NDArray[np.float32], from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """Resample (n,) to (round(n * to_rate / from_rate),), soxr's HQ; the same array where rates are equal."""
    if from_rate == to_rate:
        return samples
    wanted = round(len(samples) * to_rate / from_rate)
    resampled: NDArray[np.float32] = soxr.resample(samples, from_rate, to_rate, quality=RESAMPLING_QUALITY)[
        :wanted
    ]
    if len(resampled) < wanted:
        resampled = np.pad(resampled, (0, wanted - len(resampled)))
    return resampled


def plan_windows(samples: int, window: int, hop: int) -> NDArray[np.int64]:
    """Starts of windows over `samples` samples, every `hop`, the last aligned to the end.

    [0] where there are fewer samples than one window. A rest of less than `SKIPPED_REST_SHARE` of a window is
    skipped: GTZAN's "30 s" are 30.01 s or more, and would cost an encoder of 30 s windows every clip twice.
    """
    if window < 1 or hop < 1:
        raise ValueError(
            f"A window of {window} samples every {hop} samples is no plan: both must be positive."
        )
    last = max(0, samples - window)
    starts = np.arange(0, last + 1, hop, dtype=np.int64)
    return np.append(starts, last) if last - starts[-1] > SKIPPED_REST_SHARE * window else starts


def cut_windows(
    samples: NDArray[np.float32], window: int, hop: int, extend: Literal["repeat", "silence"]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Windows of shape (windows, window) and their starts in samples.

    Raises:
        AudioError: there is not one sample.
    """
    if len(samples) == 0:
        raise AudioError("There is no sample to cut a window from.", "empty")
    starts = plan_windows(len(samples), window, hop)
    if len(samples) < window:
        if extend == "repeat":
            samples = np.resize(samples, window)
        else:
            samples = np.pad(samples, (0, window - len(samples)))
    windows = np.lib.stride_tricks.sliding_window_view(samples, window)[starts]
    return windows.astype(np.float32, copy=False), starts
