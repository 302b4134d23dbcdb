"""A song's genres over time, as a figure: for `genreflow timeline -o` and the web page.

The caller saves the figure (`savefig`). It is made without pyplot, so that a service can draw from a thread.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from genreflow.inference.answers import Segment, Timeline

COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"),
    *("#D55E00", "#F0E442", "#333333", "#882255", "#999933"),
)
"""Okabe and Ito's colour-blind-safe palette, with two of Paul Tol's for the ninth and tenth genre."""
OTHERS_COLOUR = "#DDDDDD"
TEXT_COLOUR = "#333333"
NAMED_SHARE = 0.2
"""A genre that nowhere reaches this probability is drawn among the others, in grey."""
WIDE = (10.0, 4.5)
PAGE = (7.5, 4.4)
NARROW = (4.2, 4.6)
"""Sizes in inches: for a file, for a column of the web page, and for a phone held upright."""
DOTS_PER_INCH = 150
LETTER_INCHES = 0.078
"""About what a letter of a segment's label is wide."""
TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
TICK_INCHES = 0.8
"""Closer ticks would run into each other."""
DARK = 0.18
"""Below this relative luminance, white letters read better than black ones."""


def colours(genres: tuple[str, ...]) -> dict[str, str]:
    """The colour of each genre, `#rrggbb`, everywhere the same."""
    return {genre: COLOURS[index % len(COLOURS)] for index, genre in enumerate(genres)}


def clock(seconds: float) -> str:
    """A moment of a song as m:ss, from an hour on as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def draw_timeline(song: "Timeline", title: str | None = None, inches: tuple[float, float] = WIDE) -> "Figure":
    """Above, the segments with their genres; below, the probabilities that they come from, stacked.

    Args:
        song: windows in order.
        title: what the song is called.
        inches: width and height.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    strip, areas = figure.subplots(2, 1, sharex=True, height_ratios=[1, 4])
    for axes in (strip, areas):
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, pad=6, colors=TEXT_COLOUR)
    if title is not None:
        strip.set_title(title, loc="left", color=TEXT_COLOUR, parse_math=False)
    start, end = float(song.starts[0]), float(song.ends[-1])
    colour = colours(song.genres)
    _draw_segments(strip, song.segments(), colour, inches[0] * 0.8 / (end - start))
    names = _draw_shares(areas, song, colour)
    areas.set(ylim=(0, 1), yticks=[0, 0.5, 1], yticklabels=["0%", "50%", "100%"], xlim=(start, end))
    areas.set_xlabel("minutes and seconds", color=TEXT_COLOUR)
    areas.set_ylabel("probability", color=TEXT_COLOUR)
    areas.set_xticks(_ticks(start, end, int(inches[0] / TICK_INCHES)))
    areas.xaxis.set_major_formatter(lambda moment, _: clock(moment))
    handles = areas.get_legend_handles_labels()[0][::-1]
    if inches[0] >= inches[1] * 1.5:
        legend = figure.legend(handles, names[::-1], loc="outside right center", frameon=False)
    else:
        legend = figure.legend(
            handles, names[::-1], loc="outside lower center", frameon=False, ncols=3, fontsize=9
        )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw_segments(
    axes: "Axes", segments: "list[Segment]", colour: dict[str, str], inches_per_second: float
) -> None:
    for start, end, genre, probability in segments:
        axes.axvspan(start, end, color=colour[genre], linewidth=0)
        room = (end - start) * inches_per_second / LETTER_INCHES
        if room < len(genre) + 1:
            continue
        words = f"{genre}\n{probability:.0%}"
        ink = "white" if _luminance(colour[genre]) < DARK else "black"
        axes.text(
            (start + end) / 2, 0.5, words, ha="center", va="center", color=ink, fontsize=9, parse_math=False
        )
    for segment in segments[1:]:
        axes.axvline(segment.start, color="white", linewidth=1.5)
    axes.set(ylim=(0, 1), yticks=[])
    axes.tick_params(labelbottom=False)


def _draw_shares(axes: "Axes", song: "Timeline", colour: dict[str, str]) -> list[str]:
    """Draws the areas, the genre with most at the bottom; their names from there up."""
    shares = song.smoothed()
    middles = (song.starts + song.ends) / 2
    times = np.concatenate([song.starts[:1], middles, song.ends[-1:]])
    stacked: NDArray[np.float32] = np.concatenate([shares[:1], shares, shares[-1:]])
    top = set(shares.argmax(axis=1).tolist())
    order = [int(index) for index in np.argsort(-shares.mean(axis=0))]
    named = [index for index in order if index in top or shares[:, index].max() >= NAMED_SHARE]
    names = [song.genres[index] for index in named]
    rows = [stacked[:, index] for index in named]
    palette = [colour[name] for name in names]
    if len(named) < len(song.genres):
        rows.append(1 - np.sum(rows, axis=0))
        names.append("others")
        palette.append(OTHERS_COLOUR)
    # as pixels also in a vector graphic: an hour of windows would be megabytes of corners
    axes.stackplot(times, np.stack(rows), labels=names, colors=palette, rasterized=True, linewidth=0)
    return names


def _ticks(start: float, end: float, most: int) -> NDArray[np.float64]:
    step = next((step for step in TICK_SECONDS if (end - start) / step <= most), TICK_SECONDS[-1])
    return np.arange(start, end + 1e-6, step)


def _luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, 0 to 1, roughly (WCAG 2, gamma 2.2)."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return float(0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2)
