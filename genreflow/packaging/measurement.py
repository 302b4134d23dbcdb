"""Parity and latency of one runtime in one precision, measured on real windows."""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from genreflow.core.documents import RuntimeReport
from genreflow.core.errors import one_line
from genreflow.inference.classifier import Classifier
from genreflow.inference.parity import PARITY, Precision

LATENCY_REPEATS = 15
LATENCY_WARM_UP = 2
LATENCY_SECONDS = 20.0
"""No more time than this goes into one runtime's latency, however slow the model."""


def measure(
    load: Callable[[], Classifier],
    name: str,
    precision: Precision,
    inputs: NDArray[np.float32],
    expected: NDArray[np.float32],
) -> RuntimeReport:
    """Parity and latency of one runtime on real windows; unusable, with its reason, where it fails.

    Args:
        inputs: (n, *input shape) real windows.
        expected: (n, genres) probabilities of the trained weights in fp32.
    """
    try:
        classifier = load()
        probabilities = classifier.probabilities(classifier.logits(inputs))
        p50, p95 = latency(classifier, inputs)
    except Exception as error:  # a runtime that fails is not served; the others are
        return unusable(name, precision, one_line(error, first=True))
    difference = float(np.nan_to_num(np.abs(probabilities - expected), nan=1.0).max())
    agreement = float((probabilities.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return RuntimeReport(
        name=name,
        precision=precision,
        usable=parity_problem(precision, difference, agreement) is None,
        reason=parity_problem(precision, difference, agreement),
        max_probability_difference=difference,
        decision_agreement=agreement,
        latency_ms_p50=p50,
        latency_ms_p95=p95,
    )


def parity_problem(precision: Precision, difference: float, agreement: float) -> str | None:
    """Why predictions that far from fp32 are not served, or None where they are near enough."""
    allowed = PARITY[precision]
    if difference > allowed.probability_difference:
        return (
            f"its probabilities differ from those in fp32 by up to {difference:.4f}; at most "
            f"{allowed.probability_difference:g} is served"
        )
    if agreement < allowed.decision_agreement:
        return (
            f"it decides as fp32 does on {agreement:.1%} of the windows; at least "
            f"{allowed.decision_agreement:.0%} is served"
        )
    return None


def unusable(name: str, precision: Precision, reason: str) -> RuntimeReport:
    """The report of a runtime that does not run here."""
    return RuntimeReport(
        name=name,
        precision=precision,
        usable=False,
        reason=reason,
        max_probability_difference=1.0,
        decision_agreement=0.0,
        latency_ms_p50=0.0,
        latency_ms_p95=0.0,
    )


def latency(
    classifier: Classifier, inputs: NDArray[np.float32], repeats: int = LATENCY_REPEATS
) -> tuple[float, float]:
    """Milliseconds for one window, model only: median and 95th percentile of up to `repeats`."""
    began = time.perf_counter()
    for repeat in range(LATENCY_WARM_UP):
        classifier.logits(inputs[repeat % len(inputs)][None])
    times: list[float] = []
    while len(times) < repeats and (not times or time.perf_counter() - began < LATENCY_SECONDS):
        window = inputs[len(times) % len(inputs)][None]
        start = time.perf_counter()
        classifier.logits(window)
        times.append((time.perf_counter() - start) * 1e3)
    p50, p95 = np.percentile(times, [50, 95])
    return float(p50), float(p95)
