"""The waveform itself, as HuBERT, wav2vec2 and WavLM take it."""

import numpy as np
from numpy.typing import NDArray

VARIANCE_FLOOR = 1e-7
"""Added to the variance, as in transformers' `Wav2Vec2FeatureExtractor`."""


def waveform(
    windows: NDArray[np.float32], *, sample_rate: int, normalise: bool = True
) -> NDArray[np.float32]:
    """Each window with zero mean and unit variance; unchanged without `normalise`.

    Equal to transformers' `Wav2Vec2FeatureExtractor` with the same `do_normalize`.

    Args:
        windows: (n, samples) float32.

    Returns:
        (n, samples) float32.
    """
    windows = np.ascontiguousarray(windows, dtype=np.float32)
    if not normalise:
        return windows
    mean = windows.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(windows.var(axis=-1, keepdims=True) + np.float32(VARIANCE_FLOOR))
    return (windows - mean) / deviation
