"""The 57 descriptors of a clip that the GTZAN tables made with librosa know, as plain NumPy.

Means and population variances over frames of a whole clip at 22,050 Hz, by librosa 0.11's definitions and
defaults, under the column names of the published `features_30_sec.csv`. They are for looking at a corpus and
for shallow models; `quick_descriptors` leaves out the slow ones (harmonic-percussive separation, tempo).
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from genreflow.audio import resample
from genreflow.core.errors import AudioError
from genreflow.features import spectral
from genreflow.features.spectral import HOP, N_FFT

SAMPLE_RATE = 22_050
MFCC_COEFFICIENTS = 20
ROLLOFF_SHARE = 0.85

QUICK_NAMES: tuple[str, ...] = (
    *(
        f"{name}_{statistic}"
        for name in (
            "chroma_stft",
            "rms",
            "spectral_centroid",
            "spectral_bandwidth",
            "rolloff",
            "zero_crossing_rate",
        )
        for statistic in ("mean", "var")
    ),
    *(
        f"mfcc{number}_{statistic}"
        for number in range(1, MFCC_COEFFICIENTS + 1)
        for statistic in ("mean", "var")
    ),
)
"""What `quick_descriptors` gives, in order."""
SLOW_NAMES: tuple[str, ...] = ("harmony_mean", "harmony_var", "perceptr_mean", "perceptr_var", "tempo")
NAMES: tuple[str, ...] = (*QUICK_NAMES[:12], *SLOW_NAMES, *QUICK_NAMES[12:])
"""All 57, in the table's order."""

LOWEST_PITCH, HIGHEST_PITCH = 150.0, 4000.0
"""Hertz between which the tuning is estimated."""
PITCH_THRESHOLD = 0.1
"""Peaks below this share of a frame's largest bin are no pitches."""
TUNING_STEPS = 100
"""The tuning is found to a hundredth of a semitone."""

MEDIAN_FRAMES = 31
"""Length of the median filters that separate harmonic from percussive, in frames and in bins."""
MEDIAN_BLOCK = 1 << 15
"""Medians computed at once: the sorted runs of so many stay in the processor's cache."""

TEMPO_SECONDS = 8.0
"""Of onsets autocorrelated at a time."""
EXPECTED_BPM, FASTEST_BPM = 120.0, 320.0


def quick_descriptors(samples: NDArray[np.float32], sample_rate: int) -> dict[str, float]:
    """The 52 descriptors without harmonic-percussive separation and tempo, about 30 ms for 30 s of audio.

    Args:
        samples: (n,) float32 mono at `sample_rate` Hz.

    Raises:
        AudioError: there are no samples.
    """
    return _quick(*_spectrum(samples, sample_rate))


def descriptors(samples: NDArray[np.float32], sample_rate: int) -> dict[str, float]:
    """All 57 descriptors by their names in `features_30_sec.csv`.

    Args:
        samples: (n,) float32 mono at `sample_rate` Hz.

    Raises:
        AudioError: there are no samples.
    """
    waveform, spectrum = _spectrum(samples, sample_rate)
    found = _quick(waveform, spectrum)
    for name, part in zip(("harmony", "perceptr"), separate(waveform, spectrum), strict=True):
        found |= _statistics(name, part)
    found["tempo"] = tempo(spectrum.real**2 + spectrum.imag**2)
    return {name: found[name] for name in NAMES}


def descriptor_vectors(windows: NDArray[np.float32], *, sample_rate: int) -> NDArray[np.float32]:
    """All 57 descriptors of each window as a representation, in the order of `NAMES`.

    Args:
        windows: (n, samples) float32 at `sample_rate` Hz.

    Returns:
        (n, 57) float32.
    """
    found = [list(descriptors(window, sample_rate).values()) for window in windows]
    return np.asarray(found, dtype=np.float32).reshape(len(found), len(NAMES))


def _spectrum(
    samples: NDArray[np.float32], sample_rate: int
) -> tuple[NDArray[np.float32], NDArray[np.complex64]]:
    if len(samples) == 0:
        raise AudioError("There are no samples to describe: give a waveform of at least one.")
    waveform = resample(samples, sample_rate, SAMPLE_RATE)
    return waveform, spectral.stft(waveform)


