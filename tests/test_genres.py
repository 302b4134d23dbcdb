"""When two names mean the same genre, and that nothing else of a name is lost on the way to a model."""

import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from mlflow.utils.validation import validate_param_and_metric_name
from pydantic import ValidationError
from sounds import tone, write

from genreflow.core.genres import SEPARATORS, caseless, genre_key, genre_named
from genreflow.corpus.protocols import assign
from genreflow.corpus.settings import CorpusSettings
from genreflow.corpus.sources import SourceItem, clip_ids, open_source
from genreflow.corpus.sources.base import folder_name, genre_of_folder, is_litter
from genreflow.corpus.sources.listing import Names, label
from genreflow.registry.runs import metric_name
from pipelines.display import as_text

COMPOSED, DECOMPOSED = "Élektro", "E\u0301lektro"
APART = (
    "C",
    "C+",
    "C#",
    "C-",
    "🎸",
    "🥁",
    "हप",
    "हिप",
    "हॉप",
    "R&B",
    "RB",
    "#1 Hits",
    "1 Hits",
    "90s",
    "9 0s!",
    "1 1",
)

unicode_names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=12)
composed_names = unicode_names.map(lambda name: unicodedata.normalize("NFC", name).strip()).filter(bool)


@pytest.mark.parametrize(
    "name", ["hiphop", "Hip-Hop", "hip hop", "HIP_HOP", " Hip – Hop ", "hip\u2010hop", "_hiphop_"]
)
def test_case_and_separators_between_words_do_not_count(name: str) -> None:
    assert genre_named(name, ("jazz", "hiphop")) == "hiphop"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (COMPOSED, DECOMPOSED),
        ("Drum & Bass", "drum_&_bass"),
        ("R & B", "r&b"),
        ("हिप हॉप", "हिप-हॉप"),
        ("STRASSE", "straße"),
    ],
)
def test_spellings_of_one_genre(one: str, other: str) -> None:
    assert genre_key(one) == genre_key(other)


def test_all_else_counts() -> None:
    assert len({genre_key(name) for name in APART}) == len(APART)


def test_separators_between_digits_count() -> None:
    assert genre_key("2019-20") != genre_key("201920")
    assert genre_key("2019-20") == genre_key("2019_20")


@given(unicode_names)
@example(DECOMPOSED)
@example("\u1100-\u1161")
def test_every_form_of_unicode_is_one_name(name: str) -> None:
    assert genre_key(unicodedata.normalize("NFC", name)) == genre_key(unicodedata.normalize("NFD", name))


@given(unicode_names)
def test_nothing_but_separators_and_case_is_dropped(name: str) -> None:
    assume(SEPARATORS.sub("", caseless(name)))
    left = unicodedata.normalize("NFC", SEPARATORS.sub("", genre_key(name)))
    assert left == unicodedata.normalize("NFC", SEPARATORS.sub("", caseless(name)))


@given(unicode_names)
def test_only_a_blank_name_has_no_key(name: str) -> None:
    assert bool(genre_key(name)) == bool(name.strip())


