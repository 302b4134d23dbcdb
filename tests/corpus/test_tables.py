"""Tables of paths and labels as sources."""

from pathlib import Path

import pandas as pd
import pytest
from sounds import genre_folder

from genreflow.core.errors import CorpusError, SettingsError
from genreflow.corpus.ingest import ingest, resolve
from genreflow.corpus.settings import CorpusSettings
from genreflow.corpus.sources import clip_ids, open_source

TWO = ("jazz", "rock")


@pytest.fixture
def music(tmp_path: Path) -> Path:
    return genre_folder(tmp_path / "music", clips=3)


def rows(music: Path, relative_to: Path | None = None) -> pd.DataFrame:
    files = sorted(music.rglob("*.wav"))
    paths = [str(path.relative_to(relative_to) if relative_to else path) for path in files]
    return pd.DataFrame({"path": paths, "label": [path.parent.name for path in files], "extra": 1})


def written(table: pd.DataFrame, path: Path) -> str:
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",", encoding="utf-8-sig")
    return str(path)


def refusal(spec: str, genres: tuple[str, ...] = TWO) -> str:
    with pytest.raises(CorpusError) as caught:
        open_source(spec, genres)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("relative", [True, False])
def test_a_table_names_its_clips(suffix: str, relative: bool, music: Path, tmp_path: Path) -> None:
    spec = written(rows(music, tmp_path if relative else None), tmp_path / f"clips{suffix}")
    items = list(open_source(spec, TWO).items())
    assert [(item.name, item.genre) for item in items] == [
        (f"{genre}/{genre}.0000{clip}.wav", genre) for genre in TWO for clip in range(3)
    ]
    assert all(item.open().read_bytes() == (music / item.name).read_bytes() for item in items)


def test_columns_of_other_names_are_named(music: Path, tmp_path: Path) -> None:
    table = rows(music).rename(columns={"path": "file name", "label": "style"})
    spec = written(table, tmp_path / "clips.csv")
    message = refusal(spec)
    assert "no column path and no column label; it has file name, style, extra" in message
    assert "?path=COLUMN&label=COLUMN" in message
    assert len(list(open_source(f"{spec}?path=file+name&label=style", TWO).items())) == 6
    with pytest.raises(SettingsError, match="no parameter 'lable'"):
        open_source(f"{spec}?lable=style", TWO)


def test_a_corpus_from_a_table_equals_that_of_the_folder(music: Path, tmp_path: Path) -> None:
    music = genre_folder(tmp_path / "music")
    spec = written(rows(music), tmp_path / "clips.csv")
    settings = CorpusSettings(genres=TWO)
    made = [
        ingest(source, resolve(source, TWO), settings, tmp_path / f"corpus{number}").fingerprint
        for number, source in enumerate((str(music), spec))
    ]
    assert made[0] == made[1]


def test_a_file_beside_the_folder_of_its_genre_is_another_clip_than_one_in_it(tmp_path: Path) -> None:
    """`a.wav` of jazz is called `jazz/a.wav`, and so is the file of that path."""
    music = genre_folder(tmp_path / "music", clips=3)
    beside = music / "jazz.00000.wav"
    beside.write_bytes((music / "rock" / "rock.00002.wav").read_bytes())
    table = rows(music)
    table.loc[table["path"] == str(beside), "label"] = "jazz"
    (music / "x").mkdir()
    table.loc[len(table)] = [str(music / "x" / ".." / "rock" / "rock.00001.wav"), "rock", 1]
    spec = written(table, tmp_path / "clips.csv")
    items = list(open_source(spec, TWO).items())
    assert len({item.name for item in items}) == len(items) == 8
    assert len(set(clip_ids(items))) == 8
    corpus = ingest(spec, resolve(spec, TWO), CorpusSettings(genres=TWO), tmp_path / "corpus")
    assert corpus.clips == 8


def test_clips_of_a_flat_folder_get_ids_of_their_genre(music: Path, tmp_path: Path) -> None:
    for genre in TWO:
        for path in (music / genre).iterdir():
            path.rename(music / f"{genre[0]}{path.name[-5]}.wav")
    table = pd.DataFrame({"path": sorted(path.name for path in music.glob("*.wav"))})
    table["label"] = ["Jazz" if name[0] == "j" else "ROCK" for name in table["path"]]
    items = open_source(written(table, music / "clips.csv"), TWO).items()
    assert clip_ids(list(items))[:2] == ["jazz.j0", "jazz.j1"]


def test_the_fingerprint_sees_labels_and_files(music: Path, tmp_path: Path) -> None:
    table = rows(music)
    spec = written(table, tmp_path / "clips.csv")
    before = resolve(spec, TWO)
    assert resolve(written(table[::-1], tmp_path / "clips.csv"), TWO) == before
    table.loc[0, "label"] = "rock"
    assert resolve(written(table, tmp_path / "clips.csv"), TWO) != before
    table.loc[0, "label"] = "jazz"
    (music / "jazz" / "jazz.00000.wav").write_bytes(b"other")
    assert resolve(written(table, tmp_path / "clips.csv"), TWO) != before


