"""The figure of a song's genres over time."""

import io

import matplotlib.image
import numpy as np
import pytest

from genreflow.core.genres import GENRES
from genreflow.inference.answers import Timeline
from genreflow.inference.timeline_plot import NARROW, PAGE, TICK_INCHES, WIDE, clock, draw_timeline


def song(seconds: float, window: float, tops: list[str]) -> Timeline:
    """Windows side by side, one genre on top in each at 0.82, the others at 0.02."""
    starts = np.arange(len(tops)) * window
    probabilities = np.full((len(tops), len(GENRES)), 0.02, dtype=np.float32)
    probabilities[np.arange(len(tops)), [GENRES.index(top) for top in tops]] = 0.82
    return Timeline(starts, np.minimum(starts + window, seconds), probabilities, GENRES)


def test_a_dollar_sign_in_a_genre_begins_no_formula() -> None:
    genres = ("A$AP ^$", "jazz")
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9]], np.float32)
    figure = draw_timeline(Timeline(np.array([0.0, 30]), np.array([30.0, 60]), probabilities, genres))
    figure.draw_without_rendering()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["jazz", "A$AP ^$"]
    assert figure.axes[0].texts[0].get_text() == "A$AP ^$\n90%"


def test_the_segments_of_a_song_are_labelled_with_their_probability() -> None:
    figure = draw_timeline(song(60, 10, ["jazz"] * 4 + ["metal"] * 2), "A song")
    strip, areas = figure.axes
    assert [text.get_text() for text in strip.texts] == ["jazz\n82%", "metal\n82%"]
    assert strip.get_title(loc="left") == "A song"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["others", "metal", "jazz"]
    assert areas.get_ylim() == (0, 1)


def test_a_segment_too_short_for_its_label_is_in_the_legend() -> None:
    figure = draw_timeline(song(600, 10, ["jazz"] * 30 + ["classical"] + ["metal"] * 29))
    assert [text.get_text().split()[0] for text in figure.axes[0].texts] == ["jazz", "metal"]
    assert "classical" in [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    ("seconds", "window", "said"),
    [
        (3, 1, ["0:00", "0:01", "0:02", "0:03"]),
        (125, 5, ["0:00", "0:15", "0:30"]),
        (7200, 60, ["0:00", "10:00"]),
    ],
)
def test_the_time_axis_is_a_clock(seconds: float, window: float, said: list[str]) -> None:
    figure = draw_timeline(song(seconds, window, ["pop"] * int(seconds // window)))
    figure.draw_without_rendering()
    ticks = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert ticks[: len(said)] == said
    assert len(ticks) <= WIDE[0] / TICK_INCHES + 1


def test_a_clock_counts_hours_from_the_first_on() -> None:
    assert [clock(moment) for moment in (0, 59.6, 61, 3599, 3661)] == [
        "0:00", "1:00", "1:01", "59:59", "1:01:01",
    ]  # fmt: skip


def test_one_window_and_a_title_with_signs_of_mathematics_are_drawn() -> None:
    buffer = io.BytesIO()
    draw_timeline(song(1, 10, ["blues"]), "$100 _and_ $").savefig(buffer, format="png")
    buffer.seek(0)
    pixels = matplotlib.image.imread(buffer)
    blue = np.array([0x00, 0x72, 0xB2]) / 255
    assert (np.abs(pixels[..., :3] - blue).max(axis=-1) < 0.02).mean() > 0.2


@pytest.mark.parametrize("inches", [WIDE, PAGE, NARROW])
def test_no_label_exceeds_its_segment_or_the_figure(inches: tuple[float, float]) -> None:
    figure = draw_timeline(song(100, 5, [genre for genre in GENRES for _ in range(2)]), inches=inches)
    figure.draw_without_rendering()
    strip = figure.axes[0]
    wide = strip.get_window_extent().width / len(GENRES)
    assert all(text.get_window_extent().width <= wide for text in strip.texts)
    for legend in figure.legends:
        extent = legend.get_window_extent()
        assert extent.x0 >= 0
        assert extent.y0 >= 0
        assert extent.x1 <= figure.bbox.width


def test_an_hour_of_windows_stays_a_small_vector_graphic() -> None:
    tops = [GENRES[index // 200] for index in range(1800)]
    buffer = io.BytesIO()
    draw_timeline(song(3600, 2, tops), inches=PAGE).savefig(buffer, format="svg")
    assert len(buffer.getvalue()) < 300_000
