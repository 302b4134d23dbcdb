"""Predictions for a clip and for a song, computed from the probabilities of its windows.

A clip's probabilities are the mean over its windows (beside them, the majority vote); a song's timeline is
the same windows in order.
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genreflow.audio import MAX_SECONDS
from genreflow.core.errors import SettingsError
from genreflow.inference.reliability import unsure_reason

MAX_TIMELINE_WINDOWS = 20_000
"""Windows of the longest timeline: an hour every 0.2 s."""


@dataclass(frozen=True)
class Classification:
    """The prediction for one clip."""

    genre: str
    confidence: float
    """The mean probability of `genre` over the windows."""
    probabilities: dict[str, float]
    vote: str
    """The genre predicted for most windows; of genres with equally many, the more probable one."""
    seconds: float
    windows: int
    reason: str | None
    """Why the prediction is not to be relied on (`silence`, low confidence, …); None where it is."""

    @property
    def unsure(self) -> bool:
        return self.reason is not None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, with `unsure`."""
        return {**asdict(self), "unsure": self.unsure}


class Segment(NamedTuple):
    """A part of a song with one predicted genre; times in seconds."""

    start: float
    end: float
    genre: str
    probability: float
    """The mean probability of `genre` over the segment's windows."""


@dataclass(frozen=True)
class Timeline:
    """A song's windows in order."""

    starts: NDArray[np.float64]
    """(windows,) seconds."""
    ends: NDArray[np.float64]
    """(windows,) seconds; the last is the song's end."""
    probabilities: NDArray[np.float32]
    """(windows, genres)."""
    genres: tuple[str, ...]

    def smoothed(self) -> NDArray[np.float32]:
        """(windows, genres): each window averaged with all windows that overlap its middle."""
        middles = (self.starts + self.ends) / 2
        # starts and ends both rise, so the windows that overlap a moment are consecutive
        first = np.searchsorted(self.ends, middles, side="left")
        past = np.searchsorted(self.starts, middles, side="right")
        sums = np.zeros((len(self.starts) + 1, len(self.genres)))
        sums[1:] = self.probabilities.cumsum(axis=0, dtype=np.float64)
        return ((sums[past] - sums[first]) / (past - first)[:, None]).astype(np.float32)

    def segments(self) -> list[Segment]:
        """Segments of one predicted genre, in order and without gaps, from the song's start to its end.

        Overlapping windows are averaged first; a boundary lies midway between the middles of the two windows
        that differ.
        """
        smoothed = self.smoothed()
        top = smoothed.argmax(axis=1)
        middles = (self.starts + self.ends) / 2
        changes = np.flatnonzero(np.diff(top)) + 1
        firsts = [0, *changes.tolist()]
        lasts = [*changes.tolist(), len(top)]
        bounds = [float(self.starts[0])]
        bounds += [float(middles[change - 1] + middles[change]) / 2 for change in changes]
        bounds.append(float(self.ends[-1]))
        return [
            Segment(
                bounds[run],
                bounds[run + 1],
                self.genres[top[first]],
                float(smoothed[first:last, top[first]].mean()),
            )
            for run, (first, last) in enumerate(zip(firsts, lasts, strict=True))
        ]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, segments included."""
        return {
            "genres": list(self.genres),
            "starts": self.starts.tolist(),
            "ends": self.ends.tolist(),
            "probabilities": self.probabilities.tolist(),
            "segments": [segment._asdict() for segment in self.segments()],
        }


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities along the last axis, without overflow."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)


def majority(probabilities: NDArray[np.float32]) -> int:
    """The class predicted for most windows (windows, classes); of equals, the one with the higher mean."""
    votes = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
    return int(np.lexsort((probabilities.mean(axis=0), votes))[-1])


def classify_windows(
    probabilities: NDArray[np.float32],
    genres: tuple[str, ...],
    samples: NDArray[np.float32],
    seconds: float,
) -> Classification:
    """The prediction for a clip.

    Args:
        probabilities: (windows, genres), of its windows.
        genres: label order.
        samples: (n,) the clip's waveform at the model's rate, to recognise what is no music.
        seconds: the clip's length.
    """
    mean = probabilities.mean(axis=0)
    top = int(mean.argmax())
    confidence = float(mean[top])
    return Classification(
        genre=genres[top],
        confidence=confidence,
        probabilities={genre: float(share) for genre, share in zip(genres, mean, strict=True)},
        vote=genres[majority(probabilities)],
        seconds=seconds,
        windows=len(probabilities),
        reason=unsure_reason(samples, confidence),
    )


def build_timeline(
    probabilities: NDArray[np.float32],
    starts: NDArray[np.float64],
    window_seconds: float,
    genres: tuple[str, ...],
    seconds: float,
) -> Timeline:
    """The timeline of a song of `seconds` from its windows' probabilities (windows, genres)."""
    ends = np.minimum(starts + window_seconds, seconds)
    ends[-1] = seconds  # a short rest gets no window of its own, but belongs to the song
    return Timeline(starts, ends, probabilities, genres)


def check_hop(hop_seconds: float | None, seconds: float = 0.0) -> None:
    """Refuse a hop that is not positive, or that cuts a song of `seconds` into too many windows.

    Raises:
        SettingsError: says what is wrong with it.
    """
    if hop_seconds is not None and not 0 < hop_seconds <= MAX_SECONDS:
        raise SettingsError(
            f"A timeline's hop is more than 0 and at most {MAX_SECONDS:g} seconds, not {hop_seconds:g}."
        )
    if hop_seconds and seconds / hop_seconds > MAX_TIMELINE_WINDOWS:
        raise SettingsError(
            f"A hop of {hop_seconds:g} s cuts {seconds:.0f} s of music into more than {MAX_TIMELINE_WINDOWS} "
            "windows; use a longer one."
        )
