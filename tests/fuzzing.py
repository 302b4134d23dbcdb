"""Fuzzing that is guided by coverage (atheris): each target is run in a process of its own, which may crash.

`python tests/fuzzing.py TARGET [libFuzzer's options and folders]`; with a file it runs that one input. An
input ends well, or in the project's own error: anything else ends the process, and the input is kept.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

OURS = ["genreflow.audio", "genreflow.corpus.sources", "soundfile", "tarfile", "zipfile", "csv"]
"""Modules whose branches guide the search. Libraries in C cannot: they only crash."""
with atheris.instrument_imports(include=OURS):
    import numpy as np

    from genreflow.audio import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Audio, decode
    from genreflow.core.errors import AudioError, CorpusError, GenreflowError
    from genreflow.corpus.sources import hub, unpack
    from genreflow.corpus.sources.table import TableSource

MOST_SECONDS = 60.0
MOST_BYTES = 8 << 20
"""What a small archive may unpack to here: the real bound would only make the search slow."""
GENRES = ("jazz", "rock")

unpack.RATIO_FREE_BYTES = MOST_BYTES
work = Path(tempfile.mkdtemp(prefix="genreflow-fuzzing-"))


def reported(error: GenreflowError) -> None:
    """An error is one line, and no file was unreadable: all of them lie here."""
    assert len(str(error).splitlines()) == 1, str(error)
    assert getattr(error, "reason", None) != "unreadable", str(error)


def decoding(data: bytes) -> None:
    """As bytes and as a file, which libsndfile reads by other ways."""
    file = work / "sound"
    file.write_bytes(data)
    for actual in (_decoded(data), _decoded(file)):
        if actual is not None:
            assert len(actual.samples) > 0
            assert np.isfinite(actual.samples).all()
            assert actual.seconds <= MOST_SECONDS + 1
            assert MIN_SAMPLE_RATE <= actual.sample_rate <= MAX_SAMPLE_RATE


def _decoded(source: bytes | Path) -> Audio | None:
    try:
        return decode(source, "sound", max_seconds=MOST_SECONDS)
    except AudioError as error:
        reported(error)
        return None


def unpacking(data: bytes) -> None:
    """A tar or zip, recognised by its bytes: plain files below the folder, within the bound, or nothing."""
    archive, folder = work / "archive", work / "out" / "unpacked"
    archive.write_bytes(data)
    before = set(work.iterdir())
    try:
        unpack.unpack(archive, folder)
    except CorpusError as error:
        reported(error)
        assert not folder.exists()
    else:
        unpack.unpacked(folder)
        for path in folder.rglob("*"):
            assert not path.is_symlink()
            assert path.is_file() or path.is_dir()
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= MOST_BYTES + 4096
    assert set(work.iterdir()) <= before | {work / "out"}
    if folder.parent.exists():
        assert {path.name for path in folder.parent.iterdir()} <= {"unpacked"}
        shutil.rmtree(folder.parent)


def reading_csv(data: bytes) -> None:
    _read_table("clips.csv", data)


def reading_parquet(data: bytes) -> None:
    """As a table of paths, and as a hub's file of audio and labels."""
    _read_table("clips.parquet", data)
    folder = work / "rows"
    folder.mkdir()
    try:
        hub._write_rows("hf://datasets/a/b", [work / "clips.parquet"], folder)
    except CorpusError as error:
        reported(error)
    finally:
        shutil.rmtree(folder)


def _read_table(name: str, data: bytes) -> None:
    table = work / name
    table.write_bytes(data)
    try:
        source = TableSource(table, "path", "label", GENRES)
        names = [item.name for item in source.items()]
        assert all(len(name.splitlines()) == 1 for name in names)
        source.notes()
        source.resolve()
    except CorpusError as error:
        reported(error)


def raising(data: bytes) -> None:
    """A target with a bug, for the test of this file."""
    assert not data.startswith(b"bug")


def crashing(data: bytes) -> None:
    """A target in which a library crashes, for the test of this file."""
    if data.startswith(b"bug"):
        os.abort()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "decode": decoding,
    "tar": unpacking,
    "zip": unpacking,
    "csv": reading_csv,
    "parquet": reading_parquet,
    "raising": raising,
    "crashing": crashing,
}

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
