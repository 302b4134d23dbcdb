"""Protocols: the published lists as published, splits made here without a straddler, and leak notes."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genreflow.core.errors import CorpusError, SettingsError
from genreflow.core.genres import GENRES
from genreflow.corpus import gtzan
from genreflow.corpus.protocols import Assignment, assign


def clips(rows: list[tuple[str, str, str | None, str]]) -> pd.DataFrame:
    """(clip id, genre, artist, duplicate cluster) as a manifest."""
    manifest = pd.DataFrame(rows, columns=["clip_id", "genre", "artist", "duplicate_cluster"])
    return manifest.assign(near_duplicate_cluster=manifest["duplicate_cluster"], seconds=30.0)


def whole_gtzan() -> pd.DataFrame:
    artists = gtzan.artists()
    return clips([(name, name.split(".")[0], artists[name][0], f"own {name}") for name in gtzan.md5s()])


def own(clips_each: int = 20, artists_each: int | None = None) -> pd.DataFrame:
    """A corpus that is not GTZAN's; unknown artists without `artists_each`."""
    return clips(
        [
            (
                f"{genre}.song{i}",
                genre,
                None if artists_each is None else f"{genre} {i % artists_each}",
                f"{genre}{i}",
            )
            for genre in ("jazz", "rock")
            for i in range(clips_each)
        ]
    )


def counts(made: Assignment) -> dict[str, int]:
    return dict(Counter(made.manifest["split"]))


def straddles(made: Assignment, column: str) -> bool:
    known = made.manifest[made.manifest[column].notna() & (made.manifest["split"] != "unused")]
    return bool((known.groupby(column)["split"].nunique() > 1).any())


def test_the_reference_lists_are_whole() -> None:
    assert len(gtzan.md5s()) == len(gtzan.artists()) == 1000
    assert set(gtzan.md5s()) == set(gtzan.artists())
    assert Counter(gtzan.fault_filtered().values()) == {"train": 443, "validation": 197, "test": 290}
    assert len(gtzan.artist_folds()) == 948
    assert set(gtzan.fault_filtered()) | set(gtzan.artist_folds()) <= set(gtzan.md5s())


def test_auto_is_fault_filtered_for_whole_gtzan() -> None:
    made = assign(whole_gtzan(), "auto")
    assert made.protocol == "fault-filtered"
    assert counts(made) == {"train": 443, "validation": 197, "test": 290, "unused": 70}
    assert not made.leaky
    assert made.leak_reason is None


def test_auto_is_grouped_for_other_music() -> None:
    made = assign(own(), "auto", genres=("jazz", "rock"))
    assert (made.protocol, made.leaky) == ("grouped", False)


def test_auto_is_grouped_with_a_reason_where_the_lists_keep_too_little() -> None:
    few = whole_gtzan()
    few = few[few["clip_id"].str[-5:].astype(int) < 10].reset_index(drop=True)
    made = assign(few, "auto")
    assert made.protocol == "grouped"
    assert "fault-filtered lists keep" in made.notes[0]


def test_clips_with_gtzans_names_and_another_length_are_not_treated_as_gtzan() -> None:
    named_alike = whole_gtzan().assign(artist=None, seconds=8.0)
    made = assign(named_alike, "auto")
    assert (made.protocol, made.leaky) == ("grouped", False)
    with pytest.raises(CorpusError, match="not GTZAN"):
        assign(named_alike, "fault-filtered")


def test_the_caller_may_know_that_clips_are_not_gtzan_s() -> None:
    assert assign(whole_gtzan(), "auto", known=False).protocol == "grouped"


@pytest.mark.parametrize("protocol", ["fault-filtered", "artist"])
def test_published_lists_are_refused_for_other_music(protocol: str) -> None:
    with pytest.raises(CorpusError, match="grouped"):
        assign(own(), protocol, genres=("jazz", "rock"))


@pytest.mark.parametrize(
    ("columns", "what"),
    [(["duplicate_cluster", "near_duplicate_cluster"], "audio"), (["near_duplicate_cluster"], "recording")],
)
def test_a_duplicate_that_straddles_the_published_lists_is_reported_and_stays(
    columns: list[str], what: str
) -> None:
    manifest = whole_gtzan()
    lists = gtzan.fault_filtered()
    train, test = (
        next(n for n in lists if lists[n] == split and n < "blues.1") for split in ("train", "test")
    )
    manifest.loc[manifest["clip_id"].isin([train, test]), columns] = "same"
    made = assign(manifest, "fault-filtered")
    assert made.manifest.set_index("clip_id")["split"][[train, test]].tolist() == ["train", "test"]
    (note,) = (note for note in made.notes if train in note and test in note)
    assert f"has the same {what} on both sides" in note


