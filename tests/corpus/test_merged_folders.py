"""Folders above the genres (`train`, `test`; `2019`, `2020`): what is merged, ignored and rejected."""

import tarfile
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sounds import tone, write

from genreflow.core.errors import CorpusError
from genreflow.core.genres import GENRES
from genreflow.corpus.ingest import ingest, resolve
from genreflow.corpus.settings import CorpusSettings
from genreflow.corpus.sources import SourceItem, clip_ids, open_source
from genreflow.corpus.sources.listing import Names, label
from genreflow.corpus.store import Corpus
from genreflow.corpus.synthetic import synthesise

TWO = ("jazz", "rock")


def clips(root: Path, genres: tuple[str, ...] = TWO, count: int = 2, pitch: float = 200.0) -> None:
    """`root/<genre>/<number>.wav`, every clip of a pitch of its own."""
    for g, genre in enumerate(genres):
        for number in range(count):
            write(root / genre / f"{number}.wav", tone(1.2, 8_000, pitch + 100 * g + 7 * number), 8_000)


def packed(folder: Path, kind: str) -> Path:
    """The folder itself, or a zip or tar of it."""
    if kind == "folder":
        return folder
    path = folder.with_suffix(f".{kind}")
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as made:
            for file in sorted(folder.rglob("*.*")):
                made.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz") as made:
            made.add(folder, "music")
    return path


def refusal(source: Path, genres: tuple[str, ...] = TWO) -> str:
    with pytest.raises(CorpusError) as caught:
        open_source(str(source), genres).notes()
    return str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "zip", "tgz"])
@pytest.mark.parametrize("above", [("train", "val", "test"), ("2019", "2020")])
def test_all_folders_above_the_genres_are_read_and_named(
    kind: str, above: tuple[str, ...], tmp_path: Path
) -> None:
    for number, folder in enumerate(above):
        clips(tmp_path / "music" / folder, pitch=200 + 300 * number)
    source = open_source(str(packed(tmp_path / "music", kind)), TWO)
    items = list(source.items())
    assert {(item.folder, item.name, item.genre) for item in items} == {
        (folder, f"{folder}/{genre}/{number}.wav", genre)
        for folder in above
        for genre in TWO
        for number in range(2)
    }
    for item in items:
        assert item.open().read_bytes() == (tmp_path / "music" / item.name).read_bytes()
    counts = ", ".join(f"{folder} (4)" for folder in sorted(above))
    assert source.notes()[0].startswith(f"Files of {len(above)} folders were merged: {counts}.")


def test_the_folder_is_a_column_of_the_manifest_and_the_notes_are_in_the_corpus(tmp_path: Path) -> None:
    for number, folder in enumerate(("train", "test")):
        clips(tmp_path / "music" / folder, count=4, pitch=200 + 300 * number)
    source = str(tmp_path / "music")
    document = ingest(source, resolve(source, TWO), CorpusSettings(genres=TWO), tmp_path / "corpus")
    manifest = Corpus.open(tmp_path / "corpus").manifest
    assert manifest["clip_id"].is_unique
    assert manifest["folder"].value_counts().to_dict() == {"train": 8, "test": 8}
    assert (manifest["source"].str.partition("/")[0] == manifest["folder"]).all()
    assert any("Files of 2 folders were merged: test (8), train (8)." in note for note in document.notes)


def test_one_folder_above_the_genres_leaves_the_column_empty(tmp_path: Path) -> None:
    clips(tmp_path / "music" / "genres", count=4)
    source = str(tmp_path / "music")
    document = ingest(source, resolve(source, TWO), CorpusSettings(genres=TWO), tmp_path / "corpus")
    folder = Corpus.open(tmp_path / "corpus").manifest["folder"]
    assert folder.tolist() == [""] * 8
    assert pd.api.types.is_string_dtype(folder)
    assert not any("merged" in note for note in document.notes)


def test_a_clip_in_another_folder_makes_another_corpus(tmp_path: Path) -> None:
    for number, folder in enumerate(("train", "test")):
        clips(tmp_path / "music" / folder, count=4, pitch=200 + 300 * number)
    settings, source = CorpusSettings(genres=TWO), str(tmp_path / "music")
    before = ingest(source, resolve(source, TWO), settings, tmp_path / "before")
    one, other = (tmp_path / "music" / folder / "jazz" / "3.wav" for folder in ("train", "test"))
    one.rename(tmp_path / "aside.wav")
    other.rename(one)
    (tmp_path / "aside.wav").rename(other)
    assert resolve(source, TWO) != before.source_fingerprint
    after = ingest(source, resolve(source, TWO), settings, tmp_path / "after")
    assert after.fingerprint != before.fingerprint