def _quick(waveform: NDArray[np.float32], spectrum: NDArray[np.complex64]) -> dict[str, float]:
    magnitude = np.abs(spectrum)
    power = magnitude**2
    cepstrum = spectral.mfcc(spectral.mel_decibels(power, SAMPLE_RATE), MFCC_COEFFICIENTS)
    centroid = spectral_centroid(magnitude)
    found = {
        **_statistics("chroma_stft", spectral.chroma(power, SAMPLE_RATE, tuning=tuning(power))),
        **_statistics("rms", rms(waveform)),
        **_statistics("spectral_centroid", centroid),
        **_statistics("spectral_bandwidth", spectral_bandwidth(magnitude, centroid)),
        **_statistics("rolloff", spectral_rolloff(magnitude)),
        **_statistics("zero_crossing_rate", zero_crossing_rate(waveform)),
    }
    for number in range(MFCC_COEFFICIENTS):
        found |= _statistics(f"mfcc{number + 1}", cepstrum[:, number])
    return found


def _statistics(name: str, values: NDArray[np.floating]) -> dict[str, float]:
    exact = values.astype(np.float64)
    return {f"{name}_mean": float(exact.mean()), f"{name}_var": float(exact.var())}


def frequencies() -> NDArray[np.float64]:
    """Hertz of each bin (1 + n_fft // 2,)."""
    hertz: NDArray[np.float64] = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE).astype(np.float64, copy=False)
    return hertz


