"""The log-mel spectrogram of musicnn."""

import numpy as np
from numpy.typing import NDArray

from genreflow.features import spectral

SAMPLE_RATE = 16_000
N_FFT = 512
HOP = 256
BANDS = 96
FRAMES = 187
WINDOW_SAMPLES = FRAMES * HOP
"""47,872 samples, 2.992 s at 16 kHz: windows without overlap begin on musicnn's own frames."""
COMPRESSION = 10_000.0


def musicnn_log_mel(windows: NDArray[np.float32], *, sample_rate: int) -> NDArray[np.float32]:
    """Log-mel spectrograms as musicnn computes them, between 0 and about 6.

    log10(10000 · power + 1) of librosa's default mel spectrogram: periodic Hann window of 512 samples every
    256, Slaney's mel scale, 96 bands. Frame t is centred on sample 256 · t; before the first sample lies
    silence. librosa's last frame, half beyond the window's end, is left out.

    musicnn itself transforms the whole clip and cuts the spectrogram. A window here gives the same values
    but for its first frame, whose first half is silence instead of the 256 samples before the window.

    Args:
        windows: (n, samples) float32, at least 512 samples long.

    Returns:
        (n, samples // 256, 96) float32; (n, 187, 96) for `WINDOW_SAMPLES`.
    """
    windows = np.asarray(windows, dtype=np.float32)
    frames = windows.shape[-1] // HOP
    filters = spectral.mel_filters(sample_rate, N_FFT, BANDS)
    hann = spectral.hann(N_FFT)
    out = np.empty((len(windows), frames, BANDS), dtype=np.float32)
    padded = np.zeros((frames + 1) * HOP, dtype=np.float32)
    for samples, log_mel in zip(windows, out, strict=True):  # one window at a time stays in the cache
        padded[HOP:] = samples[: frames * HOP]
        framed = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
        spectrum = np.fft.rfft(framed * hann, axis=-1)
        power = spectrum.real**2 + spectrum.imag**2
        np.matmul(power, filters, out=log_mel)
        log_mel *= np.float32(COMPRESSION)
        log_mel += np.float32(1)
        np.log10(log_mel, out=log_mel)
    return out
