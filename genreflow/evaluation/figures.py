"""The figures of a report, each a function from numbers to a matplotlib `Figure`, on a transparent ground.

No pyplot: nothing global. Colours are Okabe and Ito's and viridis, which are safe for colour-blind readers.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from genreflow.audio import resample
from genreflow.evaluation.document import Calibration, Confusion, GenreScores, Interval
from genreflow.evaluation.exploration import Exploration, TypicalClip
from genreflow.evaluation.uncertainty import wilson
from genreflow.features.spectral import mel_decibels, power_spectrogram

BLUE, ORANGE, GREEN, VERMILLION, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"
"""Okabe and Ito, Color Universal Design (2008)."""
COLOURS = "viridis"
PLOT_DPI = 140
MEL_RATE = 16_000
"""Spectrograms of all clips are shown up to 8 kHz, whatever their rate, so that they compare."""
MEL_BANDS = 64
MEL_HOP = 1024
UNITS = {"centroid": "Hz", "bandwidth": "Hz", "rolloff": "Hz"}
"""Of descriptors whose names contain the word; the others are plain numbers."""
SHOWN_DB = 70
"""Below the loudest cell."""


TEXT, MUTED, GRID = "#1c2128", "#57606a", "#d0d7de"
MARK, SECOND = BLUE, VERMILLION
DARK = {TEXT: "#e6edf3", MUTED: "#9aa4af", GRID: "#3d444d", MARK: SKY, SECOND: ORANGE}
"""What each colour of the page becomes on a dark one; colours of data inside a heat map stay."""


def plain(text: object) -> str:
    """Text that matplotlib shows as it stands: a dollar sign begins no formula."""
    return str(text).replace("$", r"\$")


def confusion(found: Confusion) -> Figure:
    """Clips per true and predicted genre; the colour is the share of the true genre's clips."""
    counts = np.asarray(found.matrix, float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = len(found.genres)
    figure, axes = single(1.9 + 0.52 * size, 1.5 + 0.46 * size)
    colours = mpl.colormaps[COLOURS]
    # Empty cells stay empty: what is confused stands out, on light and dark pages alike.
    image = axes.imshow(np.ma.masked_equal(shares, 0), cmap=colours, vmin=0, vmax=1, aspect="auto")
    for row in range(size):
        for column in range(size):
            if counts[row, column]:
                red, green, blue, _ = colours(shares[row, column])
                bright = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.18
                axes.text(
                    column,
                    row,
                    f"{int(counts[row, column])}",
                    ha="center",
                    va="center",
                    color="#111111" if bright else "#ffffff",
                    fontsize=10,
                    fontweight="bold" if row == column else "normal",
                )
    labels = [plain(genre) for genre in found.genres]
    axes.set_xticks(range(size), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), labels)
    axes.set_xlabel("answered genre")
    axes.set_ylabel("true genre")
    axes.set_xticks(np.arange(-0.5, size), minor=True)
    axes.set_yticks(np.arange(-0.5, size), minor=True)
    axes.grid(which="minor", color="#808890", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.03)
    bar.set_label("share of the true genre's clips", color=TEXT)
    bar.ax.tick_params(colors=TEXT)
    bar.outline.set_visible(False)
    return figure


