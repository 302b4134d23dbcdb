"""The mel spectrogram in decibels, scaled to [0, 1]: the input of the families `vit` and `vgg`."""

import numpy as np
from numpy.typing import NDArray

from genreflow.features import spectral

SILENCE_DB = 10 * np.log10(spectral.POWER_FLOOR)
"""The level to which `spectral.decibels` raises what is quieter."""


def scaled_mel(
    windows: NDArray[np.float32],
    *,
    sample_rate: int,
    n_fft: int = spectral.N_FFT,
    hop: int = spectral.HOP,
    bands: int = spectral.MEL_BANDS,
) -> NDArray[np.float32]:
    """Mel spectrograms in decibels below each window's loudest point, scaled to [0, 1].

    librosa's `power_to_db(melspectrogram(…), ref=np.max)` / 80 + 1: Slaney's mel scale, periodic Hann window,
    centred frames with silence beyond the edges, a range of 80 dB. A window's level does not matter. A window
    of silence is 0 everywhere, where librosa would give 1.

    Args:
        windows: (n, samples) float32.
        n_fft: samples of a frame.
        hop: samples from frame to frame.
        bands: of the mel scale, from 0 Hz to half the rate.

    Returns:
        (n, 1, 1 + samples // hop, bands) float32: one channel, time before frequency.
    """
    windows = np.atleast_2d(np.asarray(windows, dtype=np.float32))
    out = np.empty((len(windows), 1, 1 + windows.shape[1] // hop, bands), dtype=np.float32)
    for samples, target in zip(windows, out, strict=True):  # one window at a time bounds the memory
        power = spectral.power_spectrogram(samples, n_fft, hop)
        level = spectral.mel_decibels(power, sample_rate, n_fft, bands)
        peak = level.max()
        if peak <= SILENCE_DB:
            target[:] = 0
            continue
        level -= peak
        level /= np.float32(spectral.DYNAMIC_RANGE_DB)
        np.add(level, np.float32(1), out=target[0])
    return out
