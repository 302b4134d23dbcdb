"""How far a figure can be trusted: Wilson's interval for shares, the bootstrap over clips for the rest."""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-9
"""Sums of fractional counts may miss a whole number by this much."""
RESAMPLES = 2000
SEED = 20020715
"""Fixed, so that the same predictions give the same interval."""
RESAMPLES_AT_ONCE = 250


def wilson(successes: float, trials: float, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927): inside [0, 1], sensible at 0 % and 100 % and for few trials.

    Both counts may be fractional, for clips that share a recording.

    Raises:
        ValueError: there are no trials, or more successes than trials.
    """
    if trials <= 0 or not -ROUNDING <= successes <= trials + ROUNDING:
        raise ValueError(
            f"A share needs 0 <= successes <= trials and trials > 0, not {successes} of {trials}."
        )
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = min(1.0, max(0.0, successes / trials))
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def accuracy_interval(correct: NDArray[np.bool_], clusters: Sequence[str]) -> tuple[float, float]:
    """Wilson's interval around the accuracy of (n,) answers, as wide as for that many *different* clips.

    Clips of one cluster hold the same recording and get much the same answer: counting each as evidence would
    flatter.
    """
    distinct = len(set(clusters))
    return wilson(float(np.mean(correct)) * distinct, distinct)


def bootstrap_confusion(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    truth: NDArray[np.int64],
    answers: NDArray[np.int64],
    genres: int,
    clusters: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float]:
    """95 % percentile bootstrap of a statistic of the confusion matrix, drawing whole duplicate clusters.

    Args:
        statistic: (resamples, genres, genres) counts, rows true → (resamples,).
        truth: (n,) label ids; `answers`: (n,) label ids; `clusters`: n names of duplicate clusters.
    """
    names, members = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    counts = np.zeros((len(names), genres * genres))
    np.add.at(counts, (members, truth * genres + answers), 1.0)
    rng = np.random.default_rng(seed)
    values: list[NDArray[np.float64]] = []
    even = np.full(len(names), 1 / len(names))
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        # How often each cluster is drawn, instead of the draws: one matrix product makes all the confusions.
        drawn = rng.multinomial(len(names), even, size=min(RESAMPLES_AT_ONCE, resamples - start))
        values.append(statistic((drawn @ counts).reshape(-1, genres, genres)))
    low, high = np.quantile(np.concatenate(values), [0.025, 0.975])
    return float(low), float(high)