def calibration(found: Calibration) -> Figure:
    """Accuracy against confidence with 95 % intervals, and below it how many clips are how sure."""
    figure = Figure(figsize=(5.4, 5.2), layout="constrained")
    figure.patch.set_alpha(0)
    grid = figure.add_gridspec(2, 1, height_ratios=(3, 1), hspace=0.06)
    upper = figure.add_subplot(grid[0])
    lower = figure.add_subplot(grid[1], sharex=upper)
    filled = [entry for entry in found.bins if entry.confidence is not None and entry.accuracy is not None]
    upper.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1, label="perfectly calibrated")
    x = np.array([entry.confidence for entry in filled], float)
    y = np.array([entry.accuracy for entry in filled], float)
    ends = np.array([wilson(round((e.accuracy or 0) * e.count), e.count) for e in filled]).reshape(-1, 2)
    upper.errorbar(
        x,
        y,
        yerr=np.abs(np.stack([y - ends[:, 0], ends[:, 1] - y])),
        fmt="o",
        markersize=6,
        color=MARK,
        ecolor=MARK,
        elinewidth=1.2,
        capsize=2,
        label="clips of one bin, 95 % interval",
    )
    upper.set_ylim(-0.03, 1.03)
    upper.set_xlim(0, 1.02)
    upper.set_ylabel("share of correct predictions")
    upper.tick_params(labelbottom=False)
    lower.bar(
        [entry.lower for entry in found.bins],
        [entry.count for entry in found.bins],
        width=1 / len(found.bins),
        align="edge",
        color=MARK,
        edgecolor=GRID,
        linewidth=0.5,
    )
    lower.set_ylabel("clips")
    lower.yaxis.get_major_locator().set_params(integer=True, nbins=4)  # type: ignore[call-arg]
    lower.set_xlabel("confidence (highest probability)")
    for axes in (upper, lower):
        style_axes(axes, grid="both")
    legend(figure)
    return figure


def per_genre(scores: dict[str, GenreScores]) -> Figure:
    """Recall with its 95 % interval and precision of every genre, the best found first."""
    known = [(genre, entry) for genre, entry in scores.items() if entry.recall is not None]
    known.sort(key=lambda pair: (pair[1].recall or 0, pair[1].f1 or 0))
    figure, axes = single(5.3, 1.3 + 0.34 * max(len(known), 1))
    for place, (_, entry) in enumerate(known):
        assert entry.recall is not None
        assert entry.recall_ci95 is not None
        low, high = entry.recall_ci95
        axes.plot([low, high], [place, place], color=MARK, linewidth=2.2, alpha=0.6, zorder=2)
        axes.plot(entry.recall, place, "o", color=MARK, markersize=8, zorder=4)
        if entry.precision is not None:
            axes.plot(
                entry.precision,
                place,
                "D",
                markerfacecolor="none",
                markeredgecolor=SECOND,
                markeredgewidth=1.8,
                markersize=8,
                zorder=5,
            )
    axes.plot([], [], "o-", color=MARK, label="recall, 95 % interval", linewidth=2.2)
    axes.plot(
        [],
        [],
        "D",
        markerfacecolor="none",
        markeredgecolor=SECOND,
        markeredgewidth=1.8,
        label="precision",
        linestyle="none",
    )
    axes.set_yticks(range(len(known)), [f"{plain(genre)} ({entry.support} clips)" for genre, entry in known])
    axes.set_xlim(-0.03, 1.04)
    axes.set_ylim(-0.6, len(known) - 0.4)
    axes.set_xlabel("share of clips")
    style_axes(axes, grid="x")
    legend(figure)
    return figure


def accuracy_by_condition(
    names: Sequence[str],
    groups: Sequence[str],
    accuracies: Sequence[float],
    intervals: Sequence[Interval],
    confidences: Sequence[float],
) -> Figure:
    """Accuracy with its 95 % interval and mean confidence of every condition, the first on top as a baseline.

    Args:
        groups: of each condition; a line separates neighbours of different groups.
    """
    figure, axes = single(6.4, 1.4 + 0.3 * len(names))
    low, high = intervals[0]
    axes.axvspan(low, high, color=MARK, alpha=0.08, linewidth=0, zorder=0)
    axes.axvline(accuracies[0], color=MARK, linewidth=1, linestyle="--", zorder=1)
    places = np.arange(len(names))[::-1]
    for place, accuracy, (low, high), confidence in zip(
        places, accuracies, intervals, confidences, strict=True
    ):
        axes.plot([low, high], [place, place], color=MARK, linewidth=2.2, alpha=0.6, zorder=2)
        axes.plot(accuracy, place, "o", color=MARK, markersize=7, zorder=4)
        axes.plot(
            confidence,
            place,
            "D",
            markerfacecolor="none",
            markeredgecolor=SECOND,
            markeredgewidth=1.6,
            markersize=7,
            zorder=5,
        )
    for upper in range(1, len(names)):
        if groups[upper] != groups[upper - 1]:
            axes.axhline(places[upper] + 0.5, color=GRID, linewidth=0.8, zorder=0)
    axes.plot([], [], "o-", color=MARK, linewidth=2.2, label="accuracy, 95 % interval")
    axes.plot(
        [],
        [],
        "D",
        markerfacecolor="none",
        markeredgecolor=SECOND,
        markeredgewidth=1.6,
        linestyle="none",
        label="mean confidence",
    )
    axes.set_yticks(places, [plain(name) for name in names])
    axes.set_xlim(-0.03, 1.04)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("share of clips; confidence")
    style_axes(axes, grid="x")
    legend(figure)
    return figure