@pytest.mark.parametrize("fold", range(gtzan.FOLDS))
def test_an_artist_fold_tests_on_its_fold_and_no_artist_straddles(fold: int) -> None:
    made = assign(whole_gtzan(), "artist", fold=fold)
    listed = {name: number for name, (number, _) in gtzan.artist_folds().items()}
    artist = made.manifest["clip_id"].map({name: who for name, (_, who) in gtzan.artist_folds().items()})
    made.manifest["artist_id"] = made.manifest["genre"] + artist
    test = made.manifest[made.manifest["split"] == "test"]
    assert set(test["clip_id"]) == {name for name, number in listed.items() if number == fold}
    assert not straddles(made, "artist_id")
    assert (made.fold, made.leaky) == (fold, False)
    assert counts(made)["unused"] == 52
    validation = made.manifest[made.manifest["split"] == "validation"]
    assert 0.15 < len(validation) / (948 - len(test)) < 0.25
    assert set(validation["genre"]) == set(GENRES)


def test_there_are_three_artist_folds() -> None:
    with pytest.raises(SettingsError, match="folds 0 to 2"):
        assign(whole_gtzan(), "artist", fold=3)


def test_random_is_stratified_81_9_10_and_labelled_leaky() -> None:
    made = assign(whole_gtzan(), "random")
    assert counts(made) == {"train": 810, "validation": 90, "test": 100}
    assert (made.manifest.groupby(["genre", "split"]).size().unstack() == [10, 81, 9]).all(axis=None)
    assert made.leaky
    assert "known artists" in (made.leak_reason or "")


def test_grouped_keeps_gtzan_s_artists_on_one_side_and_every_genre_in_every_split() -> None:
    made = assign(whole_gtzan(), "grouped")
    assert not straddles(made, "artist")
    assert not made.leaky
    table = made.manifest.groupby(["genre", "split"]).size().unstack()
    assert (table["test"].between(10, 30)).all()
    assert (table["train"] >= 50).all()


def test_one_artist_genres_are_split_by_clip_and_marked_leaky() -> None:
    manifest = pd.concat([own(10, 1).query("genre == 'jazz'"), own(10, 5).query("genre == 'rock'")])
    made = assign(manifest.reset_index(drop=True), "grouped", genres=("jazz", "rock"))
    assert made.leaky
    assert "1 of 2 genres are one artist each (jazz)" in (made.leak_reason or "")
    assert (made.manifest.groupby(["genre", "split"]).size().unstack() > 0).all(axis=None)
    rock = made.manifest[made.manifest["genre"] == "rock"]
    assert (rock.groupby("artist")["split"].nunique() == 1).all()


def test_all_trains_on_everything() -> None:
    made = assign(own(), "all", genres=("jazz", "rock"))
    assert counts(made) == {"train": 40}
    assert "Every clip trains" in made.notes[0]


def test_a_genre_that_is_one_recording_cannot_be_split() -> None:
    manifest = own(5)
    manifest.loc[manifest["genre"] == "jazz", "near_duplicate_cluster"] = "the same"
    with pytest.raises(CorpusError, match="jazz"):
        assign(manifest, "grouped", genres=("jazz", "rock"))


def test_the_same_audio_under_two_genres_is_reported() -> None:
    manifest = own(10)
    both = manifest["clip_id"].isin(["jazz.song0", "rock.song0"])
    manifest.loc[both, "near_duplicate_cluster"] = "both"
    made = assign(manifest, "grouped", genres=("jazz", "rock"))
    assert "The same recording under several genres: jazz.song0, rock.song0." in made.notes
    assert not straddles(made, "near_duplicate_cluster")


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(SettingsError, match="fault-filtered"):
        assign(own(), "honest", genres=("jazz", "rock"))


corpora = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from([None, "a", "b", "c", "d", "e", " E"]), min_size=2 * n, max_size=2 * n),
        st.lists(st.integers(0, 12), min_size=2 * n, max_size=2 * n),
        st.integers(0, 5),
    )
)


@settings(max_examples=40)
@given(corpora)
def test_in_grouped_splits_no_duplicate_straddles_nor_an_artist_unless_said(
    corpus: tuple[list[str | None], list[int], int],
) -> None:
    artists, recordings, seed = corpus
    n = len(artists)
    manifest = clips(
        [
            (f"{genre}.{i}", genre, artists[i], f"r{recordings[i]}" if recordings[i] < 8 else f"own{i}")
            for i in range(n)
            for genre in (("jazz", "rock")[i % 2],)
        ]
    )
    try:
        made = assign(manifest, "grouped", seed=seed, genres=("jazz", "rock"))
    except CorpusError:
        return
    assert not straddles(made, "duplicate_cluster")
    made.manifest["artist"] = made.manifest["artist"].str.strip().str.casefold()
    assert made.leaky or not straddles(made, "artist")
    assert made.leaky == (made.leak_reason is not None)
    assert (made.manifest.groupby("genre")["split"].agg(lambda s: {"train", "test"} <= set(s))).all()


