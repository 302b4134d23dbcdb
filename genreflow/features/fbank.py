"""The Kaldi filter bank of the Audio Spectrogram Transformer."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FRAME = 400
HOP = 160
N_FFT = 512
MELS = 128
FRAMES = 1024
LOW_HERTZ = 20.0
PREEMPHASIS = 0.97
POWER_FLOOR = 1.192092955078125e-07
AUDIOSET_MEAN = -4.2677393
AUDIOSET_STD = 4.5689974
"""Gong et al. 2021, "AST: Audio Spectrogram Transformer": statistics of AudioSet's filter bank energies."""


def ast_fbank(
    windows: NDArray[np.float32],
    *,
    sample_rate: int,
    n_mels: int = MELS,
    max_length: int = FRAMES,
    mean: float = AUDIOSET_MEAN,
    std: float = AUDIOSET_STD,
    normalise: bool = True,
) -> NDArray[np.float32]:
    """Log filter bank energies as AST takes them.

    Equal to transformers' `ASTFeatureExtractor` where torchaudio is not installed: frames of 25 ms every
    10 ms at 16 kHz (edges snipped), DC removed, pre-emphasis, symmetric Hann window, Kaldi's mel scale,
    natural logarithm; then `max_length` frames, padded with zeros or cut; then (x - mean) / (2 std).

    Args:
        windows: (n, samples) float32, at least 400 samples long.

    Returns:
        (n, max_length, n_mels) float32.
    """
    windows = np.asarray(windows, dtype=np.float32)
    filters = kaldi_filters(sample_rate, n_mels)
    hann = np.hanning(FRAME).astype(np.float32)
    frames = min(max_length, 1 + (windows.shape[-1] - FRAME) // HOP)
    out = np.zeros((len(windows), max_length, n_mels), dtype=np.float32)
    for samples, fbank in zip(windows, out, strict=True):  # one window at a time stays in the cache
        framed = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP][:frames]
        framed = framed - framed.mean(axis=-1, keepdims=True)
        first = framed[:, :1] * np.float32(1 - PREEMPHASIS)
        framed = np.concatenate((first, framed[:, 1:] - np.float32(PREEMPHASIS) * framed[:, :-1]), axis=1)
        spectrum = np.fft.rfft(framed * hann, N_FFT, axis=-1)
        power = spectrum.real**2 + spectrum.imag**2
        fbank[:frames] = np.log(np.maximum(power @ filters, np.float32(POWER_FLOOR)))
    return (out - np.float32(mean)) / np.float32(2 * std) if normalise else out


@lru_cache(maxsize=8)
def kaldi_filters(sample_rate: int, n_mels: int = MELS) -> NDArray[np.float32]:
    """Triangles of equal height on Kaldi's mel scale, from 20 Hz to half the rate: (1 + 512 // 2, n_mels)."""
    edges = np.linspace(_hz_to_mel(np.array(LOW_HERTZ)), _hz_to_mel(np.array(sample_rate // 2)), n_mels + 2)
    bins = _hz_to_mel(np.fft.rfftfreq(N_FFT, 1 / sample_rate).astype(np.float64))
    widths = np.diff(edges)
    ramps = edges[None, :] - bins[:, None]
    weights = np.maximum(0, np.minimum(-ramps[:, :-2] / widths[:-1], ramps[:, 2:] / widths[1:]))
    return np.ascontiguousarray(weights, dtype=np.float32)


def _hz_to_mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1127.0 * np.log(1.0 + hertz / 700.0)
