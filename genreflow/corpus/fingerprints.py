"""Acoustic fingerprints: the same recording found again after a lossy codec, a gain, a resampling, a trim.

After Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002): each of 32 bits says
whether the difference of level between two neighbouring bands, of 33 between 300 and 2000 Hz, rose or fell
over a moment. Signs of differences know nothing of gain and equalisation. Frames with the same 32 bits
propose a pair of clips and an offset; at that offset the bits of the whole overlap then have to agree.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy import fft

RATE = 5_512
"""Hertz at which a fingerprint is taken: what lies over 2 kHz, codecs and rates may change."""
FRAME = 1_024
"""Samples of a spectrum, 0.19 s."""
HOP = 256
"""Samples from one frame to the next, 46 ms."""
SMOOTHED = 6
"""Spectra averaged for a frame. Long against the hop, so that half a hop's misalignment changes few bits."""
LAG = 4
"""Frames over which energies rise or fall."""
BAND_EDGES_HZ = np.geomspace(300.0, 2_000.0, 34)
VOID = 0
"""Bits of a frame in which there is silence or nothing changes: it is like every other such frame."""
FLOOR_DBFS = -100.0
"""Added to every band, as white noise of that level: what lies under it (16-bit rounding) changes nothing."""
LEAST_CHANGE = 0.05
"""Mean change of level between neighbouring bands, in nepers of power, under which a frame is void."""

INDEX_FRAMES = 1 << 22
"""Frames looked up by their bits at most: bounds the memory. Of larger corpora a share is, chosen by the
bits, so that two versions of a recording keep the same ones."""
NEIGHBOURS = 8
"""With how many others of the same bits a frame is paired: bits that many clips have distinguish none."""
LAGS_COMPARED = 3
"""The most proposed offsets of a pair that are compared."""
MIN_OVERLAP_SHARE = 0.5
"""Of the shorter clip, that two clips must have in common."""
MIN_OVERLAP_SECONDS = 3.0
SHORT_OVERLAP_SHARE = 0.75
"""The same of clips so short that this is less than `MIN_OVERLAP_SECONDS`."""
MIN_SIMILARITY = 0.75
"""Share of equal bits over the overlap, 0.5 for unrelated clips."""

_WINDOW = np.hanning(FRAME).astype(np.float32)
_BINS = np.rint(BAND_EDGES_HZ * FRAME / RATE).astype(np.intp)
_FLOOR = (np.diff(_BINS) * 10 ** (FLOOR_DBFS / 10) * np.sum(_WINDOW**2)).astype(np.float32)
_SMOOTHING = (np.hanning(SMOOTHED + 2)[1:-1] / np.hanning(SMOOTHED + 2).sum()).astype(np.float32)
_FRAMES_AT_ONCE = 256
"""Spectra computed at once: they fit into the processor's cache."""
_MIX = np.uint32(0x9E3779B1)
"""Spreads the bits (Knuth's multiplicative hash), so that a range of values is a fair sample of frames."""
_BLOCK = 1 << 20
"""Frames read at once."""
_LAG_BITS = 24
"""Room for an offset in frames beside the numbers of two clips: nine days."""


@dataclass(frozen=True)
class Match:
    """Two clips that hold the same recording."""

    first: int
    second: int
    """Numbers of the clips, in the order in which they were added; first < second."""
    offset_seconds: float
    """Where the second clip begins on the first one's time axis, to about half a hop."""
    similarity: float
    """Share of equal bits over the overlap: 0.5 for unrelated clips, 1 for the same audio."""


