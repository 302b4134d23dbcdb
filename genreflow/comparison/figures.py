"""The figures of a comparison, each a function from the leaderboard to a matplotlib `Figure`."""

from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from genreflow.comparison.agreement import Agreement
from genreflow.comparison.leaderboard import ComparisonDocument, LeaderboardRow
from genreflow.evaluation.figures import (
    COLOURS,
    GREEN,
    MARK,
    MUTED,
    ORANGE,
    SECOND,
    TEXT,
    legend,
    plain,
    single,
    style_axes,
)

PURPLE, YELLOW, SKY = "#CC79A7", "#B8A800", "#56B4E9"
SERIES = (MARK, SECOND, GREEN, ORANGE, PURPLE, SKY, YELLOW, MUTED)
"""Okabe and Ito's colours, their yellow darker for white pages; a marker of its own goes with each."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def accuracy_against_size(document: ComparisonDocument) -> Figure:
    """Test accuracy with its interval against the bytes that are served."""
    figure = _scatter(document.rows, lambda row: row.served_bytes / 1e6)
    figure.axes[0].set_xlabel("served files in MB (logarithmic)")
    return figure


def accuracy_against_latency(document: ComparisonDocument) -> Figure:
    """Test accuracy with its interval against the milliseconds for 30 s of audio."""
    figure = _scatter(document.rows, lambda row: row.latency_30s_ms)
    figure.axes[0].set_xlabel("ms for 30 s of audio, from samples to genre (logarithmic)")
    return figure


def _scatter(rows: Sequence[LeaderboardRow], value: Callable[[LeaderboardRow], float]) -> Figure:
    figure, axes = single(5.6, 3.9)
    for at, row in enumerate(rows):
        low, high = row.test.accuracy_ci95
        axes.errorbar(
            value(row),
            row.test.accuracy,
            yerr=[[row.test.accuracy - low], [high - row.test.accuracy]],
            fmt=MARKERS[at % len(MARKERS)],
            color=SERIES[at % len(SERIES)],
            markersize=8,
            elinewidth=1.3,
            capsize=3,
            label=plain(row.name),
        )
    axes.set_xscale("log")
    _plain_logarithm(axes, [value(row) for row in rows])
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("test accuracy, 95 % interval")
    style_axes(axes, grid="both")
    legend(figure)
    return figure


def _plain_logarithm(axes: Axes, values: Sequence[float]) -> None:
    """Ticks at 1, 2, 5 times powers of ten, in plain numbers, a little beyond the values."""
    low, high = min(values) / 1.6, max(values) * 1.6
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = (1, 2, 5) if high / low < 300 else (1,)
    ticks = [step * 10.0**power for power in powers for step in steps]
    axes.set_xlim(low, high)
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def accuracy_against_seconds(document: ComparisonDocument) -> Figure:
    """Test accuracy against the seconds of audio that a prediction is made from, with 95 % intervals."""
    figure, axes = single(6.4, 4.3)
    for at, row in enumerate(document.rows):
        points = row.seconds_heard
        seconds = [point.seconds for point in points]
        accuracy = [point.accuracy for point in points]
        colour, marker = SERIES[at % len(SERIES)], MARKERS[at % len(MARKERS)]
        low, high = zip(*(point.accuracy_ci95 for point in points), strict=True)
        if len(points) > 1:
            axes.fill_between(seconds, low, high, color=colour, alpha=0.12, linewidth=0)
        else:
            axes.plot([seconds[0]] * 2, [low[0], high[0]], color=colour, linewidth=1.3)
        axes.plot(seconds, accuracy, marker=marker, color=colour, markersize=6, label=plain(row.name))
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds of audio per prediction")
    axes.set_ylabel("test accuracy, 95 % interval")
    style_axes(axes, grid="both")
    legend(figure)
    return figure


def agreement(found: Agreement) -> Figure:
    """Share of test clips with the same predicted genre, for every pair of candidates."""
    size = len(found.names)
    figure, axes = single(2.6 + 0.75 * size, 1.7 + 0.6 * size)
    shares = np.asarray(found.same)
    colours = mpl.colormaps[COLOURS]
    image = axes.imshow(shares, cmap=colours, vmin=0, vmax=1, aspect="auto")
    for row in range(size):
        for column in range(size):
            red, green, blue, _ = colours(shares[row, column])
            bright = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.18
            axes.text(
                column,
                row,
                f"{shares[row, column]:.2f}",
                ha="center",
                va="center",
                color="#111111" if bright else "#ffffff",
                fontsize=10,
            )
    names = [plain(name) for name in found.names]
    axes.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), names)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.03)
    bar.set_label("share of test clips", color=TEXT)
    bar.ax.tick_params(colors=TEXT)
    bar.outline.set_visible(False)
    return figure
