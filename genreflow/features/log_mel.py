"""Whisper's log-mel spectrogram."""

import numpy as np
from numpy.typing import NDArray

from genreflow.features import spectral

N_FFT = 400
HOP = 160
MELS = 80
TOP_HERTZ = 8_000.0
POWER_FLOOR = 1e-10
DYNAMIC_RANGE = 8.0
"""Decades of power below the loudest point of a window; what is quieter is raised to it."""


def whisper_log_mel(
    windows: NDArray[np.float32], *, sample_rate: int, n_mels: int = MELS
) -> NDArray[np.float32]:
    """Log-mel spectrograms as Whisper takes them, about 2 wide around 0.

    Equal to transformers' `WhisperFeatureExtractor`: frames of 25 ms every 10 ms at 16 kHz, centred with
    reflected edges, the last frame dropped; Slaney's mel scale; log10, clamped and scaled by the window's
    own maximum.

    Args:
        windows: (n, samples) float32, more than 200 samples long.

    Returns:
        (n, n_mels, samples // 160) float32; (n, 80, 3000) for 30 s at 16 kHz.
    """
    windows = np.asarray(windows, dtype=np.float32)
    frames = windows.shape[-1] // HOP
    filters = spectral.mel_filters(sample_rate, N_FFT, n_mels, high=TOP_HERTZ)
    hann = spectral.hann(N_FFT)
    out = np.empty((len(windows), n_mels, frames), dtype=np.float32)
    for samples, log_mel in zip(windows, out, strict=True):  # one window at a time stays in the cache
        padded = np.pad(samples, N_FFT // 2, mode="reflect")
        framed = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP][:frames]
        spectrum = np.fft.rfft(framed * hann, axis=-1)
        power = spectrum.real**2 + spectrum.imag**2
        np.maximum((power @ filters).T, np.float32(POWER_FLOOR), out=log_mel)
        np.log10(log_mel, out=log_mel)
        np.maximum(log_mel, log_mel.max() - np.float32(DYNAMIC_RANGE), out=log_mel)
        log_mel += np.float32(4)
        log_mel /= np.float32(4)
    return out