def acoustic_fingerprint(samples: NDArray[np.float32], rate: int) -> NDArray[np.uint32]:
    """(n,) samples in [-1, 1] at `rate` Hz to (frames,) of 32 bits each, `HOP / RATE` seconds apart.

    Empty for a clip shorter than half a second.
    """
    resampled = soxr.resample(samples, rate, RATE, quality="LQ")
    frames = (len(resampled) - FRAME) // HOP + 1
    if frames < SMOOTHED + LAG:
        return np.zeros(0, np.uint32)
    energy = np.empty((frames, len(_BINS) - 1), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(resampled, FRAME)[::HOP]
    for start in range(0, frames, _FRAMES_AT_ONCE):
        part = slice(start, start + _FRAMES_AT_ONCE)
        spectrum = fft.rfft(windows[part] * _WINDOW, axis=1)[:, : _BINS[-1]]
        np.add.reduceat(spectrum.real**2 + spectrum.imag**2, _BINS[:-1], axis=1, out=energy[part])
    count = frames - SMOOTHED + 1
    smooth = _SMOOTHING[0] * energy[:count]
    for k in range(1, SMOOTHED):
        smooth += _SMOOTHING[k] * energy[k : k + count]
    level = np.log(smooth + _FLOOR)
    slope = level[:, :-1] - level[:, 1:]
    change = slope[LAG:] - slope[:-LAG]
    bits = np.packbits(change > 0, axis=1).view(">u4")[:, 0].astype(np.uint32)
    bits[np.abs(change).mean(axis=1) < LEAST_CHANGE] = VOID
    return bits


class Fingerprints:
    """Fingerprints of many clips, kept in a nameless file in `folder`, so that memory stays flat."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (`__exit__` closes it)
        self._starts = [0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def add(self, bits: NDArray[np.uint32]) -> None:
        """The next clip's `acoustic_fingerprint`."""
        self._file.write(np.ascontiguousarray(bits, np.uint32).data)
        self._starts.append(self._starts[-1] + len(bits))

    def matches(self) -> list[Match]:
        """Pairs of clips that hold the same recording, in order; clips in the same order give the same pairs.

        Of a recording that lies in more than `NEIGHBOURS` clips not every pair is found: pairs connect them.
        """
        total = self._starts[-1]
        if not total:
            return []
        self._file.flush()
        frames: NDArray[np.uint32] = np.memmap(self._file, np.uint32, "r", shape=(total,))
        starts = np.array(self._starts)
        return list(_compared(frames, starts, *_proposed(*_indexed(frames), starts)))


def _indexed(frames: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Bits and positions of the frames to be looked up, sorted by bits, equal ones by position."""
    last = np.uint32(min(1.0, INDEX_FRAMES / len(frames)) * 0xFFFFFFFF)
    found = []
    for start in range(0, len(frames), _BLOCK):
        bits = frames[start : start + _BLOCK]
        # A run of equal frames is one event: held notes would fill the index.
        before = frames[start - 1] if start else VOID
        fresh = np.diff(bits, prepend=before) != 0
        found.append(start + np.flatnonzero(fresh & (bits != VOID) & (bits * _MIX <= last)))
    positions = np.concatenate(found)
    bits = frames[positions]
    order = np.argsort(bits, kind="stable")
    return bits[order], positions[order]


def _proposed(
    bits: NDArray[np.uint32], positions: NDArray[np.int64], starts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """First clip, second clip, offset in frames: the most proposed offsets of every pair."""
    clips = len(starts) - 1
    owner = np.searchsorted(starts, positions, side="right") - 1
    where = positions - starts[owner]
    codes = []
    for step in range(1, NEIGHBOURS + 1):
        same = np.flatnonzero((bits[step:] == bits[:-step]) & (owner[step:] != owner[:-step]))
        pair = owner[same] * clips + owner[same + step]
        codes.append((pair << _LAG_BITS) + (where[same] - where[same + step] + (1 << _LAG_BITS - 1)))
    code, votes = np.unique(np.concatenate(codes), return_counts=True)
    # an offset between two whole hops is voted for as either
    beside = np.flatnonzero(np.diff(code) == 1)
    near = votes.copy()
    near[beside] += votes[beside + 1]
    near[beside + 1] += votes[beside]
    order = np.lexsort((code, -near, code >> _LAG_BITS))
    pair = code[order] >> _LAG_BITS
    rank = np.arange(len(pair)) - np.searchsorted(pair, pair)
    code = np.sort(code[order][rank < LAGS_COMPARED])
    pair, lag = code >> _LAG_BITS, (code & (1 << _LAG_BITS) - 1) - (1 << _LAG_BITS - 1)
    return pair // clips, pair % clips, lag


def _compared(
    frames: NDArray[np.uint32],
    starts: NDArray[np.int64],
    firsts: NDArray[np.int64],
    seconds: NDArray[np.int64],
    lags: NDArray[np.int64],
) -> Iterator[Match]:
    """The proposals whose bits agree over the whole overlap, a pair once."""
    best: Match | None = None
    for first, second, lag in zip(firsts.tolist(), seconds.tolist(), lags.tolist(), strict=True):
        one, other = frames[starts[first] : starts[first + 1]], frames[starts[second] : starts[second + 1]]
        tried = [(similarity(one, other, lag + near), lag + near) for near in (0, -1, 1)]
        share, at = max(tried, key=lambda each: each[0])
        if best is not None and (best.first, best.second) != (first, second):
            yield best
            best = None
        if share >= MIN_SIMILARITY and (best is None or share > best.similarity):
            best = Match(first, second, at * HOP / RATE, share)
    if best is not None:
        yield best


def similarity(one: NDArray[np.uint32], other: NDArray[np.uint32], lag: int) -> float:
    """Share of equal bits where two fingerprints overlap, the second `lag` frames after the first.

    0 where they overlap too little; frames void in either are left out.
    """
    shared = min(len(one) - max(lag, 0), len(other) - max(-lag, 0))
    if shared <= 0:
        return 0.0
    left, right = one[max(lag, 0) :][:shared], other[max(-lag, 0) :][:shared]
    valid = (left != VOID) & (right != VOID)
    count = np.count_nonzero(valid)
    shorter = min(np.count_nonzero(one), np.count_nonzero(other))
    wanted = max(
        MIN_OVERLAP_SHARE * shorter, min(MIN_OVERLAP_SECONDS * RATE / HOP, SHORT_OVERLAP_SHARE * shorter)
    )
    if count < max(1, wanted):
        return 0.0
    return 1 - int(np.bitwise_count((left ^ right)[valid]).sum()) / (32 * count)
