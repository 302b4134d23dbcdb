"""Archives as sources: every compression, and what a hostile one may not do."""

import gzip
import io
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sounds import genre_folder, tone, write

from genreflow.core.errors import CorpusError
from genreflow.corpus.ingest import ingest, resolve
from genreflow.corpus.settings import CorpusSettings
from genreflow.corpus.sources import open_source, shown
from genreflow.corpus.sources import unpack as unpacking
from genreflow.corpus.sources.unpack import unpack
from genreflow.corpus.store import Corpus
from genreflow.corpus.synthetic import synthesise

TWO = ("jazz", "rock")
ODD = {
    "newline": "one\ntwo.wav",
    "emoji": "🎷👩‍👩‍👧 solo.wav",
    "right to left": "gpj.\u202evaw.wav",
    "255 bytes": "x" * 251 + ".wav",
    "not utf-8": os.fsdecode(b"caf\xe9.wav"),
    "backslash": "a\\b.wav",
    "option": "-rf.wav",
    "blanks": "  .wav",
}


@pytest.fixture
def music(tmp_path: Path) -> Path:
    return genre_folder(tmp_path / "music", clips=2)


def pack_tar(folder: Path, path: Path, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        tar.add(folder, "genres")
    return path


def pack_zip(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(folder.rglob("*.wav")):
            packed.write(file, f"main/genres/{file.relative_to(folder)}")
    return path


def members(path: Path, *entries: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    """A tar of exactly these entries."""
    with tarfile.open(path, "w") as tar:
        for entry in entries:
            if isinstance(entry, tuple):
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                tar.addfile(info, io.BytesIO(entry[1]))
            else:
                tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    return path


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def refusal(archive: Path, target: Path) -> str:
    """What is said of an archive, of which nothing may be left."""
    with pytest.raises(CorpusError) as caught:
        unpack(archive, target)
    assert not target.exists()
    assert not [path for path in target.parent.iterdir() if "partial" in path.name]
    return str(caught.value)


def compressed(kind: str) -> Callable[[Path, Path], Path]:
    def pack(folder: Path, path: Path) -> Path:
        plain = pack_tar(folder, path.with_name("plain.tar"))
        with pyarrow.output_stream(str(path), compression=kind) as out:
            out.write(plain.read_bytes())
        return path

    return pack


PACKERS: dict[str, Callable[[Path, Path], Path]] = {
    "tar": pack_tar,
    "gz": lambda folder, path: pack_tar(folder, path, "w:gz"),
    "bz2": lambda folder, path: pack_tar(folder, path, "w:bz2"),
    "xz": lambda folder, path: pack_tar(folder, path, "w:xz"),
    "zstd": compressed("zstd"),
    "lz4": compressed("lz4"),
    "zip": pack_zip,
}


@pytest.mark.parametrize("kind", PACKERS)
def test_an_archive_holds_the_clips_of_its_folder_whatever_its_name(
    kind: str, music: Path, tmp_path: Path
) -> None:
    archive = PACKERS[kind](music, tmp_path / "music.download")
    items = list(open_source(str(archive), TWO).items())
    assert {item.name: item.genre for item in items} == {
        f"{genre}/{genre}.0000{clip}.wav": genre for genre in TWO for clip in range(2)
    }
    assert [item.open().read_bytes() for item in items] == [
        (music / item.name).read_bytes() for item in items
    ]


def test_an_archive_is_unpacked_once_and_its_dates_are_kept(music: Path, tmp_path: Path) -> None:
    os.utime(music / "jazz" / "jazz.00000.wav", (1_000_000, 1_000_000))
    archive = pack_tar(music, tmp_path / "music.tar.gz", "w:gz")
    first = next(open_source(str(archive), TWO).items()).open()
    made = first.parent.stat().st_ino
    again = next(open_source(str(archive), TWO).items()).open()
    assert again == first
    assert again.parent.stat().st_ino == made
    assert first.stat().st_mtime == 1_000_000


def test_listing_an_archive_unpacks_nothing_and_detects_a_changed_one(music: Path, tmp_path: Path) -> None:
    archive = pack_tar(music, tmp_path / "music.tar")
    before = resolve(str(archive), TWO)
    assert resolve(str(archive), TWO) == before
    assert not (tmp_path / "home").exists()
    (music / "jazz" / "jazz.00001.wav").rename(music / "jazz" / "new.wav")
    pack_tar(music, archive)
    assert resolve(str(archive), TWO) != before


def test_a_corpus_from_an_archive_equals_that_of_its_folder(tmp_path: Path) -> None:
    music = genre_folder(tmp_path / "music")
    archive = pack_tar(music, tmp_path / "music.tgz", "w:gz")
    settings = CorpusSettings(genres=TWO)
    fingerprints = {
        ingest(str(source), resolve(str(source), TWO), settings, tmp_path / f"corpus{i}").fingerprint
        for i, source in enumerate((music, archive))
    }
    assert len(fingerprints) == 1


def test_unpacked_files_that_were_altered_are_noticed(music: Path, tmp_path: Path) -> None:
    archive = pack_tar(music, tmp_path / "music.tar")
    path = next(open_source(str(archive), TWO).items()).open()
    path.write_bytes(b"something else")
    with pytest.raises(CorpusError, match="Delete it, and it will be made again"):
        list(open_source(str(archive), TWO).items())


def test_an_archive_of_synthesised_music_stays_synthetic(tmp_path: Path) -> None:
    synthesise(tmp_path / "mine", clips_per_genre=2, seconds=1.0, seed=0)
    archive = pack_tar(tmp_path / "mine", tmp_path / "real-music.tar")
    assert open_source(str(archive), TWO).synthetic


@pytest.mark.parametrize("name", ["../outside.wav", "genres/../../outside.wav", "/tmp/outside.wav"])
@pytest.mark.parametrize("kind", ["tar", "zip", "windows"])
def test_an_archive_that_names_a_place_outside_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    archive = tmp_path / "in" / "hostile"
    archive.parent.mkdir()
    if kind == "tar":
        members(archive, ("jazz/good.wav", b"x"), (name, b"x"))
    else:
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr(name.replace("/", "\\") if kind == "windows" else name, b"x")
    assert "names a place outside of itself" in refusal(archive, tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("outside.wav"))


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_name_with_dots_that_stays_inside_the_folder_is_unpacked(kind: str, tmp_path: Path) -> None:
    if kind == "tar":
        archive = members(tmp_path / "climbing", ("jazz/extra/../a.wav", b"x"))
    else:
        archive = tmp_path / "climbing"
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("jazz/extra/../a.wav", b"x")
    unpack(archive, tmp_path / "out")
    assert list((tmp_path / "out").rglob("*.wav")) == [tmp_path / "out" / "jazz" / "a.wav"]


def test_links_and_devices_are_left_out_and_reported(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    archive = members(
        tmp_path / "links.tar",
        special("jazz/link.wav", tarfile.SYMTYPE, str(secret)),
        special("jazz/hard.wav", tarfile.LNKTYPE, str(secret)),
        special("jazz/folder", tarfile.SYMTYPE, str(tmp_path)),
        ("jazz/folder/planted.wav", b"planted"),
        special("jazz/null.wav", tarfile.CHRTYPE),
        special("jazz/disk.wav", tarfile.BLKTYPE),
        special("jazz/pipe.wav", tarfile.FIFOTYPE),
    )
    unpack(archive, tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if not path.is_dir() and path.name[0] != "."]
    assert [path.relative_to(tmp_path / "out").as_posix() for path in files] == ["jazz/folder/planted.wav"]
    assert not (tmp_path / "planted.wav").exists()
    notes = unpacking.unpacked(tmp_path / "out").notes
    assert any("3 links" in note and "jazz/link.wav" in note for note in notes)
    assert any("3 entries that are no files" in note for note in notes)


def test_a_link_in_a_zip_is_left_out(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("jazz/link.wav")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as packed:
        packed.writestr(link, "/etc/passwd")
        packed.writestr("jazz/good.wav", b"x")
    unpack(tmp_path / "links.zip", tmp_path / "out")
    assert not (tmp_path / "out" / "jazz" / "link.wav").exists()
    assert "1 links" in unpacking.unpacked(tmp_path / "out").notes[0]


def test_a_million_entries_are_refused_before_the_last(tmp_path: Path) -> None:
    ten_thousand = gzip.compress(special("jazz", tarfile.DIRTYPE).tobuf() * 10_000, 1)
    (tmp_path / "many.tar.gz").write_bytes(ten_thousand * 100)
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom genreflow.corpus.sources import unpack\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "unpack.MOST_ENTRIES = 50_000\n"  # as many as there are take 10 s
        "try: unpack.unpack(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    unpacking_it = [sys.executable, "-c", code, str(tmp_path / "many.tar.gz"), str(tmp_path / "out")]
    done = subprocess.run(unpacking_it, capture_output=True, text=True, check=True, timeout=120)
    assert f"CorpusError The archive {tmp_path}/many.tar.gz has more than 50,000 entries" in done.stdout


def test_a_zip_of_a_million_entries_is_refused_by_its_directory(tmp_path: Path) -> None:
    path = pack_zip(genre_folder(tmp_path / "music", clips=1), tmp_path / "many.zip")
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x05\x06")
    struct.pack_into("<HHI", data, at + 8, 65_535, 65_535, 900 << 20)
    path.write_bytes(data)
    assert "has a directory of 943,718,400 bytes" in refusal(path, tmp_path / "out")


@pytest.mark.parametrize("kind", ["gz", "zip"])
def test_a_bomb_is_refused_after_bounded_work(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "RATIO_FREE_BYTES", 8 << 20)
    content = bytes(64 << 20)
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("jazz/zeros.wav", content)
    else:
        members(tmp_path / "plain", ("jazz/zeros.wav", content))
        (tmp_path / "bomb").write_bytes(gzip.compress((tmp_path / "plain").read_bytes(), 1))
    reported: list[int] = []
    monkeypatch.setattr(unpacking._Writer, "grow", _spy(unpacking._Writer.grow, reported), raising=True)
    assert "a decompression bomb" in refusal(tmp_path / "bomb", tmp_path / "out")
    assert sum(reported) < 64 << 20


def _spy(grow: Callable[..., None], reported: list[int]) -> Callable[..., None]:
    def counted(self: object, size: int) -> None:
        reported.append(size)
        grow(self, size)

    return counted


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 2 << 30
    with gzip.open(tmp_path / "pax.tar.gz", "wb", compresslevel=1) as file:
        file.write(info.tobuf() + bytes(4 << 20))
    assert "made to exhaust memory" in refusal(tmp_path / "pax.tar.gz", tmp_path / "out")


def test_a_sparse_file_is_left_out(tmp_path: Path) -> None:
    info = tarfile.TarInfo("jazz/sparse.wav")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"00000000000\0" * 2
    header[483:495] = b"77777777777\0"  # 8 GiB of nothing
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "sparse.tar").write_bytes(bytes(header) + bytes(1024))
    unpack(tmp_path / "sparse.tar", tmp_path / "out")
    assert "sparse" in unpacking.unpacked(tmp_path / "out").notes[0]


@pytest.mark.parametrize("kind", PACKERS)
def test_an_archive_that_is_cut_short_is_refused(kind: str, music: Path, tmp_path: Path) -> None:
    archive = PACKERS[kind](music, tmp_path / "cut")
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) * 2 // 3])
    assert "damaged or cut short" in refusal(archive, tmp_path / "out")


def test_a_tar_that_ends_between_two_members_is_refused(tmp_path: Path) -> None:
    archive = members(tmp_path / "a.tar", ("jazz/a.wav", bytes(512)), ("jazz/b.wav", bytes(512)))
    archive.write_bytes(archive.read_bytes()[:1024])
    assert "there is no end mark" in refusal(archive, tmp_path / "out")


def test_a_tar_with_a_damaged_header_in_its_middle_is_refused(tmp_path: Path) -> None:
    archive = members(tmp_path / "a.tar", ("jazz/a.wav", bytes(512)), ("jazz/b.wav", bytes(512)))
    data = bytearray(archive.read_bytes())
    data[1030] ^= 1
    archive.write_bytes(data)
    assert "there is no end mark" in refusal(archive, tmp_path / "out")


def test_a_zip_member_without_a_name_is_passed_over(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for name in ("x", "jazz/a.wav"):
            packed.writestr(name, b"abc")
    data = (tmp_path / "a.zip").read_bytes()
    name_length = data.index(b"PK\x01\x02") + 28
    nameless = data[:name_length] + b"\0\0" + data[name_length + 2 :]
    at = name_length + 18
    (tmp_path / "a.zip").write_bytes(nameless[:at] + nameless[at + 1 :])
    # the directory, whose size the end record claims, is a byte shorter now
    data = bytearray((tmp_path / "a.zip").read_bytes())
    size = data.rindex(b"PK\x05\x06") + 12
    data[size : size + 4] = struct.pack("<I", struct.unpack_from("<I", data, size)[0] - 1)
    (tmp_path / "a.zip").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        assert packed.namelist() == ["", "jazz/a.wav"]
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*.wav")] == ["a.wav"]


def test_an_encrypted_zip_is_reported(tmp_path: Path, music: Path) -> None:
    path = pack_zip(music, tmp_path / "locked.zip")
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            data[at + offset] |= 1
    path.write_bytes(data)
    assert "is encrypted" in refusal(path, tmp_path / "out")


def test_what_is_no_archive_is_reported(tmp_path: Path) -> None:
    song = write(tmp_path / "song.wav", tone())
    with pytest.raises(CorpusError, match="is a file"):
        open_source(str(song), TWO)
    with pytest.raises(CorpusError, match="There is no archive"):
        open_source(str(tmp_path / "genres.tar.gz"), TWO)
    (tmp_path / "page.tar.gz").write_text("<html>not found</html>")
    assert "neither a tar nor a zip" in refusal(tmp_path / "page.tar.gz", tmp_path / "out")


def test_an_archive_that_is_replaced_while_it_is_unpacked_is_reported(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack_tar(music, tmp_path / "music.tar")
    source = open_source(str(archive), TWO)
    os.utime(archive)
    with pytest.raises(CorpusError, match="was changed while it was unpacked"):
        source.fetch()
    assert not list((tmp_path / "home" / "corpora").iterdir())


def test_odd_names_survive_the_archive_and_the_ingest(tmp_path: Path) -> None:
    music = genre_folder(tmp_path / "music", clips=2)
    for number, name in enumerate(ODD.values()):
        write(music / "jazz" / "plain.wav", tone(1.2, 8_000, 300 + number), 8_000)
        (music / "jazz" / "plain.wav").rename(music / "jazz" / name)
    archive = pack_tar(music, tmp_path / "odd.tar.gz", "w:gz")
    settings = CorpusSettings(genres=TWO)
    for number, source in enumerate((music, archive)):
        out = tmp_path / f"corpus{number}"
        document = ingest(str(source), resolve(str(source), TWO), settings, out)
        assert document.quarantined == 0
        manifest = Corpus.open(out).manifest
        assert set(manifest["source"]) >= {f"jazz/{shown(name)}" for name in ODD.values()}
        assert manifest["clip_id"].is_unique
        assert not any(set(source) & set("\n\u202e") for source in manifest["source"])


def test_a_name_that_this_disk_cannot_hold_is_left_out_and_reported(tmp_path: Path) -> None:
    archive = members(tmp_path / "long.tar", ("jazz/" + "é" * 200 + ".wav", b"x"), ("jazz/a.wav", b"x"))
    unpack(archive, tmp_path / "out")
    assert "names are too long" in unpacking.unpacked(tmp_path / "out").notes[0]


@given(st.lists(st.text(max_size=4), unique=True, max_size=8))
def test_shown_names_are_one_line_and_stay_different(names: list[str]) -> None:
    assert len({shown(name) for name in names}) == len(names)
    assert all(len(shown(name).splitlines()) <= 1 for name in names)


@given(
    kind=st.sampled_from(["tar", "gz", "zip", "xz"]),
    damage=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_archive_is_refused_or_unpacked_but_never_breaks(
    kind: str, damage: list[tuple[float, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    write(folder / "jazz" / "a.wav", tone(0.1, 8_000), 8_000)
    archive = PACKERS[kind](folder / "jazz", folder / "archive")
    content = bytearray(archive.read_bytes())
    for where, byte in damage:
        content[int(where * len(content))] = byte
    archive.write_bytes(content)
    before = set(folder.iterdir())
    try:
        unpack(archive, folder / "out" / "x")
    except CorpusError as error:
        assert "\n" not in str(error)  # noqa: PT017
    finally:
        assert set(folder.iterdir()) - before <= {folder / "out"}
        shutil.rmtree(folder)
