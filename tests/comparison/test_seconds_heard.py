"""Accuracy against seconds of audio, and agreement, on tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from genreflow.comparison.agreement import agreement, ensemble
from genreflow.comparison.seconds_heard import seconds_heard
from genreflow.evaluation.uncertainty import wilson

GENRES = ("blues", "jazz")


def predictions(clips: dict[str, tuple[str, list[float]]], hop: float = 3.0) -> pd.DataFrame:
    """A table of predictions: each clip's genre, and the probability of blues in each window."""
    rows = []
    for clip_id, (genre, chances) in clips.items():
        for window, chance in enumerate([*chances, float(np.mean(chances))]):
            last = window == len(chances)
            rows.append(
                {
                    "level": "clip" if last else "window",
                    "clip_id": clip_id,
                    "near_duplicate_cluster": clip_id,
                    "genre": genre,
                    "window": -1 if last else window,
                    "start_seconds": 0.0 if last else hop * window,
                    "predicted": GENRES[int(chance < 0.5)],
                    "p_blues": chance,
                    "p_jazz": 1 - chance,
                }
            )
    return pd.DataFrame(rows)


def test_a_clip_counts_by_the_share_of_its_runs_of_windows_that_are_right() -> None:
    table = predictions({"a": ("blues", [0.9, 0.2, 0.9]), "b": ("jazz", [0.1, 0.1, 0.1])})
    points = seconds_heard(table, GENRES, 3.0, {"a": 9.0, "b": 9.0})
    assert [point.windows for point in points] == [1, 2, 3]
    assert [point.seconds for point in points] == [3.0, 6.0, 9.0]
    # of a: two of three windows, both pairs (0.55), and all three together (0.67)
    assert [point.accuracy for point in points] == pytest.approx([5 / 6, 1, 1])
    assert points[0].accuracy_ci95 == pytest.approx(wilson(2 * 5 / 6, 2))
    assert all(point.clips == 2 for point in points)


def test_windows_that_overlap_and_a_last_one_at_the_end_count_by_the_seconds_they_cover() -> None:
    table = predictions({"a": ("blues", [0.9, 0.9, 0.9])}, hop=2.0)
    table.loc[table["window"] == 2, "start_seconds"] = 3.0  # aligned to the end of 7 s
    points = seconds_heard(table, GENRES, 4.0, {"a": 7.0})
    assert [point.seconds for point in points] == [4.0, 5.5, 7.0]  # of the pairs 0 to 6 and 2 to 7


def test_a_window_longer_than_the_clip_is_one_point_at_the_clips_length() -> None:
    table = predictions({"a": ("blues", [0.9]), "b": ("jazz", [0.8])})
    (point,) = seconds_heard(table, GENRES, 30.0, {"a": 5.0, "b": 5.0})
    assert (point.seconds, point.accuracy) == (5.0, 0.5)


def test_all_points_are_of_the_same_clips_and_at_most_a_dozen() -> None:
    long = {f"long{at}": ("blues", [0.9] * 40) for at in range(19)}
    points = seconds_heard(
        predictions({**long, "short": ("jazz", [0.9] * 2)}),
        GENRES,
        3.0,
        dict.fromkeys([*long, "short"], 120.0),
    )
    assert {point.clips for point in points} == {19}
    assert (points[0].windows, points[-1].windows) == (1, 40)
    assert len(points) <= 12


def test_agreement_counts_equal_predictions_and_clips_that_either_has_right() -> None:
    first = predictions({"a": ("blues", [0.9]), "b": ("jazz", [0.9]), "c": ("jazz", [0.1])})
    second = predictions({"c": ("jazz", [0.9]), "b": ("jazz", [0.1]), "a": ("blues", [0.9])})
    found = agreement(
        {name: table[table["level"] == "clip"] for name, table in (("x", first), ("y", second))}
    )
    assert found.names == ("x", "y")
    assert found.same == ((1.0, pytest.approx(1 / 3)), (pytest.approx(1 / 3), 1.0))
    assert found.either_right == ((pytest.approx(2 / 3), 1.0), (1.0, pytest.approx(2 / 3)))


def test_agreement_on_different_clips_is_refused() -> None:
    first, second = predictions({"a": ("blues", [0.9])}), predictions({"b": ("blues", [0.9])})
    with pytest.raises(ValueError, match="on the same clips"):
        agreement({"x": first[first["level"] == "clip"], "y": second[second["level"] == "clip"]})


def test_an_ensemble_predicts_by_the_mean_of_probabilities_clip_by_clip() -> None:
    first = predictions({"a": ("blues", [0.9]), "b": ("jazz", [0.6])})
    second = predictions({"b": ("jazz", [0.1]), "a": ("blues", [0.3])})
    mean = ensemble([table[table["level"] == "clip"] for table in (first, second)], GENRES)
    assert list(mean["clip_id"]) == ["a", "b"]
    assert list(mean["predicted"]) == ["blues", "jazz"]
    assert list(mean["p_blues"]) == pytest.approx([0.6, 0.35])
