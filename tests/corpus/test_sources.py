"""Sources: what is found in a folder, what is refused, and when the fingerprint changes."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sounds import genre_folder, tone, write

from genreflow.core.errors import CorpusError, SettingsError
from genreflow.core.genres import GENRES
from genreflow.corpus.ingest import resolve
from genreflow.corpus.sources import SourceItem, clip_ids, open_source
from genreflow.corpus.synthetic import synthesise

TWO = ("jazz", "rock")


def refusal(source: Path | str, genres: tuple[str, ...] = TWO) -> str:
    with pytest.raises(CorpusError) as caught:
        resolve(str(source), genres)
    return str(caught.value)


def ids(names: list[tuple[str, str]], folder: str = "") -> list[str]:
    """The ids of files by name and genre."""
    return clip_ids([SourceItem(name, genre, Path, folder=folder) for name, genre in names])


def labels(source: Path, genres: tuple[str, ...] = TWO) -> dict[str, str]:
    return {item.name: item.genre for item in open_source(str(source), genres).items()}


@pytest.mark.parametrize("below", ["", "genres", "gtzan/genres"])
def test_genre_folders_are_found_up_to_two_levels_down(tmp_path: Path, below: str) -> None:
    genre_folder(tmp_path / below, clips=2)
    assert labels(tmp_path) == {
        f"{genre}/{genre}.0000{clip}.wav": genre for genre in TWO for clip in range(2)
    }


@pytest.mark.parametrize("folder", ["hiphop", "Hip-Hop", "hip hop", "HIP_HOP"])
def test_a_genre_is_recognised_however_its_folder_is_spelled(tmp_path: Path, folder: str) -> None:
    genre_folder(tmp_path, genres=(folder, "Jazz"))
    assert set(labels(tmp_path, ("hiphop", "jazz")).values()) == {"hiphop", "jazz"}


def test_unknown_folders_are_reported_and_ignored(tmp_path: Path) -> None:
    genre_folder(tmp_path, genres=("jazz", "rock", "polka"))
    source = open_source(str(tmp_path), TWO)
    assert {item.genre for item in source.items()} == set(TWO)
    assert "polka" in source.notes()[0]


def test_litter_of_operating_systems_is_no_clip(tmp_path: Path) -> None:
    genre_folder(tmp_path, clips=2)
    for name in (".DS_Store", "._jazz.00000.wav", "Thumbs.db"):
        (tmp_path / "jazz" / name).touch()
    assert len(labels(tmp_path)) == 4


def test_clips_in_folders_below_a_genre_belong_to_it(tmp_path: Path) -> None:
    genre_folder(tmp_path, clips=2)
    write(tmp_path / "jazz" / "Some Artist" / "Album" / "one.wav", tone())
    assert labels(tmp_path)["jazz/Some Artist/Album/one.wav"] == "jazz"


def test_links_to_folders_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    music = genre_folder(tmp_path / "music", clips=2)
    write(tmp_path / "shelf" / "Album" / "one.wav", tone())
    jazz = music / "jazz"
    (jazz / "linked").symlink_to(tmp_path / "shelf")
    (jazz / "again").symlink_to(tmp_path / "shelf" / "Album")
    (tmp_path / "shelf" / "Album" / "circle").symlink_to(tmp_path / "shelf")
    (jazz / "up").symlink_to(music)
    (jazz / "Artist").mkdir()
    write(jazz / "Artist" / "two.wav", tone())
    (jazz / "A link").symlink_to(jazz / "Artist")
    found = labels(music)
    assert {name for name in found if name.count("/") > 1} == {"jazz/again/one.wav", "jazz/Artist/two.wav"}
    assert len(found) == 6
    assert set(found.values()) == set(TWO)
    before = resolve(str(music), TWO)
    write(tmp_path / "shelf" / "Album" / "three.wav", tone())
    assert resolve(str(music), TWO) != before


def test_a_missing_folder_says_what_to_name_instead(tmp_path: Path) -> None:
    assert "There is no folder" in refusal(tmp_path / "nowhere")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "is empty" in refusal(tmp_path)


def test_a_file_is_rejected_where_a_folder_is_expected(tmp_path: Path) -> None:
    assert "is a file" in refusal(write(tmp_path / "a.wav", tone()))


@contextmanager
def unreadable(folder: Path) -> Iterator[None]:
    """Nobody may read the folder for a while."""
    folder.chmod(0)
    root = os.geteuid() == 0
    if root:  # root reads everything: be somebody else for a moment
        for path in folder.parents:
            if path.stat().st_uid == 0 and path.stat().st_mode & 0o077 == 0:
                path.chmod(0o711)
        os.seteuid(65_534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_an_unreadable_genre_is_refused(tmp_path: Path) -> None:
    folder = genre_folder(tmp_path / "music")
    with unreadable(folder / "jazz"):
        assert "cannot be read: Permission denied" in refusal(folder)


def test_an_unreadable_folder_beside_the_genres_is_ignored(tmp_path: Path) -> None:
    folder = genre_folder(tmp_path / "music")
    (folder / "lost+found").mkdir()
    with unreadable(folder / "lost+found"):
        assert "Ignored: lost+found" in open_source(str(folder), TWO).notes()[0]


def test_a_folder_without_a_genre_names_its_folders_and_the_setting(tmp_path: Path) -> None:
    message = refusal(genre_folder(tmp_path, genres=("polka", "waltz")))
    assert "polka" in message
    assert "--set 'corpus.genres=[polka, waltz]'" in message


def test_a_folder_of_loose_files_has_no_genre(tmp_path: Path) -> None:
    write(tmp_path / "song.wav", tone())
    assert "it has no subfolders" in refusal(tmp_path)


def test_a_missing_genre_is_named_with_the_way_to_leave_it_out(tmp_path: Path) -> None:
    message = refusal(genre_folder(tmp_path), ("jazz", "metal", "rock"))
    assert "metal" in message
    assert "--set 'corpus.genres=[jazz, rock]'" in message


def test_one_clip_in_a_genre_cannot_be_split(tmp_path: Path) -> None:
    genre_folder(tmp_path)
    write(tmp_path / "metal" / "one.wav", tone())
    message = refusal(tmp_path, ("jazz", "metal", "rock"))
    assert "only one file of the genre metal" in message
    assert "--set 'corpus.genres=[jazz, rock]'" in message


def test_an_unknown_kind_of_source_is_refused() -> None:
    assert "gopher" in refusal("gopher://music")


@pytest.mark.parametrize("spec", ["synthetic?clip=4", "synthetic?second=4", "synthetic?sede=4"])
def test_an_unknown_parameter_of_the_synthetic_source_names_the_nearest(spec: str) -> None:
    with pytest.raises(SettingsError, match=r"did you mean (clips|seconds|seed)"):
        resolve(spec)


@pytest.mark.parametrize("query", ["clips=1", "clips=many", "seconds=0", "seconds=nan", "seed=-1"])
def test_an_impossible_parameter_of_the_synthetic_source_is_refused(query: str) -> None:
    with pytest.raises(SettingsError, match="synthetic source"):
        resolve(f"synthetic?{query}")


def test_the_synthetic_source_has_no_other_genres() -> None:
    assert "polka" in refusal("synthetic", ("jazz", "polka"))


def test_clips_that_another_process_synthesised_meanwhile_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENREFLOW_HOME", str(tmp_path))
    change_mode = Path.chmod

    def finished_elsewhere(partial: Path, mode: int) -> None:
        change_mode(partial, mode)
        shutil.copytree(partial, partial.with_name(partial.name.split("-partial-")[0]))

    monkeypatch.setattr(Path, "chmod", finished_elsewhere)
    source = open_source("synthetic?clips=2&seconds=1", GENRES)
    assert len(list(source.items())) == 2 * len(GENRES)
    assert len(list((tmp_path / "corpora").iterdir())) == 1


def test_the_synthetic_fingerprint_depends_on_the_parameters_and_makes_no_audio(tmp_path: Path) -> None:
    assert resolve("synthetic?seed=1") == resolve("synthetic?seed=1&clips=20")
    assert len({resolve(f"synthetic?{query}") for query in ("seed=1", "seed=2", "clips=3", "seconds=9")}) == 4
    assert not (tmp_path / "home").exists()


def test_the_synthetic_source_is_made_once_and_kept(tmp_path: Path) -> None:
    source = open_source("synthetic?clips=2&seconds=1", GENRES)
    first = [item.open() for item in source.items()]
    times = [path.stat().st_mtime_ns for path in first]
    again = [item.open() for item in open_source("synthetic?clips=2&seconds=1", GENRES).items()]
    assert source.synthetic
    assert len(first) == 20
    assert [path.stat().st_mtime_ns for path in again] == times
    assert not [path for path in (tmp_path / "home" / "corpora").iterdir() if "partial" in path.name]


def test_a_synthetic_source_that_lost_a_clip_is_refused() -> None:
    source = open_source("synthetic?clips=2&seconds=1", GENRES)
    next(source.items()).open().unlink()
    with pytest.raises(CorpusError, match=r"no longer complete|only one"):
        list(source.items())


def test_the_fingerprint_stays_while_nothing_changes(tmp_path: Path) -> None:
    genre_folder(tmp_path)
    assert resolve(str(tmp_path), TWO) == resolve(str(tmp_path), TWO)


def test_the_fingerprint_does_not_depend_on_where_the_folder_lies(tmp_path: Path) -> None:
    genre_folder(tmp_path / "a" / "genres")
    before = resolve(str(tmp_path / "a"), TWO)
    (tmp_path / "a").rename(tmp_path / "b")
    assert resolve(str(tmp_path / "b" / "genres"), TWO) == before


@pytest.mark.parametrize("change", ["add", "edit", "delete", "rename"])
def test_the_fingerprint_changes_with_one_clip(tmp_path: Path, change: str) -> None:
    genre_folder(tmp_path)
    before = resolve(str(tmp_path), TWO)
    clip = tmp_path / "rock" / "rock.00003.wav"
    match change:
        case "add":
            write(tmp_path / "rock" / "new.wav", tone())
        case "edit":
            write(clip, tone(1.2, 8_000, 999), 8_000)
        case "delete":
            clip.unlink()
        case "rename":
            clip.rename(clip.with_name("other.wav"))
    assert resolve(str(tmp_path), TWO) != before


def test_ids_are_gtzan_s_own_for_gtzan_s_files() -> None:
    assert ids([("hiphop/hiphop.00042.wav", "hiphop"), ("Hip-Hop/song.mp3", "hiphop")]) == [
        "hiphop.00042",
        "hiphop.song",
    ]


def test_clips_of_one_name_keep_apart() -> None:
    names = [("jazz/a.wav", "jazz"), ("jazz/a.mp3", "jazz"), ("jazz/x/a.wav", "jazz"), ("Jazz/a.wav", "jazz")]
    made = ids(names)
    assert len(set(made)) == 4
    assert made[1:3] == ["jazz.a.mp3", "jazz.x_a"]


@given(st.lists(st.text("ab./_", min_size=1, max_size=6), unique=True, max_size=20), st.randoms())
def test_ids_are_unique_and_do_not_depend_on_the_order(names: list[str], random: object) -> None:
    files = [(f"jazz/{name}", "jazz") for name in names]
    mixed = files.copy()
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert len(set(ids(files))) == len(files)
    assert dict(zip(files, ids(files), strict=True)) == dict(zip(mixed, ids(mixed), strict=True))


def test_a_folder_of_synthesised_music_stays_synthetic_under_any_name(tmp_path: Path) -> None:
    synthesise(tmp_path / "mine", clips_per_genre=3, seconds=1.0, seed=0)
    for folder in (tmp_path / "mine", tmp_path / "mine" / "genres"):
        source = open_source(str(folder), GENRES)
        assert source.synthetic
    marked = source.resolve()
    (tmp_path / "mine" / "synthetic.json").unlink()
    real = open_source(str(tmp_path / "mine"), GENRES)
    assert not real.synthetic
    assert real.resolve() != marked