def test_files_of_one_name_keep_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        clips(tmp_path / folder)
    write(tmp_path / "train" / "jazz" / "only here.wav", tone())
    items = list(open_source(str(tmp_path), TWO).items())
    assert set(clip_ids(items)) == {
        *(f"{genre}.{folder}_{n}" for genre in TWO for folder in ("train", "test") for n in range(2)),
        "jazz.only here",
    }


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a", "b", "a/b"]), st.text("ab._/", min_size=1, max_size=5)),
        unique=True,
        max_size=20,
    )
)
def test_ids_are_unique_across_folders(files: list[tuple[str, str]]) -> None:
    items = [
        SourceItem(f"{folder}/jazz/{name}" if folder else f"jazz/{name}", "jazz", Path, folder=folder)
        for folder, name in files
    ]
    assert len(set(clip_ids(items))) == len(items)


def test_gtzan_in_split_folders_keeps_its_ids(tmp_path: Path) -> None:
    for number, folder in enumerate(("train", "val", "test")):
        for genre in TWO:
            for clip in range(2):
                write(tmp_path / folder / genre / f"{genre}.{2 * number + clip:05d}.wav", tone())
    items = list(open_source(str(tmp_path), TWO).items())
    assert sorted(clip_ids(items)) == [f"{genre}.{clip:05d}" for genre in TWO for clip in range(6)]


def test_a_folder_may_lack_genres_that_another_has_and_the_notes_say_so(tmp_path: Path) -> None:
    clips(tmp_path / "train", (*TWO, "metal"))
    clips(tmp_path / "test", TWO)
    (tmp_path / "test" / "metal").mkdir()
    source = open_source(str(tmp_path), (*TWO, "metal"))
    assert len(list(source.items())) == 10
    assert "test has no files of the genre metal." in source.notes()


@pytest.mark.parametrize(
    ("first", "second"), [(("jazz", "rock"), ("metal", "pop")), (("jazz", "rock"), ("rock", "metal", "pop"))]
)
def test_folders_of_different_genres_are_rejected_and_both_are_named(
    first: tuple[str, ...], second: tuple[str, ...], tmp_path: Path
) -> None:
    clips(tmp_path / "acoustic", first)
    clips(tmp_path / "electric", second)
    message = refusal(tmp_path, ("jazz", "metal", "pop", "rock"))
    assert f"in acoustic ({', '.join(sorted(first))})" in message
    assert f"in electric ({', '.join(sorted(second))})" in message
    assert "Name one of them as the source" in message