def test_a_file_that_is_not_there_goes_to_quarantine(music: Path, tmp_path: Path) -> None:
    (music / "jazz" / "jazz.00000.wav").unlink()
    table = rows(music)
    table.loc[len(table)] = [str(music / "gone.wav"), "jazz", 1]
    spec = written(table, tmp_path / "clips.csv")
    settings = CorpusSettings(genres=TWO, protocol="random")
    assert ingest(spec, resolve(spec, TWO), settings, tmp_path / "corpus").quarantined == 1


@pytest.mark.parametrize(
    ("path", "reported"),
    [
        (r"C:\Users\me\{}.wav", r"names paths of Windows, such as C:\\Users\\me\\jazz0.wav"),
        (r"music\{}.wav", r"names paths of Windows, such as music\\jazz0.wav"),
        (r"\\nas\music\{}.wav", "names paths of Windows"),
        ("D:/music/{}.wav", "names paths of Windows"),
        ("https://example.org/{}.wav?x=1", "names addresses, such as https://example.org/jazz0.wav?x=1"),
        ("s3://bucket/{}.wav", "names addresses"),
        ("gone/{}.wav", "None of the 4 files that"),
        ("/nowhere/{}.wav", "the first is /nowhere/jazz0.wav"),
        ("x" * 300 + "{}.wav", "None of the 4 files that"),
    ],
)
def test_a_table_that_names_no_file_here_is_rejected_when_it_is_listed(
    path: str, reported: str, tmp_path: Path
) -> None:
    table = pd.DataFrame(
        [{"path": path.format(f"{genre}{n}"), "label": genre} for genre in TWO for n in range(2)]
    )
    spec = written(table, tmp_path / "clips.csv")
    with pytest.raises(CorpusError) as caught:
        resolve(spec, TWO)
    assert reported in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_wrong_in_a_table_is_reported_with_its_place(music: Path, tmp_path: Path) -> None:
    good = rows(music)

    def spoiled(change: dict[str, object], suffix: str = ".csv") -> str:
        table = good.copy()
        table.loc[len(table)] = {"extra": 1} | change
        return refusal(written(table, tmp_path / f"bad{suffix}"))

    path = str(good["path"][0])
    assert "line 8: a" not in spoiled({"path": path, "label": "rock"})
    assert "line 8" in spoiled({"path": path, "label": "rock"})
    assert "is rock here and jazz above" in spoiled({"path": path, "label": "rock"})
    assert "row 7: the label is empty" in spoiled({"path": path, "label": None}, ".parquet")
    assert "line 8: the path is empty" in spoiled({"path": "", "label": "rock"})
    (tmp_path / "latin.csv").write_bytes("path,label\ncafé.wav,jazz\n".encode("latin-1"))
    assert "is not UTF-8" in refusal(str(tmp_path / "latin.csv"))
    (tmp_path / "broken.csv").write_text('path,label\n"a.wav,jazz\n')
    assert "not readable as CSV" in refusal(str(tmp_path / "broken.csv"))
    (tmp_path / "empty.csv").write_text("")
    assert "it has none" in refusal(str(tmp_path / "empty.csv"))
    (tmp_path / "null.csv").write_bytes(b"path,label\na\0.wav,jazz\n")
    assert r"line 2: a\x00.wav cannot be the name" in refusal(str(tmp_path / "null.csv"))
    (tmp_path / "fake.parquet").write_text("path,label")
    assert "not readable as parquet" in refusal(str(tmp_path / "fake.parquet"))
    good.to_parquet(tmp_path / "whole.parquet", index=False, compression=None)
    whole = (tmp_path / "whole.parquet").read_bytes()
    for place in (4, whole.index(b".wav")):  # a page's header, and a path that is no UTF-8 then
        (tmp_path / "bad.parquet").write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        message = refusal(str(tmp_path / "bad.parquet"))
        assert "not readable as parquet" in message
        assert "\n" not in message
    assert "There is no table" in refusal(str(tmp_path / "none.csv"))
    polka = good.assign(label="polka")
    assert "its column label has polka" in refusal(written(polka, tmp_path / "polka.csv"))
    assert "no row of the genre metal" in refusal(written(good, tmp_path / "clips.csv"), (*TWO, "metal"))


def test_unknown_labels_and_repeated_rows_are_reported(music: Path, tmp_path: Path) -> None:
    table = rows(music)
    table.loc[len(table)] = ["polka.wav", "polka", 1]
    table.loc[len(table)] = table.loc[0]
    notes = open_source(written(table, tmp_path / "clips.csv"), TWO).notes()
    assert "polka" in notes[0]
    assert "1 rows of clips.csv repeat" in notes[1]
