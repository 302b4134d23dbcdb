"""Shared spectral pieces: power spectrogram, mel and chroma filters, decibels, MFCC, deltas, onset strength.

Everything follows librosa 0.11's defaults (Slaney mel scale, periodic Hann, centred frames, zero padding), so
that figures agree with the literature's; time comes before frequency: spectrograms are (..., frames, bins).
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

N_FFT = 2048
HOP = 512
MEL_BANDS = 128
DYNAMIC_RANGE_DB = 80.0
POWER_FLOOR = 1e-10
DELTA_WIDTH = 9
A440 = 440.0
PITCH_CLASSES = 12


@lru_cache(maxsize=8)
def hann(length: int) -> NDArray[np.float32]:
    """Periodic Hann window (length,)."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


def stft(samples: NDArray[np.float32], n_fft: int = N_FFT, hop: int = HOP) -> NDArray[np.complexfloating]:
    """Spectra of (..., n) samples: (..., 1 + n // hop, 1 + n_fft // 2); frame t centred on sample t·hop."""
    samples = np.asarray(samples, dtype=np.float32)
    padding = [(0, 0)] * (samples.ndim - 1) + [(n_fft // 2, n_fft // 2)]
    padded = np.pad(samples, padding)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft, axis=-1)[..., ::hop, :]
    return np.fft.rfft(frames * hann(n_fft), axis=-1)


def power_spectrogram(
    samples: NDArray[np.float32], n_fft: int = N_FFT, hop: int = HOP
) -> NDArray[np.float32]:
    """Power of (..., n) samples: (..., 1 + n // hop, 1 + n_fft // 2); frame t is centred on sample t·hop."""
    spectrum = stft(samples, n_fft, hop)
    return spectrum.real**2 + spectrum.imag**2


def _mel_to_hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = mels * 200.0 / 3.0
    return np.where(mels < 15.0, linear, 1000.0 * np.exp(np.log(6.4) / 27.0 * (mels - 15.0)))


def _hz_to_mel(hertz: float) -> float:
    return hertz * 3.0 / 200.0 if hertz < 1000.0 else 15.0 + np.log(hertz / 1000.0) * 27.0 / np.log(6.4)


@lru_cache(maxsize=8)
def mel_filters(
    sample_rate: int, n_fft: int = N_FFT, bands: int = MEL_BANDS, low: float = 0.0, high: float | None = None
) -> NDArray[np.float32]:
    """Filters of equal area on Slaney's mel scale, (1 + n_fft // 2, bands), from `low` to `high` hertz."""
    top = sample_rate / 2 if high is None else high
    edges = _mel_to_hz(np.linspace(_hz_to_mel(low), _hz_to_mel(top), bands + 2))
    bins = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    widths = np.diff(edges)
    ramps = edges[:, None] - bins[None, :]
    weights = np.maximum(0, np.minimum(-ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]))
    weights *= 2.0 / (edges[2:] - edges[:-2])[:, None]
    return np.ascontiguousarray(weights.T, dtype=np.float32)


