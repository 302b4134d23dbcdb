"""When an answer is not reliable: low confidence, or audio that is recognisably no music.

A classifier of ten genres names one of them for any audio. Silence, noise and a steady tone are recognised
from the sound itself, without a model; speech is not: telling it from rap or a cappella takes a trained one.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from genreflow.audio import BLOCK_SAMPLES

UNSURE_BELOW = 0.5
"""Confidence is a calibrated probability: below one half the answer is more likely wrong than right."""
SILENCE_DBFS = -60.0
"""Root mean square level under which nothing was played; ingest refuses clips under the same."""
FRAME = 2_048
"""Samples a spectrum is taken over."""
FRAMES = 1_500
"""Spectra taken at most, spread over the whole: an hour costs no more than two minutes."""
LOUD_SHARE = 1e-3
"""Frames with less than this share of the mean power are pauses and do not count."""
BAND = 1.26
"""Neighbouring bins within a third of an octave, or `BAND_BINS`, are compared with one another."""
BAND_BINS = 8
NOISE_FLATNESS = 0.85
"""Geometric over arithmetic mean of the averaged spectrum within bands: 1 for noise of any colour."""
NOISE_CHANGE_DB = 0.85
"""Standard deviation of the level between frames, in dB: noise does not change."""
TONE_SHARE = 0.95
"""Of the power, within `TONE_BINS` of the averaged spectrum's strongest frequency: one tone, not music."""
TONE_BINS = 3


def unsure_reason(samples: NDArray[np.float32], confidence: float) -> str | None:
    """Why the answer for a waveform (n,) is not to be relied on, in a few words; None where it is.

    Args:
        confidence: calibrated probability of the genre named, 0 to 1.
    """
    reason = no_music(samples)
    if reason is None and confidence < UNSURE_BELOW:
        shown = min(round(confidence, 2), UNSURE_BELOW - 0.01)  # never as if it were the threshold itself
        return f"confidence {shown:.2f} below {UNSURE_BELOW:g}"
    return reason


def no_music(samples: NDArray[np.float32]) -> str | None:
    """`silence`, `noise` or `a steady tone` where a waveform (n,) is that, else None.

    Noise from white to pink and tones are recognised where they are all that there is and do not change; a
    burst of noise, applause, a rumble, hum under music and speech are not.
    """
    if _power(samples) < 10 ** (SILENCE_DBFS / 10):
        return "silence"
    if len(samples) < 2 * FRAME:
        return None
    count = min(FRAMES, len(samples) // FRAME)
    starts = np.linspace(0, len(samples) - FRAME, count).astype(np.int64)
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[starts]
    spectra = np.square(np.abs(np.fft.rfft(frames * np.hanning(FRAME).astype(np.float32), axis=1)))[:, 2:]
    levels = spectra.sum(axis=1)
    audible = levels > LOUD_SHARE * levels.mean()
    spectrum = spectra[audible].mean(axis=0)
    strongest = int(spectrum.argmax())
    around = spectrum[max(0, strongest - TONE_BINS) : strongest + TONE_BINS + 1].sum()
    if around > TONE_SHARE * spectrum.sum():
        return "a steady tone"
    steady = float(np.std(10 * np.log10(levels[audible]))) < NOISE_CHANGE_DB
    return "noise" if steady and _flatness(spectrum) > NOISE_FLATNESS else None


def _power(samples: NDArray[np.float32]) -> float:
    """Mean square around the mean, block by block: at once an hour would take 690 MB beside itself."""
    mean = samples.mean()
    blocks = (samples[start : start + BLOCK_SAMPLES] for start in range(0, len(samples), BLOCK_SAMPLES))
    return sum(float(np.square(block - mean, dtype=np.float64).sum()) for block in blocks) / len(samples)


def _flatness(spectrum: NDArray[np.float32]) -> float:
    """Spectral flatness within bands, the mean weighted by power; after Johnston (1988)."""
    edges = [0]
    while edges[-1] < len(spectrum):
        edges.append(min(len(spectrum), max(edges[-1] + BAND_BINS, int(edges[-1] * BAND))))
    floor = spectrum.max() * 1e-12
    bands = [spectrum[first:last] + floor for first, last in itertools.pairwise(edges)]
    means = np.array([band.mean() for band in bands])
    flatness = np.array([np.exp(np.log(band).mean()) for band in bands]) / means
    weights = np.array([band.sum() for band in bands])
    return float((flatness * weights).sum() / weights.sum())
