"""Figures of the corpus report: distributions, correlation and principal components of descriptors."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from genreflow.evaluation.figures import MARK, MUTED, TEXT, box_plots, plain, style_axes

MARKERS = "osD^vP*X<>"
GENRE_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9",
    "#D55E00", "#8A7A00", "#7F3C8D", "#6E7781", "#A52A2A",
)  # fmt: skip
"""Of genres in label order; with the markers, colour-blind readers can distinguish them."""
DRAWN_ROWS = 3000
"""Points of a scatter plot at most, drawn evenly from all."""


def distributions(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    genres: Sequence[str],
    names: Sequence[str],
    chosen: Sequence[int],
) -> Figure:
    """Box plots per genre of chosen descriptors of (n, descriptors) rows."""
    values = {
        names[number]: [features[labels == label, number] for label in range(len(genres))]
        for number in chosen
    }
    return box_plots(values, genres)


def correlation(matrix: NDArray[np.float64], names: Sequence[str]) -> Figure:
    """Correlations of descriptors (descriptors, descriptors) as a heat map."""
    figure = Figure(figsize=(10.2, 9.4), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    image = axes.imshow(matrix, cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest")
    words = [plain(name.replace("_", " ")) for name in names]
    axes.set_xticks(range(len(names)), words, rotation=90, fontsize=7.5)
    axes.set_yticks(range(len(names)), words, fontsize=7.5)
    style_axes(axes)
    axes.tick_params(labelsize=7.5)
    bar = figure.colorbar(image, ax=axes, fraction=0.035, pad=0.02)
    bar.set_label("correlation (Pearson)", color=TEXT)
    bar.ax.tick_params(colors=TEXT)
    bar.outline.set_visible(False)
    return figure


def components(
    points: NDArray[np.float64],
    labels: NDArray[np.int64],
    genres: Sequence[str],
    explained: NDArray[np.float64],
) -> Figure:
    """Rows on their first two principal components (n, 2), and how much variance components explain."""
    figure = Figure(figsize=(10.2, 5.2), layout="constrained")
    figure.patch.set_alpha(0)
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    step = max(1, -(-len(points) // DRAWN_ROWS))
    for label, genre in enumerate(genres):
        rows = np.flatnonzero(labels == label)[::step]
        left.scatter(
            points[rows, 0],
            points[rows, 1],
            s=26 if len(points) < DRAWN_ROWS else 14,
            marker=MARKERS[label % len(MARKERS)],
            color=GENRE_COLOURS[label % len(GENRE_COLOURS)],
            linewidths=0,
            alpha=0.75,
            label=plain(genre),
        )
    low, high = np.percentile(points, [0.5, 99.5], axis=0)
    margin = 0.1 * (high - low)
    left.set_xlim(low[0] - margin[0], high[0] + margin[0])
    left.set_ylim(low[1] - margin[1], high[1] + margin[1])
    left.set_xlabel(f"first component ({explained[0]:.0%} of the variance)".replace("%", " %"))
    left.set_ylabel(f"second component ({explained[1]:.0%})".replace("%", " %"))
    style_axes(left, "both")
    legend = figure.legend(loc="outside upper center", ncols=5, frameon=False, fontsize=10, markerscale=1.5)
    for text in legend.get_texts():
        text.set_color(TEXT)
    number = np.arange(1, len(explained) + 1)
    right.plot(number, np.cumsum(explained), color=MARK, linewidth=2)
    right.axhline(0.9, color=MUTED, linestyle="--", linewidth=1)
    right.text(len(explained), 0.88, "90 %", color=MUTED, ha="right", va="top", fontsize=9)
    right.set_ylim(0, 1.02)
    right.set_xlabel("principal components")
    right.set_ylabel("share of variance explained")
    style_axes(right, "both")
    return figure