@lru_cache(maxsize=32)
def chroma_filters(sample_rate: int, n_fft: int = N_FFT, tuning: float = 0.0) -> NDArray[np.float32]:
    """Filters from bins to the twelve pitch classes, C first: (1 + n_fft // 2, 12).

    Ellis 2007, "Chroma feature analysis and synthesis".

    Args:
        tuning: deviation from A4 = 440 Hz in semitones.
    """
    hertz = np.linspace(0, sample_rate, n_fft, endpoint=False)[1:]
    pitches = PITCH_CLASSES * np.log2(hertz / (A440 * 2.0 ** (tuning / PITCH_CLASSES) / 16))
    pitches = np.concatenate(([pitches[0] - 1.5 * PITCH_CLASSES], pitches))
    widths = np.concatenate((np.maximum(np.diff(pitches), 1.0), [1.0]))
    half = PITCH_CLASSES / 2
    distance = np.remainder(pitches[:, None] - np.arange(PITCH_CLASSES) + half, PITCH_CLASSES) - half
    weights = np.exp(-0.5 * (2 * distance / widths[:, None]) ** 2)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    # octaves near the fifth above A0 count most
    weights *= np.exp(-0.5 * ((pitches / PITCH_CLASSES - 5.0) / 2.0) ** 2)[:, None]
    return np.ascontiguousarray(np.roll(weights, -3, axis=1)[: 1 + n_fft // 2], dtype=np.float32)


def decibels(
    power: NDArray[np.float32], dynamic_range: float | None = DYNAMIC_RANGE_DB
) -> NDArray[np.float32]:
    """Decibels re 1 of (..., frames, bands), floored at -100 and at `dynamic_range` below the maximum."""
    level: NDArray[np.float32] = np.log10(np.maximum(power, np.float32(POWER_FLOOR)))
    level *= np.float32(10)
    if dynamic_range is None:
        return level
    return np.maximum(level, level.max(axis=(-2, -1), keepdims=True) - np.float32(dynamic_range))


def mel_decibels(
    power: NDArray[np.float32], sample_rate: int, n_fft: int = N_FFT, bands: int = MEL_BANDS
) -> NDArray[np.float32]:
    """Mel spectrogram in decibels of a power spectrogram (..., frames, bins): (..., frames, bands)."""
    return decibels(power @ mel_filters(sample_rate, n_fft, bands))


def mfcc(mel: NDArray[np.float32], coefficients: int) -> NDArray[np.float32]:
    """Cepstrum (orthonormal DCT-II) of a mel spectrogram in decibels: (..., frames, coefficients)."""
    return mel @ _cosines(mel.shape[-1], coefficients)


@lru_cache(maxsize=8)
def _cosines(bands: int, coefficients: int) -> NDArray[np.float32]:
    angles = np.pi / bands * (np.arange(bands)[:, None] + 0.5) * np.arange(coefficients)
    scale = np.where(np.arange(coefficients) == 0, np.sqrt(1 / bands), np.sqrt(2 / bands))
    return np.ascontiguousarray(scale * np.cos(angles), dtype=np.float32)


@lru_cache(maxsize=8)
def delta_matrix(frames: int, order: int = 1, width: int = DELTA_WIDTH) -> NDArray[np.float32]:
    """The derivative over time as a matrix (frames, frames): `deltas = matrix @ features (..., frames, n)`.

    A Savitzky-Golay filter of polynomial order `order`, the edges fitted, as librosa's `feature.delta`. Needs
    frames ≥ width.
    """
    half = width // 2
    powers = np.vander(np.arange(-half, half + 1), order + 1, increasing=True)
    # the order-th derivative of a polynomial of that order is the same all along the fit
    slope = math.factorial(order) * np.linalg.pinv(powers)[order]
    matrix = np.zeros((frames, frames), dtype=np.float32)
    for frame in range(frames):
        first = min(max(frame - half, 0), frames - width)
        matrix[frame, first : first + width] = slope
    return matrix


def chroma(
    power: NDArray[np.float32], sample_rate: int, n_fft: int = N_FFT, tuning: float = 0.0
) -> NDArray[np.float32]:
    """Chromagram of a power spectrogram: (..., frames, 12), each frame's largest 1, silence 0."""
    energy: NDArray[np.float32] = power @ chroma_filters(sample_rate, n_fft, tuning)
    peak = energy.max(axis=-1, keepdims=True)
    energy /= np.where(peak < np.finfo(np.float32).tiny, np.float32(1), peak)
    return energy


def onset_strength(mel: NDArray[np.float32], n_fft: int = N_FFT, hop: int = HOP) -> NDArray[np.float32]:
    """Mean rise in level from frame to frame of a mel spectrogram in decibels: (..., frames).

    Shifted by half a frame, so that a peak lies where the sound begins (librosa's `onset_strength`).
    """
    frames = mel.shape[-2]
    rise = np.maximum(np.diff(mel, axis=-2), 0).mean(axis=-1)
    shift = min(frames, 1 + n_fft // (2 * hop))
    strength = np.zeros(mel.shape[:-1], dtype=np.float32)
    strength[..., shift:] = rise[..., : frames - shift]
    return strength
