"""Random changes of a waveform that leave its genre as it is, in plain NumPy."""

import numpy as np
from numpy.typing import NDArray

from genreflow.audio import resample

GAIN_DB = 6.0
SPEED = 0.06
"""Largest change of speed, pitch and tempo together: a semitone."""
TILT_DB = 6.0
"""Largest gain at either end of the spectrum against the other, along the logarithm of frequency."""
BUMP_DB = 6.0
BUMP_OCTAVES = 1.0
LOW_PASS_HERTZ = (3_500.0, 11_000.0)
HIGH_PASS_HERTZ = (30.0, 200.0)
SNR_DB = (15.0, 45.0)
FULL_SCALE = 1.0


def augment(samples: NDArray[np.float32], rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A copy, as from another recording of the same music.

    Another beginning (the end is carried to the front), another speed by up to a semitone, another equaliser
    (tilt, one bump, sometimes narrowed bandwidth), a noise floor, gain and polarity, each by chance.

    Args:
        samples: (n,) float32, nominally in [-1, 1].
        rate: hertz.
        rng: every random choice is drawn from it, so that the same seed gives the same copy.

    Returns:
        (n,) float32, in [-1, 1] where `samples` were.
    """
    count = len(samples)
    if count < 2:
        return samples.copy()
    peak = max(FULL_SCALE, float(np.abs(samples).max()))
    changed = np.roll(samples, int(rng.integers(count)))
    if rng.random() < 0.7:
        changed = _speed(changed, rate, 1 + float(rng.uniform(-SPEED, SPEED)))
    changed = _equalise(changed, rate, rng)
    if rng.random() < 0.5:
        changed = _noise(changed, rng)
    gain = 10 ** (float(rng.uniform(-GAIN_DB, GAIN_DB)) / 20)
    if rng.random() < 0.5:
        gain = -gain
    changed = changed * np.float32(gain)
    loudest = float(np.abs(changed).max())
    if loudest > peak:  # turned down, not clipped
        changed *= np.float32(peak / loudest)
    return changed.astype(np.float32, copy=False)


def _speed(samples: NDArray[np.float32], rate: int, factor: float) -> NDArray[np.float32]:
    """Played `factor` times as fast, cut or begun again to the same length."""
    played = resample(samples, round(rate * factor), rate)
    return np.resize(played, len(samples)) if len(played) else samples


def _equalise(samples: NDArray[np.float32], rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    from scipy import fft

    size = fft.next_fast_len(len(samples), real=True)
    hertz = np.fft.rfftfreq(size, 1 / rate).astype(np.float32)
    octaves = np.log2(np.maximum(hertz, 20.0) / 640.0)  # the middle of 20 Hz to 20 kHz
    level = octaves * np.float32(rng.uniform(-TILT_DB, TILT_DB) / 10)
    middle = np.float32(rng.uniform(-3, 3))
    level += np.float32(rng.uniform(-BUMP_DB, BUMP_DB)) * np.exp(-(((octaves - middle) / BUMP_OCTAVES) ** 2))
    gain = 10 ** (level / np.float32(20))
    if rng.random() < 0.3:
        cutoff = np.float32(np.exp(rng.uniform(*np.log(LOW_PASS_HERTZ))))
        gain /= np.sqrt(1 + (hertz / cutoff) ** 8)
    if rng.random() < 0.3:
        cutoff = np.float32(np.exp(rng.uniform(*np.log(HIGH_PASS_HERTZ))))
        gain *= 1 / np.sqrt(1 + (cutoff / np.maximum(hertz, 1.0)) ** 4)
    spectrum = fft.rfft(samples, size) * gain
    return fft.irfft(spectrum, size)[: len(samples)].astype(np.float32, copy=False)


def _noise(samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """White noise below the signal's own level by a ratio of `SNR_DB`."""
    level = float(np.sqrt(np.mean(samples**2))) * 10 ** (-float(rng.uniform(*SNR_DB)) / 20)
    return samples + np.float32(level) * rng.standard_normal(len(samples), dtype=np.float32)