def rms(waveform: NDArray[np.float32]) -> NDArray[np.float64]:
    """Root mean square of each frame of (n,) samples: (1 + n // hop,)."""
    # As sums over blocks of a hop, which the frames share.
    squares = np.pad(waveform.astype(np.float64) ** 2, N_FFT // 2)
    frames = 1 + len(waveform) // HOP
    blocks = squares[: (frames - 1 + N_FFT // HOP) * HOP].reshape(-1, HOP).sum(axis=1)
    sums = np.lib.stride_tricks.sliding_window_view(blocks, N_FFT // HOP).sum(axis=1)
    return np.sqrt(sums / N_FFT)


def zero_crossing_rate(waveform: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of changes of sign in each frame of (n,) samples: (1 + n // hop,)."""
    quiet = np.abs(waveform) <= 1e-10  # librosa's threshold: what is that near zero counts as positive
    negative = np.signbit(np.where(quiet, np.float32(0), waveform))
    padded = np.pad(negative, N_FFT // 2, mode="edge")
    crossed = np.cumsum(np.concatenate([[0], padded[1:] != padded[:-1]]))
    starts = np.arange(1 + len(waveform) // HOP) * HOP
    return (crossed[starts + N_FFT - 1] - crossed[starts]) / N_FFT


def spectral_centroid(magnitude: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean frequency in hertz of each frame of a magnitude spectrogram (frames, bins): (frames,)."""
    return magnitude @ frequencies().astype(np.float32) / _total(magnitude)


def spectral_bandwidth(magnitude: NDArray[np.float32], centroid: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standard deviation in hertz around the centroid of each frame (frames, bins): (frames,)."""
    distance = (frequencies().astype(np.float32) - centroid[:, None]) ** 2
    return np.sqrt(np.einsum("tf,tf->t", magnitude, distance) / _total(magnitude))


def spectral_rolloff(magnitude: NDArray[np.float32]) -> NDArray[np.float64]:
    """The frequency in hertz below which 85 % of each frame's magnitude lies (frames, bins): (frames,)."""
    cumulative = np.cumsum(magnitude, axis=1)
    return frequencies()[(cumulative >= ROLLOFF_SHARE * cumulative[:, -1:]).argmax(axis=1)]


def _total(magnitude: NDArray[np.float32]) -> NDArray[np.float32]:
    total = magnitude.sum(axis=1)
    return np.where(total < np.finfo(np.float32).tiny, np.float32(1), total)


def tuning(power: NDArray[np.float32]) -> float:
    """Deviation from A4 = 440 Hz in semitones, -0.5 to 0.5, of a power spectrogram (frames, bins).

    The commonest deviation of the louder spectral peaks, each interpolated by a parabola (librosa's
    `estimate_tuning`).
    """
    first, last = np.searchsorted(frequencies(), [LOWEST_PITCH, HIGHEST_PITCH])
    left, middle, right = (power[:, first + shift : last + shift] for shift in (-1, 0, 1))
    curvature = left + right - 2 * middle
    slope = (right - left) / 2
    loud = power > PITCH_THRESHOLD * power.max(axis=1, keepdims=True)
    gated = np.where(loud, power, np.float32(0))
    below, here, above = (gated[:, first + shift : last + shift] for shift in (-1, 0, 1))
    peaks = np.nonzero((here > below) & (here >= above))
    if len(peaks[0]) == 0:
        return 0.0
    slope, curvature = slope[peaks], curvature[peaks]
    flat = np.abs(slope) >= np.abs(curvature)
    shift = np.where(flat, 0, -slope / np.where(flat, 1, curvature))
    height = middle[peaks] + 0.5 * slope * shift
    hertz = (first + peaks[1] + shift) * SAMPLE_RATE / N_FFT
    louder = hertz[height >= np.median(height)]
    semitones = np.mod(spectral.PITCH_CLASSES * np.log2(louder / (spectral.A440 / 16)), 1.0)
    deviation = np.where(semitones >= 0.5, semitones - 1, semitones)
    counts, edges = np.histogram(deviation, bins=np.linspace(-0.5, 0.5, TUNING_STEPS + 1))
    return float(edges[counts.argmax()])


def separate(
    waveform: NDArray[np.float32], spectrum: NDArray[np.complex64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The harmonic and the percussive part of a clip (n,), each (n,), by its spectra (frames, bins).

    Fitzgerald 2010, "Harmonic/percussive separation using median filtering", with Wiener-like masks.
    """
    magnitude = np.abs(spectrum)
    harmonic = running_median(magnitude, axis=0) ** 2
    percussive = running_median(magnitude, axis=1) ** 2
    total = harmonic + percussive
    silent = total < np.finfo(np.float32).tiny
    mask = np.where(silent, np.float32(0.5), harmonic / np.where(silent, 1, total))
    harmony = _waveform(spectrum * mask, len(waveform))
    # the masks add up to one, and so do the parts
    return harmony, waveform - harmony


def running_median(rows: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Median over `MEDIAN_FRAMES` along an axis of (frames, bins) magnitudes, mirrored at its ends; exact.

    Medians of all windows at once: windows share the sorted runs of 2, 4, 8 and 16 values that they are made
    of, and an exchange of two values is a minimum and a maximum over whole arrays, eight or sixteen values an
    instruction. Two runs of 16 that share the middle value make a window of 31.
    """
    half = MEDIAN_FRAMES // 2
    padding = [(0, 0), (0, 0)]
    padding[axis] = (half, half)
    padded = np.pad(rows, padding, mode="symmetric")
    # not negative: as integers in the same order, and integers are compared faster
    line = np.ascontiguousarray(padded).reshape(-1).view(np.int32)
    stride = padded.shape[1] if axis == 0 else 1
    medians = np.empty(len(line) - 2 * half * stride, np.int32)
    for first in range(0, len(medians), MEDIAN_BLOCK):
        count = min(MEDIAN_BLOCK, len(medians) - first)
        piece = line[first : first + count + 2 * half * stride]
        medians[first : first + count] = _medians(piece, stride, count)
    if axis == 0:
        return medians.view(np.float32).reshape(rows.shape)
    # the windows across the ends of two rows are dropped
    whole = np.zeros(len(line), np.int32)
    whole[: len(medians)] = medians
    return whole.view(np.float32).reshape(padded.shape)[:, : rows.shape[1]]


def _medians(line: NDArray[np.int32], stride: int, count: int) -> NDArray[np.int32]:
    """Of `line` (count + 30 · stride,), the medians of the 31 values from each of the first `count` on.

    Args:
        stride: from one value of a window to the next.
    """
    runs: list[NDArray[np.int32]] = [line]
    for width in (1, 2, 4, 8):
        size = len(runs[0]) - width * stride
        later = [run[width * stride :] for run in runs]
        runs = [run[:size] for run in runs] + later
        for one, other in _exchanges(width):
            runs[one], runs[other] = np.minimum(runs[one], runs[other]), np.maximum(runs[one], runs[other])
    shift = (len(runs) - 1) * stride
    first, second = [run[:count] for run in runs], [run[shift : shift + count] for run in runs]
    # the largest of the lower half and the smallest of the upper half of all 32
    low, high = np.minimum(first[0], second[-1]), np.maximum(first[0], second[-1])
    for run, later_run in zip(first[1:], second[-2::-1], strict=True):
        np.maximum(low, np.minimum(run, later_run), out=low)
        np.minimum(high, np.maximum(run, later_run), out=high)
    # the middle value counts twice: where it is in the lower half, the median is the next one
    middle = np.clip(line[shift : shift + count], low, high)
    medians: NDArray[np.int32] = low ^ high ^ middle
    return medians


@lru_cache(maxsize=4)
def _exchanges(width: int) -> tuple[tuple[int, int], ...]:
    """Places to exchange in order to merge two sorted runs of `width` (Batcher 1968, odd-even merge)."""

    def merge(first: int, count: int, step: int) -> list[tuple[int, int]]:
        if 2 * step >= count:
            return [(first, first + step)]
        rest = [(place, place + step) for place in range(first + step, first + count - step, 2 * step)]
        return [*merge(first, count, 2 * step), *merge(first + step, count, 2 * step), *rest]

    return tuple(merge(0, 2 * width, 1))


def _waveform(spectrum: NDArray[np.complex64], samples: int) -> NDArray[np.float32]:
    """Samples (samples,) from spectra (frames, bins): overlap and add, divided by the windows' power."""
    from scipy import fft

    window = spectral.hann(N_FFT)
    overlap = N_FFT // HOP
    frames = (fft.irfft(spectrum, n=N_FFT, axis=1) * window).reshape(len(spectrum), overlap, HOP)
    weights = (window**2).reshape(overlap, HOP)
    added = np.zeros((len(spectrum) + overlap - 1, HOP), dtype=np.float32)
    power = np.zeros_like(added)
    for part in range(overlap):
        added[part : part + len(spectrum)] += frames[:, part]
        power[part : part + len(spectrum)] += weights[part]
    line = (added / np.maximum(power, np.finfo(np.float32).tiny)).ravel()
    return line[N_FFT // 2 : N_FFT // 2 + samples].astype(np.float32, copy=False)


def tempo(power: NDArray[np.float32]) -> float:
    """Beats a minute of a power spectrogram (frames, bins), as librosa's `beat_track`; 0 without onsets."""
    from scipy import fft

    mel = spectral.mel_decibels(power, SAMPLE_RATE)
    frames = len(mel)
    onsets = np.zeros(frames)
    shift = min(frames, 1 + N_FFT // (2 * HOP))
    onsets[shift:] = np.median(np.maximum(np.diff(mel, axis=0), 0), axis=1)[: frames - shift]
    if not onsets.any():
        return 0.0
    length = int(TEMPO_SECONDS * SAMPLE_RATE) // HOP
    padded = np.pad(onsets, length // 2, mode="linear_ramp", end_values=0)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, length)[:frames] * spectral.hann(length)
    # Each autocorrelation is divided by its peak, which is at lag 0; their mean is that of mean power.
    peak = np.einsum("tn,tn->t", pieces, pieces)
    points = fft.next_fast_len(2 * length - 1, real=True)
    spectrum = fft.rfft(pieces, n=points, axis=1)
    scale = 1 / np.where(peak < np.finfo(np.float64).tiny, 1, peak)
    mean = fft.irfft(scale @ (spectrum.real**2 + spectrum.imag**2), n=points)[:length] / frames
    lags = np.arange(1, length)
    bpm = 60 * SAMPLE_RATE / HOP / lags
    preference = -0.5 * np.log2(bpm / EXPECTED_BPM) ** 2
    preference[bpm >= FASTEST_BPM] = -np.inf
    return float(bpm[(np.log1p(1e6 * np.maximum(mean[1:], 0)) + preference).argmax()])
