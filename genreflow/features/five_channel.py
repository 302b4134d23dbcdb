"""The five-channel feature map of `mfcc_cnn`: MFCC, delta, delta-delta, tempo-synchronous MFCC and chroma.

Three seconds at 22,050 Hz become 40 rows by 130 frames in five channels. Channels come first, (5, 40, 130),
as torch expects them; the literature writes (40, 130, 5). Tempo and beats are found in each window by itself
(onset autocorrelation and dynamic programming, Ellis 2007, "Beat Tracking by Dynamic Programming"), so that a
window gives the same feature map wherever it was cut.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from genreflow.features import spectral

SAMPLE_RATE = 22_050
WINDOW_SECONDS = 3.0
ROWS = 40
CHANNELS = ("mfcc", "delta", "delta-delta", "tempo-synchronous mfcc", "chroma")
WINDOWS_AT_A_TIME = 16
"""Bounds memory: a spectrogram of 16 windows takes 17 MB."""

PREFERRED_BPM = 120.0
SLOWEST_BPM, FASTEST_BPM = 45.0, 240.0
TEMPO_OCTAVES = 1.0
"""Standard deviation of the log-normal preference around 120 beats a minute."""
TIGHTNESS = 100.0
"""How strongly beats keep to the tempo (Ellis 2007, α)."""


def mfcc_five_channel(
    windows: NDArray[np.float32],
    *,
    sample_rate: int = SAMPLE_RATE,
    n_fft: int = spectral.N_FFT,
    hop: int = spectral.HOP,
    rows: int = ROWS,
) -> NDArray[np.float32]:
    """The five channels of each window.

    Args:
        windows: (n, samples) float32 at `sample_rate` Hz, at least nine hops long.

    Returns:
        (n, 5, rows, 1 + samples // hop) float32: (n, 5, 40, 130) for windows of 3 s at 22,050 Hz. Not
        standardised; the model does that with statistics of its training rows.
    """
    windows = np.atleast_2d(np.asarray(windows, dtype=np.float32))
    frames = 1 + windows.shape[1] // hop
    out = np.empty((len(windows), len(CHANNELS), rows, frames), dtype=np.float32)
    for first in range(0, len(windows), WINDOWS_AT_A_TIME):
        chunk = windows[first : first + WINDOWS_AT_A_TIME]
        power = spectral.power_spectrogram(chunk, n_fft, hop)
        mel = spectral.mel_decibels(power, sample_rate, n_fft)
        cepstrum = spectral.mfcc(mel, rows)
        beats = track_beats(spectral.onset_strength(mel, n_fft, hop), sample_rate / hop)
        chroma = spectral.chroma(power, sample_rate, n_fft)
        target = out[first : first + WINDOWS_AT_A_TIME]
        for channel, values in enumerate(
            (
                cepstrum,
                spectral.delta_matrix(frames, 1) @ cepstrum,
                spectral.delta_matrix(frames, 2) @ cepstrum,
                average_between(cepstrum, beats),
                chroma @ _stretch(rows),
            )
        ):
            target[:, channel] = values.swapaxes(1, 2)
    return out


@lru_cache(maxsize=8)
def _stretch(rows: int) -> NDArray[np.float32]:
    """Linear interpolation from twelve pitch classes to `rows` rows, as a matrix (12, rows)."""
    classes = spectral.PITCH_CLASSES
    positions = np.linspace(0, classes - 1, rows)
    return np.stack([np.interp(positions, np.arange(classes), unit) for unit in np.eye(classes)]).astype(
        np.float32
    )


def tempo_periods(onsets: NDArray[np.float32], frame_rate: float) -> NDArray[np.int64]:
    """Frames from beat to beat of each onset curve (n, frames): (n,), the weighted autocorrelation's peak."""
    frames = onsets.shape[1]
    shortest = max(1, int(np.floor(60 * frame_rate / FASTEST_BPM)))
    longest = min(frames - 1, int(np.ceil(60 * frame_rate / SLOWEST_BPM)))
    lags = np.arange(shortest, max(shortest, longest) + 1)
    spectrum = np.fft.rfft(onsets, n=2 * frames, axis=1)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, lags[0] - 1 : lags[-1] + 2]
    # a period between two whole numbers of frames spreads over both
    correlation = correlation[:, 1:-1] + 0.5 * (correlation[:, :-2] + correlation[:, 2:])
    bpm = 60 * frame_rate / lags
    preference = np.exp(-0.5 * (np.log2(bpm / PREFERRED_BPM) / TEMPO_OCTAVES) ** 2)
    # fewer pairs overlap at longer lags
    overlap = frames / (frames - lags)
    return lags[np.argmax(correlation * preference * overlap, axis=1)]