def loudness(explored: Exploration) -> Figure:
    """Box plots of the clips' level per genre."""
    figure, axes = single(5.3, 1.1 + 0.32 * len(explored.genres))
    _boxes(axes, [explored.loudness[genre] for genre in explored.genres], explored.genres)
    axes.set_xlabel("level of a clip in dB of full scale (RMS)")
    return figure


def descriptors(explored: Exploration) -> Figure:
    """Box plots per genre of the descriptors that separate genres best."""
    table = explored.descriptors
    values = {
        name: [table.loc[table["genre"] == genre, name].to_numpy(float) for genre in explored.genres]
        for name in explored.separation
    }
    return box_plots(values, explored.genres)


def box_plots(values: Mapping[str, Sequence[Any]], genres: Sequence[str]) -> Figure:
    """Of each descriptor its values per genre, three plots a row."""
    columns = min(3, len(values))
    rows = -(-len(values) // columns)
    size = (1.2 + 2.9 * columns, rows * (0.9 + 0.24 * len(genres)))
    figure = Figure(figsize=size, layout="constrained")
    figure.patch.set_alpha(0)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, (axes, (name, groups)) in enumerate(zip(grid, values.items(), strict=False)):
        _boxes(axes, groups, genres)
        axes.set_xlabel(plain(with_unit(name)), fontsize=10.5)
        axes.tick_params(labelleft=place % columns == 0)
        axes.xaxis.get_major_locator().set_params(nbins=4)
    for axes in grid[len(values) :]:
        axes.set_visible(False)
    return figure


def with_unit(descriptor: str) -> str:
    """A descriptor's name in words, with its unit where it has one."""
    if descriptor == "tempo":
        return "tempo in beats a minute"
    unit = next((unit for part, unit in UNITS.items() if part in descriptor), None)
    words = descriptor.replace("_", " ")
    return words if unit is None or descriptor.endswith("_var") else f"{words} in {unit}"


def typical(clip: TypicalClip) -> Figure:
    """Waveform over mel spectrogram of one clip."""
    figure = Figure(figsize=(3.9, 2.7))
    figure.patch.set_alpha(0)
    # Fixed margins: finding them costs as much as drawing, ten times over.
    margins = {"left": 0.14, "right": 0.96, "bottom": 0.17, "top": 0.97, "hspace": 0.16}
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2), gridspec_kw=margins)
    _waveform(upper, clip)
    _spectrogram(lower, clip)
    upper.tick_params(labelbottom=False)
    lower.set_xlabel("seconds")
    lower.set_ylabel("kHz (mel)")
    upper.set_ylabel("level")
    return figure


def genres_overview(explored: Exploration) -> Figure:
    """Waveform and mel spectrogram of every genre's typical clip, one genre a row."""
    genres = explored.genres
    figure = Figure(figsize=(11, 0.8 + 1.25 * len(genres)), layout="constrained")
    figure.patch.set_alpha(0)
    grid = figure.subplots(len(genres), 2, squeeze=False, width_ratios=(1, 1.4))
    for (left, right), genre in zip(grid, genres, strict=True):
        clip = explored.typical[genre]
        _waveform(left, clip)
        _spectrogram(right, clip)
        left.set_ylabel(plain(genre), rotation=0, ha="right", va="center", fontsize=11)
        right.set_ylabel("kHz (mel)", fontsize=8)
        if genre != genres[-1]:
            left.tick_params(labelbottom=False)
            right.tick_params(labelbottom=False)
    grid[0, 0].set_title("waveform of the clip of median loudness", color=TEXT, fontsize=11)
    grid[0, 1].set_title(f"mel spectrogram, {SHOWN_DB} dB range", color=TEXT, fontsize=11)
    for axes in grid[-1]:
        axes.set_xlabel("seconds")
    return figure


