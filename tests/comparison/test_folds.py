"""Folds of a comparison: artists and recordings apart, and said where they are not."""

import pandas as pd
import pytest

from genreflow.comparison.folds import assign_folds
from genreflow.core.errors import SettingsError


def table(rows: list[tuple[str, str]]) -> tuple[pd.DataFrame, pd.Series]:
    """Clips of a genre and a group (an artist) each, and their groups."""
    found = pd.DataFrame(
        {
            "clip_id": [f"{genre}.{at}" for at, (genre, _) in enumerate(rows)],
            "genre": [genre for genre, _ in rows],
            "near_duplicate_cluster": [f"{genre}.{at}" for at, (genre, _) in enumerate(rows)],
        }
    )
    return found, pd.Series([group for _, group in rows])


def test_an_artist_is_in_one_fold_and_every_clip_in_some_fold() -> None:
    clips, groups = table([(genre, f"{genre}{at // 2}") for genre in ("blues", "jazz") for at in range(12)])
    folds, leak_reason = assign_folds(clips, groups, 3, seed=1)
    assert set(folds) == {0, 1, 2}
    assert (folds.groupby(groups).nunique() == 1).all()
    assert leak_reason is None
    assert (folds.groupby(clips["genre"]).nunique() == 3).all()


def test_a_genre_of_one_artist_is_divided_by_clip_and_the_folds_are_called_leaky() -> None:
    clips, groups = table([("blues", f"b{at}") for at in range(6)] + [("jazz", "one")] * 6)
    folds, leak_reason = assign_folds(clips, groups, 3, seed=1)
    assert set(folds[clips["genre"] == "jazz"]) == {0, 1, 2}
    assert leak_reason is not None
    assert leak_reason.startswith("Clips of the same artists lie in several folds in jazz,")
    assert "blues" not in leak_reason


@pytest.mark.parametrize("seed", range(6))
def test_an_artist_of_two_genres_who_is_torn_apart_makes_the_folds_leaky(seed: int) -> None:
    """A genre of few artists is divided by clip, another by artist: an artist of both is in both kinds."""
    clips, groups = table([("a", "X"), ("a", "Y"), *(("b", artist) for artist in "XXPQRR")])
    folds, leak_reason = assign_folds(clips, groups, 3, seed)
    torn = folds.groupby(groups).nunique().max() > 1
    assert (leak_reason is not None) == torn


def test_a_repeated_recording_is_not_held_out_apart_from_its_copy() -> None:
    clips, groups = table([("jazz", "one")] * 8)
    clips["near_duplicate_cluster"] = [f"r{at // 2}" for at in range(8)]
    folds, _ = assign_folds(clips, groups, 2, seed=1)
    assert (folds.groupby(clips["near_duplicate_cluster"]).nunique() == 1).all()


def test_more_folds_than_recordings_are_refused() -> None:
    clips, groups = table([("blues", "a"), ("blues", "b"), ("jazz", "c")])
    with pytest.raises(SettingsError, match="--folds 3 needs 3 different recordings"):
        assign_folds(clips, groups, 3, seed=1)