def track_beats(onsets: NDArray[np.float32], frame_rate: float) -> NDArray[np.bool_]:
    """Which frames are beats, for each onset curve (n, frames) at `frame_rate` frames a second: (n, frames).

    A curve without onsets has no beats.
    """
    n, frames = onsets.shape
    periods = tempo_periods(onsets, frame_rate)
    spread = onsets.std(axis=1, ddof=1, keepdims=True)
    strength = onsets / np.where(spread > 0, spread, 1)
    # a Gaussian about a thirtieth of a beat wide smooths each onset curve at its own tempo
    half = frames // 8
    offsets = np.arange(-half, half + 1)
    kernels = np.exp(-0.5 * (offsets * 32.0 / periods[:, None]) ** 2)
    padded = np.pad(strength, ((0, 0), (half, half)))
    views = np.lib.stride_tricks.sliding_window_view(padded, len(offsets), axis=1)
    local = np.einsum("nfk,nk->nf", views, kernels)

    lags = np.arange(1, 2 * periods.max() + 1)
    ratio = np.log(lags / periods[:, None])
    reachable = (lags >= np.round(periods[:, None] / 2)) & (lags <= 2 * periods[:, None])
    penalty = np.where(reachable, -TIGHTNESS * ratio**2, -np.inf)
    longest = int(lags[-1])
    # scores before the window begin at 0, so that a first beat may lie anywhere
    score = np.zeros((n, longest + frames))
    previous = np.full((n, frames), -1, dtype=np.int64)
    every = np.arange(n)
    threshold = 0.01 * local.max(axis=1)
    started = np.zeros(n, dtype=bool)
    for frame in range(frames):
        past = score[:, frame : frame + longest][:, ::-1] + penalty
        best = np.argmax(past, axis=1)
        score[:, longest + frame] = local[:, frame] + past[every, best]
        started |= local[:, frame] > threshold
        previous[:, frame] = np.where(started, frame - lags[best], -1)

    beats = np.zeros((n, frames), dtype=bool)
    last = np.argmax(_peaks_of_late_scores(score[:, longest:], periods), axis=1)
    current = np.where(onsets.max(axis=1) > 0, last, -1)
    while (alive := current >= 0).any():
        beats[every[alive], current[alive]] = True
        current = np.where(alive, previous[every, np.maximum(current, 0)], -1)
    return beats


def _peaks_of_late_scores(score: NDArray[np.float64], periods: NDArray[np.int64]) -> NDArray[np.float64]:
    """The score where a chain of beats may end: within the last period of the window."""
    frames = score.shape[1]
    return np.where(np.arange(frames) >= frames - periods[:, None], score, -np.inf)


def average_between(features: NDArray[np.float32], beats: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Features (n, frames, rows) averaged between beats (n, frames), each frame given its beat's mean."""
    n, frames, rows = features.shape
    begins = beats.copy()
    begins[:, 0] = True
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=n * frames)
    sums = np.add.reduceat(features.reshape(n * frames, rows), starts, axis=0)
    means = (sums / lengths[:, None]).astype(np.float32)
    return np.repeat(means, lengths, axis=0).reshape(n, frames, rows)