@given(st.lists(composed_names, min_size=2, max_size=6, unique_by=genre_key))
@example(["C", "C+", "C#"])
@example(["हप", "हिप"])
def test_each_of_any_names_gets_the_files_of_its_own_folder(names: list[str]) -> None:
    assume(not any(is_litter(unicodedata.normalize("NFD", name)) for name in names))
    genres = CorpusSettings(genres=tuple(names)).genres
    files = [f"{unicodedata.normalize('NFD', name)}/{n}.wav" for name in names for n in range(2)]
    listing = label(Names(files), genres, "here")
    assert {(file.path, file.genre) for file in listing.files} == {
        (path, names[number // 2]) for number, path in enumerate(files)
    }
    assert not listing.left_alone


@given(
    st.lists(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=300),
        min_size=1,
        max_size=5,
        unique_by=genre_key,
    )
)
@example(["a/b", "a_b"])
@example(["100%", "100%25"])
@example([".hidden", "..", "Thumbs.db"])
def test_a_folder_made_from_a_genre_can_be_made_and_means_it(genres: list[str]) -> None:
    assume(all(map(str.strip, genres)))
    for genre in genres:
        name = folder_name(genre)
        assert "/" not in name
        assert "\0" not in name
        assert not is_litter(name)
        assert 0 < len(name.encode()) <= 255
        assert genre_of_folder(name, (genre,)) == genre
    assert len({folder_name(genre) for genre in genres}) == len(genres)


def test_a_folder_as_a_mac_writes_it_is_the_genre_that_is_typed(tmp_path: Path) -> None:
    for genre in (DECOMPOSED, "C", "C+", "C#", "हिप हॉप", "🎸"):
        for number in range(2):
            write(tmp_path / genre / f"{number}.wav", tone())
    genres = CorpusSettings(genres=(COMPOSED, "C", "C+", "C#", "हिप हॉप", "🎸")).genres
    items = list(open_source(str(tmp_path), genres).items())
    assert {item.genre: item.name.partition("/")[0] for item in items} == {
        COMPOSED: DECOMPOSED, "C": "C", "C+": "C+", "C#": "C#", "हिप हॉप": "हिप हॉप", "🎸": "🎸"
    }  # fmt: skip
    assert len(items) == 12


def test_a_table_s_labels_are_compared_likewise(tmp_path: Path) -> None:
    rows = []
    for genre in (DECOMPOSED, "C+", "C#"):
        for number in range(2):
            write(tmp_path / f"{len(rows)}.wav", tone())
            rows.append({"path": f"{len(rows)}.wav", "label": genre.upper() if number else genre})
    pd.DataFrame(rows).to_csv(tmp_path / "clips.csv", index=False)
    items = open_source(str(tmp_path / "clips.csv"), (COMPOSED, "C#", "C+")).items()
    assert sorted(item.genre for item in items) == sorted([COMPOSED, "C#", "C+"] * 2)


def test_labels_are_composed_and_two_spellings_of_one_are_rejected() -> None:
    assert CorpusSettings(genres=(DECOMPOSED, " jazz ")).genres == (COMPOSED, "jazz")
    for pair in ((COMPOSED, DECOMPOSED), ("Hip-Hop", "hiphop")):
        with pytest.raises(ValidationError, match="are one"):
            CorpusSettings(genres=pair)


def test_gtzan_keeps_its_ids_however_its_genres_are_spelled() -> None:
    items = [
        SourceItem("hiphop/hiphop.00042.wav", "Hip-Hop", Path),
        SourceItem("jazz/jazz.00001.wav", "Jazz", Path),
    ]
    assert clip_ids(items) == ["hiphop.00042", "jazz.00001"]


def test_the_synthetic_source_knows_its_genres_by_any_spelling() -> None:
    items = open_source("synthetic?clips=2&seconds=1", ("Hip-Hop", "Jazz")).items()
    assert sorted(item.genre for item in items) == ["Hip-Hop", "Hip-Hop", "Jazz", "Jazz"]


def test_one_artist_in_two_forms_of_unicode_stays_on_one_side() -> None:
    rows = [
        {"clip_id": f"{genre}.{n}", "genre": genre, "artist": artist, "seconds": 5.0}
        for genre in ("jazz", "rock")
        for n, artist in enumerate([f"{genre} Beyonce\u0301", f"{genre} Beyonc\u00e9", *map(str, range(8))])
    ]
    manifest = pd.DataFrame(rows).assign(duplicate_cluster=lambda table: table["clip_id"])
    manifest["near_duplicate_cluster"] = manifest["clip_id"]
    manifest["artist"] = manifest["artist"].where(manifest["artist"].str.len() > 1, manifest["clip_id"])
    for seed in range(10):
        made = assign(manifest, "grouped", seed=seed, genres=("jazz", "rock")).manifest
        for genre in ("jazz", "rock"):
            assert made[made["artist"].str.startswith(f"{genre} ")]["split"].nunique() == 1


@given(st.lists(composed_names, min_size=2, max_size=6, unique_by=genre_key))
@example(list(APART))
def test_figures_of_different_genres_have_different_names_in_mlflow(genres: list[str]) -> None:
    names = [metric_name(f"recall_{genre}") for genre in genres]
    assert len(set(names)) == len(names)
    assert all(map(validate_param_and_metric_name, names))


def test_brackets_and_colons_in_a_genre_are_no_markup() -> None:
    from rich.table import Table

    table = Table(box=None)
    table.add_column("genre")
    table.add_row("[house]")
    table.add_row("[/x] :smile:")
    lines = as_text(table).split("\n")
    assert [line.strip() for line in lines[1:]] == ["[house]", "[/x] :smile:"]
