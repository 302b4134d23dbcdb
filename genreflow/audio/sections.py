"""Blocks of decoded audio, mixed to mono and joined to one waveform; out-of-phase stereo."""

from collections.abc import Mapping

import numpy as np
import soxr
from numpy.typing import NDArray

from genreflow.audio.limits import Bounds, check_rate
from genreflow.audio.windows import RESAMPLING_QUALITY

Block = NDArray[np.float32]
"""(frames, channels)."""

CANCELLED_SHARE = 0.2
"""Of what uncorrelated channels leave in their mean: where less is left, they cancel each other out.

The mean of C uncorrelated channels of equal energy, or of C channels of which one plays, has 1/C of the
channels' mean energy; for stereo the threshold is a tenth. Music that is panned, decorrelated or recorded by
spaced microphones lies above it (see tests/audio/test_out_of_phase.py).
"""
MAX_MEASURED_CHANNELS = 8
"""Of more, no layout of one recording is known."""
PIECE_SAMPLES = 1 << 22
"""Blocks are joined to pieces of so many: the allocator gives large pieces back to the system when they are
freed, and keeps small ones, so that joining a long file would take its memory twice."""


class Section:
    """A part of a file with one sample rate and number of channels, as mono blocks at `to_rate` Hz."""

    def __init__(self, rate: int, to_rate: int, channels: int, channel: int | None) -> None:
        self.rate, self.channels = rate, channels
        self.blocks: list[NDArray[np.float32]] = []
        self.frames = 0
        """Of the file."""
        self._to_rate, self._resampled = to_rate, 0
        self._loose = 0
        self._stream = (
            None
            if rate == to_rate
            else soxr.ResampleStream(rate, to_rate, 1, dtype="float32", quality=RESAMPLING_QUALITY)
        )
        self._channel = channel
        self._sums = np.zeros(channels + 1)
        self._squares = np.zeros(channels + 1)

    def add(self, block: Block) -> None:
        """Keep the mean of a block's channels, or the one channel that was chosen."""
        self.frames += len(block)
        if self.channels == 1:
            self._keep(block[:, 0])
            return
        if self._channel is not None:
            self._keep(np.ascontiguousarray(block[:, self._channel]))
            return
        if self.channels > MAX_MEASURED_CHANNELS:
            self._keep(block.mean(axis=1, dtype=np.float32))
            return
        # column by column: NumPy's reductions over a short last axis take ten times as long
        columns = block.T
        with np.errstate(over="ignore", invalid="ignore"):  # of what is not finite, which is rejected later
            mono = columns[0] + columns[1]
            for column in columns[2:]:
                mono += column
            mono /= np.float32(self.channels)
            for number, column in enumerate((*columns, mono)):
                self._sums[number] += column.sum()
                self._squares[number] += np.dot(column, column)
        self._keep(mono)

    def end(self) -> None:
        """Take what the resampler still holds; its length is then that of `windows.resample`."""
        if self._stream is None:
            return
        self._keep(np.zeros(0, np.float32), last=True)
        self._stream = None
        missing = round(self.frames * self._to_rate / self.rate) - self._resampled
        if missing > 0:
            self.blocks.append(np.zeros(missing, np.float32))
        while missing < 0:
            last = self.blocks.pop()
            kept = last[: max(0, len(last) + missing)]
            missing += len(last) - len(kept)
            if len(kept):
                self.blocks.append(kept)

    def _keep(self, mono: NDArray[np.float32], last: bool = False) -> None:
        if self._stream is not None:
            mono = self._stream.resample_chunk(np.ascontiguousarray(mono), last=last)
            self._resampled += len(mono)
        self.blocks.append(mono)
        self._loose += len(mono)
        if self._loose >= PIECE_SAMPLES:
            loose: list[NDArray[np.float32]] = []
            while self._loose:
                loose.append(self.blocks.pop())
                self._loose -= len(loose[-1])
            self.blocks.append(np.concatenate(loose[::-1]))

    def loudest_if_cancelled(self) -> int | None:
        """The channel of most energy, where the channels cancel each other out in their mean; else None.

        Energy is the variance: a constant offset, which may be equal in all channels, is no sound.
        """
        if self._channel is not None or not self._squares.any():
            return None
        with np.errstate(invalid="ignore"):
            energy = self._squares / self.frames - (self._sums / self.frames) ** 2
        *channels, mixed = energy
        cancelled = mixed < CANCELLED_SHARE / self.channels * np.mean(channels)
        return int(np.argmax(channels)) if cancelled else None


class Sections:
    """What readers decode into: a new section wherever the sample rate or the number of channels changes.

    Args:
        name: what errors call the file.
        rate: of the joined samples, in Hz; the first section's where None.
        chosen: the channel to take of a section, by the section's number; else the mean of all.
    """

    def __init__(
        self,
        name: str,
        bounds: Bounds,
        rate: int | None = None,
        chosen: Mapping[int, int] | None = None,
    ) -> None:
        self.all: list[Section] = []
        self.rate = rate
        self._name, self._bounds = name, bounds
        self._chosen = chosen or {}
        self._seconds_before = 0.0
        self._new = True

    def begin(self) -> None:
        """The next block belongs to another recording."""
        self._new = True

    def add(self, block: Block, rate: int) -> None:
        """Append a block (frames, channels).

        Raises:
            AudioError: `reason` is `too-long`, `too-slow` or `sample-rate`.
        """
        channels = block.shape[1]
        last = self.all[-1] if self.all else None
        if last is None or self._new or (last.rate, last.channels) != (rate, channels):
            check_rate(rate, self._name)
            if last is not None:
                self._seconds_before += last.frames / last.rate
                last.end()
            self.rate = self.rate or rate
            last = Section(rate, self.rate, channels, self._chosen.get(len(self.all)))
            self.all.append(last)
            self._new = False
        last.add(block)
        self._bounds.check(int(self._seconds_before * rate) + last.frames, rate, self._name)

    def check_declared(self, seconds: float, rate: int) -> None:
        """Reject a recording that is too long by its own header, before it is decoded.

        Raises:
            AudioError: `reason` is `too-long`.
        """
        self._bounds.check(int(seconds * rate), rate, self._name)

    def cancelled(self) -> dict[int, int]:
        """The loudest channel of each section whose channels cancel each other out, by its number."""
        found = ((number, section.loudest_if_cancelled()) for number, section in enumerate(self.all))
        return {number: channel for number, channel in found if channel is not None}

    def joined(self) -> NDArray[np.float32]:
        """All samples (n,) at `rate` Hz. Blocks are freed one by one: a long file is in memory once."""
        blocks: list[NDArray[np.float32]] = []
        for section in self.all:
            section.end()
            blocks += section.blocks
            section.blocks = []
        if len(blocks) == 1:
            return np.ascontiguousarray(blocks[0])
        samples = np.empty(sum(map(len, blocks)), np.float32)
        end = len(samples)
        while blocks:
            block = blocks.pop()
            samples[end - len(block) : end] = block
            end -= len(block)
        return samples
