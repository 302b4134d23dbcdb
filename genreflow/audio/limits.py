"""Bounds of one file: sample rates, length, memory and time."""

import time
from dataclasses import dataclass

from genreflow.core.errors import AudioError

MIN_SAMPLE_RATE = 2_000
MAX_SAMPLE_RATE = 768_000

MAX_SECONDS = 2 * 3600.0
"""Longer files are rejected: a clip or a song is meant, not a day of radio."""
MAX_SAMPLES = int(MAX_SECONDS) * 48_000
"""Bounds the memory of one decoded file: 1.4 GB of mono float32."""

BLOCK_SAMPLES = 1 << 18
"""Samples of all channels decoded at once: only the mono mix of a file is ever whole in memory."""

INTACT_SHARE = 0.99
"""A file that holds less than this share of what its own header or index declares is truncated."""


@dataclass(frozen=True)
class Bounds:
    """Bounds of one decoded file."""

    seconds: float
    """Of audio."""
    until: float | None
    """On the monotonic clock, when decoding ends with an error."""

    def frames(self, rate: int) -> int:
        """The largest number of frames at `rate` Hz."""
        return min(int(self.seconds * rate), MAX_SAMPLES)

    def check(self, frames: int, rate: int, name: str) -> None:
        """Reject a file of so many frames at `rate` Hz, or one that has taken too long to get there.

        Raises:
            AudioError: `reason` is `too-long` or `too-slow`.
        """
        most = self.frames(rate)
        if frames > most:
            raise AudioError(
                f"{name} is too long: more than {most / rate:.0f} s at {rate} Hz is not decoded; "
                "cut it first.",
                "too-long",
            )
        if self.until is not None and time.monotonic() > self.until:
            raise AudioError(
                f"{name} takes too long to decode: stopped after {frames / rate:.0f} s of audio; "
                "convert it to wav, flac or mp3 first.",
                "too-slow",
            )


def check_rate(rate: int, name: str) -> None:
    """Reject sample rates that no recorder writes.

    Raises:
        AudioError: `reason` is `sample-rate`.
    """
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"{name} has a sample rate of {rate} Hz; "
            f"between {MIN_SAMPLE_RATE} and {MAX_SAMPLE_RATE} is understood.",
            "sample-rate",
        )


def check_declared(declared: float, held: float, what: str, name: str) -> None:
    """Reject a file that holds clearly less than its own header or index declares; `what` is the unit.

    Raises:
        AudioError: `reason` is `truncated`.
    """
    if held < declared * INTACT_SHARE:
        digits = 1 if what == "s" else 0
        raise AudioError(
            f"{name} is truncated: its header claims {declared:.{digits}f} {what} of audio, "
            f"it holds {max(0, held):.{digits}f}.",
            "truncated",
        )