def svg(figure: Figure) -> str:
    """The figure as an SVG document on a transparent ground, for a light page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return buffer.getvalue()


def dark(drawing: str) -> str:
    """`svg`'s document for a dark page: drawing anew would take as long again."""
    for light, replacement in DARK.items():
        drawing = drawing.replace(light.lower(), replacement.lower())
    return drawing


def write_png(figure: Figure, path: Path) -> None:
    """Write the figure as PNG on white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=PLOT_DPI, facecolor="white")


def single(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one set of axes, on a transparent ground; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    style_axes(axes)
    return figure, axes


def style_axes(axes: Axes, grid: Literal["x", "y", "both"] | None = None) -> None:
    """Colours and lines as on all figures of the reports."""
    axes.patch.set_alpha(0)
    axes.tick_params(colors=TEXT, labelsize=10)
    axes.xaxis.label.set_color(TEXT)
    axes.yaxis.label.set_color(TEXT)
    for side, spine in axes.spines.items():
        spine.set_color(GRID)
        spine.set_visible(side in ("left", "bottom"))
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)


def legend(figure: Figure) -> None:
    """The legend above the axes."""
    drawn = figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9.5)
    for text in drawn.get_texts():
        text.set_color(TEXT)


def _boxes(axes: Axes, values: Sequence[Any], genres: Sequence[str]) -> None:
    line = {"color": MARK, "linewidth": 1.2}
    axes.boxplot(
        values,
        orientation="horizontal",
        widths=0.6,
        tick_labels=[plain(genre) for genre in genres],
        boxprops=line,
        whiskerprops=line,
        capprops=line,
        medianprops={"color": SECOND, "linewidth": 2},
        flierprops={"marker": ".", "markersize": 4, "markeredgecolor": MUTED},
    )
    axes.set_ylim(len(genres) + 0.6, 0.4)
    style_axes(axes, grid="x")


def _waveform(axes: Axes, clip: TypicalClip) -> None:
    bins = min(600, len(clip.samples))
    edges = np.linspace(0, len(clip.samples), bins + 1).astype(int)[:-1]
    low = np.minimum.reduceat(clip.samples, edges)
    high = np.maximum.reduceat(clip.samples, edges)
    axes.fill_between(edges / clip.sample_rate, low, high, color=MARK, linewidth=0)
    axes.set_ylim(-1.2, 1.2)
    axes.set_xlim(0, len(clip.samples) / clip.sample_rate)
    axes.set_yticks([-1, 0, 1])
    style_axes(axes)


def _spectrogram(axes: Axes, clip: TypicalClip) -> None:
    samples = resample(clip.samples, clip.sample_rate, MEL_RATE)
    mel = mel_decibels(power_spectrogram(samples, hop=MEL_HOP), MEL_RATE, bands=MEL_BANDS).T
    loudest = float(mel.max())
    axes.imshow(
        mel,
        origin="lower",
        aspect="auto",
        cmap=mpl.colormaps["viridis"],
        vmin=loudest - SHOWN_DB,
        vmax=loudest,
        extent=(0, len(clip.samples) / clip.sample_rate, 0, MEL_BANDS),
        interpolation="nearest",
    )
    shown = (0.5, 1, 2, 4, 8)
    axes.set_yticks(
        [MEL_BANDS * _mel(khz * 1000) / _mel(MEL_RATE / 2) for khz in shown], [f"{k:g}" for k in shown]
    )
    style_axes(axes)


def _mel(hertz: float) -> float:
    """Slaney's mel scale, as the filters of `genreflow.features.spectral`."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + float(np.log(hertz / 1000)) * 27 / float(np.log(6.4))