@pytest.mark.parametrize("protocol", ["grouped", "random", "artist"])
def test_a_split_depends_on_the_seed_and_not_on_the_order_of_clips(protocol: str) -> None:
    manifest = whole_gtzan()
    shuffled = manifest.iloc[np.random.default_rng(1).permutation(len(manifest))].reset_index(drop=True)
    split = assign(manifest, protocol).manifest.set_index("clip_id")["split"]
    again = assign(shuffled, protocol).manifest.set_index("clip_id")["split"]
    other = assign(manifest, protocol, seed=7).manifest.set_index("clip_id")["split"]
    assert (split == again.loc[split.index]).all()
    assert (split != other.loc[split.index]).any()


def in_folders(folders: dict[str, int], artists: bool = False) -> pd.DataFrame:
    """Clips of two genres in folders, so many a genre in each; with artists of two clips in one folder."""
    rows = [
        (
            f"{genre}.{folder}{i}",
            genre,
            f"{genre} {folder} {i // 2}" if artists else None,
            f"{genre}{folder}{i}",
        )
        for folder, count in folders.items()
        for genre in ("jazz", "rock")
        for i in range(count)
    ]
    names = [folder for folder, count in folders.items() for _ in range(2 * count)]
    return clips(rows).assign(folder=names)


def assigned(manifest: pd.DataFrame, protocol: str = "auto") -> Assignment:
    return assign(manifest, protocol, genres=("jazz", "rock"))


@pytest.mark.parametrize("validation", ["val", "valid", "Validation", "data/VAL"])
def test_auto_keeps_folders_of_train_validation_and_test_as_they_were_made(validation: str) -> None:
    made = assigned(in_folders({"Train": 6, validation: 2, "TEST": 3}))
    assert (made.protocol, made.leaky, made.leak_reason, made.notes) == ("folders", False, None, ())
    expected = {"Train": "train", validation: "validation", "TEST": "test"}
    assert made.manifest["split"].tolist() == [expected[name] for name in made.manifest["folder"]]
    assert assigned(in_folders({"train": 6, validation: 2, "test": 3}), "grouped").protocol == "grouped"


def test_without_a_validation_folder_whole_artists_of_the_training_folder_select() -> None:
    made = assigned(in_folders({"train": 10, "test": 4}, artists=True))
    assert counts(made) == {"train": 16, "validation": 4, "test": 8}
    assert set(made.manifest.loc[made.manifest["split"] == "validation", "folder"]) == {"train"}
    assert not straddles(made, "artist")
    assert not made.leaky
    assert made.notes == (
        "There is no validation folder: 4 clips of the training folder select the model; known artists and "
        "duplicates are kept on one side.",
    )


def test_what_lies_in_several_folders_stays_and_is_reported_as_a_leak() -> None:
    manifest = in_folders({"train": 6, "val": 2, "test": 3}, artists=True)
    manifest.loc[manifest["clip_id"].isin(["jazz.train0", "jazz.test1"]), "near_duplicate_cluster"] = "one"
    manifest.loc[manifest["clip_id"].isin(["rock.val0", "rock.test0"]), "artist"] = "Same Band"
    made = assigned(manifest)
    assert counts(made) == {"train": 12, "validation": 4, "test": 6}
    assert made.leaky
    assert "clips of 1 known artists and 1 recordings both in training or validation and in test" in str(
        made.leak_reason
    )
    assert made.notes == (
        "The split by folders has the same recording on both sides: jazz.train0 (train), jazz.test1 (test).",
        "The split by folders has 1 artists (by the files' tags) in training or validation and in test.",
    )


def test_clips_in_other_folders_are_not_used_and_the_notes_say_so() -> None:
    made = assigned(in_folders({"train": 5, "val": 2, "test": 2, "extra": 3}))
    assert counts(made) == {"train": 10, "validation": 4, "test": 4, "unused": 6}
    assert made.notes[0].startswith("6 clips lie in extra, which is none of the folders train, val,")


def test_folders_that_are_no_split_are_split_by_grouped_and_rejected_by_folders() -> None:
    years = in_folders({"2019": 8, "2020": 8})
    made = assigned(years)
    assert made.protocol == "grouped"
    with pytest.raises(CorpusError, match=r"needs folders train and test.*this source has 2019, 2020"):
        assigned(years, "folders")
    with pytest.raises(CorpusError, match="none of them"):
        assigned(own(), "folders")
    half = assigned(in_folders({"train": 8, "val": 8}))
    assert half.protocol == "grouped"
    assert half.notes[0] == "There is no folder test beside train, val: the split is made here."


def test_a_test_folder_may_lack_a_genre_and_a_training_folder_may_not() -> None:
    manifest = in_folders({"train": 6, "test": 3})
    no_rock = manifest[~((manifest["folder"] == "test") & (manifest["genre"] == "rock"))]
    assert "The split by folders leaves no test clip of rock here." in assigned(no_rock).notes
    untrained = manifest[~((manifest["folder"] == "train") & (manifest["genre"] == "rock"))]
    with pytest.raises(CorpusError, match="leaves no training clip of rock"):
        assigned(untrained)
