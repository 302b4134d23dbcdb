"""Audio in: decode any file, resample, cut windows. Every audio constant is named and derived here."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

MIN_SAMPLE_RATE = 2_000
MAX_SAMPLE_RATE = 768_000


@dataclass(frozen=True)
class Audio:
    """Decoded audio: mono float32 `samples` of shape (n,), nominally in [-1, 1], at `sample_rate` Hz."""

    samples: NDArray[np.float32]
    sample_rate: int
    channels: int
    """Channels of the file; `samples` is their mean."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


def decode(source: Path | bytes | BinaryIO, name: str | None = None) -> Audio:
    """Decode wav, au, flac, mp3, ogg, opus (libsndfile), m4a, webm, mp4 (PyAV) to mono."""
    raise NotImplementedError


def resample(samples: NDArray[np.float32], from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """Resample (n,) to (round(n * to_rate / from_rate),), soxr's HQ quality; the same array where rates are equal."""
    raise NotImplementedError


def plan_windows(samples: int, window: int, hop: int) -> NDArray[np.int64]:
    """Starts of windows over `samples` samples: every `hop`, the last aligned to the end; [0] where shorter than one."""
    raise NotImplementedError


def cut_windows(
    samples: NDArray[np.float32], window: int, hop: int, extend: Literal["repeat", "silence"]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Windows of shape (windows, window) and their starts in samples."""
    raise NotImplementedError
