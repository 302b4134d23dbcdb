"""Accuracy against the seconds of audio that a prediction is made from, by a model's single windows.

For n windows, every run of n consecutive windows of a test clip is a prediction: the genre of the highest
mean probability, as a clip's is over all its windows. A clip counts by the share of its runs that are right.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genreflow.core.documents import Frozen
from genreflow.evaluation.document import Interval
from genreflow.evaluation.predictions import probability_columns
from genreflow.evaluation.uncertainty import wilson

CLIPS_WITH_ALL = 0.9
"""Share of the clips that have as many windows as the longest runs: all points are of the same clips."""
MOST_POINTS = 12


class SecondsHeard(Frozen):
    """One point of the curve."""

    seconds: float
    """From the first window's start to the last one's end."""
    windows: int
    clips: int
    accuracy: float
    """Mean over clips of the share of runs that are right."""
    accuracy_ci95: Interval
    """Wilson interval of that share over clips; those with the same recording count once."""


def seconds_heard(
    predictions: pd.DataFrame, genres: Sequence[str], window_seconds: float, clip_seconds: dict[str, float]
) -> tuple[SecondsHeard, ...]:
    """The curve of a model; a single point where a window holds a whole clip.

    Args:
        predictions: of `genreflow.evaluation.predictions.predict`.
        genres: in label order.
        window_seconds: of the model's input.
        clip_seconds: length of each clip by its id.
    """
    label = {genre: index for index, genre in enumerate(genres)}
    columns = probability_columns(genres)
    windows = predictions[predictions["level"] == "window"].sort_values(["clip_id", "window"])
    groups = [group for _, group in windows.groupby("clip_id", sort=True)]
    counts = np.array([len(group) for group in groups])
    longest = int(np.quantile(counts, 1 - CLIPS_WITH_ALL, method="lower"))
    chosen = [group for group, count in zip(groups, counts, strict=True) if count >= longest]
    clusters = {group["near_duplicate_cluster"].iloc[0] for group in chosen}
    found = []
    for number in _numbers(longest):
        shares, seconds = [], []
        for group in chosen:
            truth = label[group["genre"].iloc[0]]
            means = _means(group[columns].to_numpy(float), number)
            shares.append(float((means.argmax(axis=1) == truth).mean()))
            starts = group["start_seconds"].to_numpy(float)
            ends = np.minimum(starts + window_seconds, clip_seconds[group["clip_id"].iloc[0]])
            seconds.append(float(np.mean(ends[number - 1 :] - starts[: len(starts) - number + 1])))
        accuracy = float(np.mean(shares))
        found.append(
            SecondsHeard(
                seconds=float(np.median(seconds)),
                windows=number,
                clips=len(chosen),
                accuracy=accuracy,
                accuracy_ci95=wilson(accuracy * len(clusters), len(clusters)),
            )
        )
    return tuple(found)


def _numbers(longest: int) -> list[int]:
    """Numbers of windows from 1 to `longest`, at most `MOST_POINTS`, closer together where they are few."""
    if longest <= MOST_POINTS:
        return list(range(1, longest + 1))
    return sorted({int(number) for number in np.rint(np.geomspace(1, longest, MOST_POINTS))})


def _means(probabilities: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    """Mean of every run of `number` consecutive rows: (rows - number + 1, genres)."""
    sums = np.cumsum(np.concatenate([np.zeros((1, probabilities.shape[1])), probabilities]), axis=0)
    means: NDArray[np.float64] = (sums[number:] - sums[:-number]) / number
    return means
