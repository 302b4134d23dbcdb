"""Uncertainty of figures: intervals of shares and their differences, the bootstrap for the rest."""

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


def paired_interval(
    first: NDArray[np.float64], second: NDArray[np.float64], confidence: float, different: int | None = None
) -> tuple[float, float]:
    """Interval of the difference of two shares measured on the same units.

    Newcombe's method 10 (Statistics in Medicine 17, 1998, 2635-2650): Wilson intervals of the two shares,
    squared and added with their correlation. Exactly antisymmetric in its two inputs.

    Args:
        first: (n,) in [0, 1], 1 where the first model is right.
        second: (n,) the same for the second model.
        confidence: 0.95 for a 95 % interval.
        different: how many of the n hold different recordings, all where None: as `accuracy_interval`.
    """
    n = len(first) if different is None else different
    weight = n / len(first)
    a, b = weight * float((first * second).sum()), weight * float((first * (1 - second)).sum())
    c, d = weight * float(((1 - first) * second).sum()), weight * float(((1 - first) * (1 - second)).sum())
    p, q = (a + b) / n, (a + c) / n
    p_low, p_high = wilson(a + b, n, confidence)
    q_low, q_high = wilson(a + c, n, confidence)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    # Newcombe's correction: a positive association is only believed beyond half an observation.
    association = a * d - b * c
    association = max(association - n / 2, 0.0) if association > 0 else association
    phi = association / math.sqrt(margins) if margins > 0 else 0.0
    below, above = p - p_low, q_high - q
    low = p - q - math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    below, above = p_high - p, q - q_low
    high = p - q + math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    return max(-1.0, low), min(1.0, high)


def binomial_tail(trials: int, successes: float, share: float) -> float:
    """Probability of `successes` (rounded down) or more in `trials` of success probability `share`; exact."""
    from scipy.stats import binom

    return float(binom.sf(math.floor(successes + ROUNDING) - 1, trials, share))


def accuracy_interval(correct: NDArray[np.bool_], clusters: Sequence[str]) -> tuple[float, float]:
    """Wilson's interval around the accuracy of (n,) answers, as wide as for that many *different* clips.

    Clips of one cluster hold the same recording and get much the same answer: counting each as evidence would
    be too optimistic.
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