@pytest.mark.parametrize("picture", ["0.png", "0.npy", "0.csv", "0.PT"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_folder_without_audio_is_not_chosen(picture: str, kind: str, tmp_path: Path) -> None:
    clips(tmp_path / "music" / "wavs")
    for genre in ("blues", *TWO):  # more genres than wavs has
        for number in range(5):
            path = tmp_path / "music" / "images" / genre / f"{number}{picture}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"no sound")
    source = open_source(str(packed(tmp_path / "music", kind)), TWO)
    assert {item.name for item in source.items()} == {f"{genre}/{n}.wav" for genre in TWO for n in range(2)}
    assert {item.folder for item in source.items()} == {""}
    (note,) = [note for note in source.notes() if "images" in note]
    assert "without files that are named like audio" in note


def test_the_layout_of_gtzan_on_kaggle_is_read(tmp_path: Path) -> None:
    for genre in TWO:
        for number in range(2):
            write(tmp_path / "Data" / "genres_original" / genre / f"{genre}.{number:05d}.wav", tone())
            picture = tmp_path / "Data" / "images_original" / genre / f"{genre}{number:05d}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(b"\x89PNG")
    (tmp_path / "Data" / "features_30_sec.csv").write_text("filename,label\n")
    source = open_source(str(tmp_path), TWO)
    assert [item.name for item in source.items()] == [f"{g}/{g}.{n:05d}.wav" for g in TWO for n in range(2)]
    assert any("Data/images_original" in note for note in source.notes())


def test_files_of_any_name_are_tried_where_no_folder_has_names_of_audio(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        for genre in TWO:
            for number in range(2):
                path = tmp_path / folder / genre / f"{number}.bin"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    assert len(list(open_source(str(tmp_path), TWO).items())) == 8


def test_names_without_an_extension_may_be_audio(tmp_path: Path) -> None:
    clips(tmp_path / "train")
    for genre in TWO:
        for name in ("one", "two.00001"):
            path = tmp_path / "test" / genre / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    assert {item.folder for item in open_source(str(tmp_path), TWO).items()} == {"train", "test"}


def test_folders_lie_at_different_depths_and_are_called_by_what_differs(tmp_path: Path) -> None:
    for folder in ("Data/train/audio", "Data/test/audio"):
        clips(tmp_path / "same" / folder.removeprefix("Data/"))
    for folder in ("new", "old/2019"):
        clips(tmp_path / "other" / folder)
    same = open_source(str(tmp_path / "same"), TWO)
    assert {item.folder for item in same.items()} == {"train", "test"}
    assert {item.name.count("/") for item in same.items()} == {2}
    other = open_source(str(tmp_path / "other"), TWO)
    assert {item.folder for item in other.items()} == {"new", "old/2019"}


def test_a_folder_beside_genre_folders_is_ignored_and_named_even_if_it_holds_some(tmp_path: Path) -> None:
    clips(tmp_path)
    clips(tmp_path / "rejected")
    clips(tmp_path / "rest" / "polka")
    source = open_source(str(tmp_path), TWO)
    assert {item.folder for item in source.items()} == {""}
    assert len(list(source.items())) == 4
    assert any("rejected, which lies beside genre folders and holds" in note for note in source.notes())
    assert any("Ignored: rest, not among the genres" in note for note in source.notes())


def test_a_link_to_a_folder_is_not_listed_twice(tmp_path: Path) -> None:
    for folder in ("2019", "2020"):
        clips(tmp_path / folder)
    (tmp_path / "1 latest").symlink_to(tmp_path / "2020")
    (tmp_path / "up").symlink_to(tmp_path)
    assert {item.folder for item in open_source(str(tmp_path), TWO).items()} == {"2019", "2020"}
    (tmp_path / "elsewhere").mkdir()
    clips(tmp_path.parent / f"{tmp_path.name} more", TWO)
    (tmp_path / "2021").symlink_to(tmp_path.parent / f"{tmp_path.name} more")
    assert {item.folder for item in open_source(str(tmp_path), TWO).items()} == {"2019", "2020", "2021"}


def test_unknown_folders_are_named_with_the_folder_above(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        clips(tmp_path / folder, (*TWO, "polka"))
    (note,) = [note for note in open_source(str(tmp_path), TWO).notes() if "polka" in note]
    assert "test/polka, train/polka" in note


def test_the_genres_below_split_folders_are_what_the_hint_names(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        clips(tmp_path / folder, ("polka", "waltz"))
    assert "--set 'corpus.genres=[polka, waltz]'" in refusal(tmp_path)


def test_synthetic_music_stays_synthetic_in_whatever_folder(tmp_path: Path) -> None:
    synthesise(tmp_path / "train", clips_per_genre=2, seconds=1.0, seed=0)
    for genre in GENRES:
        write(tmp_path / "test" / genre / "mine.wav", tone())
    assert open_source(str(tmp_path), GENRES).synthetic


name = st.sampled_from(["train", "test", "jazz", "Rock", "polka", "a", "b"])


@given(st.lists(st.lists(name, min_size=0, max_size=4), max_size=12))
def test_every_file_is_read_once_or_its_folder_is_named(places: list[list[str]]) -> None:
    names = sorted({"/".join([*place, f"{number}.wav"]) for number, place in enumerate(places)})
    try:
        listing = label(Names(names), ("jazz",), "here")
    except CorpusError:
        return
    read = [file.path for file in listing.files]
    assert len(set(read)) == len(read)
    assert len({file.name for file in listing.files}) == len(read)
    for path in set(names) - set(read):
        parts = path.split("/")[:-1]
        if any(part == "jazz" for part in parts[:3]):  # else nothing says that it is of a genre
            assert any(part in note for part in parts for note in listing.left_alone)
    if len({file.folder for file in listing.files}) > 1:
        assert listing.merged
