"""A song's genres over time, drawn."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genreflow.runtime import Timeline

COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"),
    *("#D55E00", "#F0E442", "#333333", "#882255", "#999933"),
)
"""Okabe and Ito's colour-blind-safe palette, with two of Paul Tol's for the ninth and tenth genre."""
INCHES = (10.0, 4.5)
DOTS_PER_INCH = 150


def draw(song: "Timeline", title: str, path: Path) -> None:
    """Stacked probabilities over time, the genre on top named below, as a PNG.

    Args:
        song: windows in order.
        title: what the song is called.
        path: the PNG, in an existing folder.
    """
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot

    shares = song.smoothed()
    middles = (song.starts + song.ends) / 2
    times = np.concatenate([song.starts[:1], middles, song.ends[-1:]])
    stacked = np.concatenate([shares[:1], shares, shares[-1:]])
    order = np.argsort(-shares.mean(axis=0))
    colour = {genre: COLOURS[index % len(COLOURS)] for index, genre in enumerate(song.genres)}
    figure, (areas, strip) = pyplot.subplots(
        2, 1, figsize=INCHES, sharex=True, height_ratios=[5, 1], layout="constrained"
    )
    names = [song.genres[index] for index in order]
    areas.stackplot(times, stacked[:, order].T, labels=names, colors=[colour[name] for name in names])
    areas.set(ylabel="probability", ylim=(0, 1), title=title)
    handles, labels = areas.get_legend_handles_labels()
    areas.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    length = float(song.ends[-1] - song.starts[0])
    for start, end, genre, _ in song.segments():
        strip.axvspan(start, end, color=colour[genre])
        if end - start > length / 12:
            dark = genre not in (song.genres[6:7] + song.genres[4:5] + song.genres[1:2])
            strip.text(
                (start + end) / 2, 0.5, genre, ha="center", va="center", color="white" if dark else "black"
            )
    strip.set(
        xlabel="seconds", yticks=[], ylabel="on top", xlim=(float(song.starts[0]), float(song.ends[-1]))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    pyplot.close(figure)
