"""Data sets of a Hugging Face hub: an archive, parquet files with audio and labels, or genre folders.

The hub is `HF_ENDPOINT`'s, the token `HF_TOKEN`; files lie in the hub's own cache under `HF_HOME`, where the
library resumes and checks them.
"""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from genreflow import home, hub
from genreflow.artifacts import text_digest
from genreflow.corpus.sources.archive import SUFFIXES, UnpackedSource
from genreflow.corpus.sources.base import listed, shown
from genreflow.corpus.sources.listing import label
from genreflow.corpus.sources.unpack import build, unpack
from genreflow.errors import CorpusError, FetchError
from genreflow.progress import MB, Reporter, report

STEP = "ingest"
SPECIFICATION = re.compile(
    r"hf://datasets/(?P<repository>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w.-]+))?(/(?P<path>.+))?"
)
LABELS = ("label", "genre", "genres", "labels")
ROWS_AT_ONCE = 16
LONGEST_NAME = 60
AGAIN = "run again later; what was fetched is kept"


def hub_source(spec: str, genres: tuple[str, ...]) -> UnpackedSource:
    """`hf://datasets/owner/name[@revision][/file or folder]`; its fingerprint is the commit and the files.

    Of a repository with one archive the archive is taken, else its parquet files, else its genre folders.

    Raises:
        FetchError: the hub does not give it.
        CorpusError: nothing in it is a source.
    """
    match = SPECIFICATION.fullmatch(spec.rstrip("/"))
    if match is None:
        raise CorpusError(f"{spec} is no source: hf://datasets/OWNER/NAME is one, with @REVISION or /FILE.")
    repository, path = match["repository"], match["path"]
    with hub.asking(spec, "read", FetchError, AGAIN):
        from huggingface_hub import HfApi

        info = HfApi().dataset_info(repository, revision=match["revision"])
    commit = str(info.sha)
    names = sorted(file.rfilename for file in info.siblings or ())
    if path:
        names = [name for name in names if name == path or name.startswith(f"{path}/")]
        if not names:
            raise CorpusError(f"{repository} has no file or folder {path}.")
    archives = [name for name in names if name.lower().endswith(SUFFIXES)]
    tables = [name for name in names if name.endswith(".parquet")]
    if len(archives) > 1:
        raise CorpusError(f"{repository} has several archives: {listed(archives)}. Name one: {spec}/FILE.")
    if archives:
        chosen = archives
    elif tables:
        chosen = tables
    else:
        chosen = [name for name, _, _ in label(names, genres, spec).files]
        chosen += [name for name in names if PurePosixPath(name).name == "synthetic.json"]

    def make(folder: Path) -> None:
        files = _download(spec, repository, commit, chosen)
        if archives:
            unpack(files[0], folder, Reporter(STEP, f"MB of {shown(chosen[0])} unpacked", MB))
        elif tables:
            build(folder, lambda partial: _write_rows(spec, files, partial))
        else:
            build(folder, lambda partial: _link(chosen, files, partial))

    fingerprint = text_digest(["hub", commit, *map(shown, chosen)])
    folder = home.corpora_folder() / f"hf-{repository.replace('/', '-')[:LONGEST_NAME]}-{fingerprint[:12]}"
    return UnpackedSource(folder, fingerprint, make, genres)


def _download(spec: str, repository: str, commit: str, names: list[str]) -> list[Path]:
    """The files in the hub's cache, in order."""
    with hub.asking(spec, "read", FetchError, AGAIN):
        from huggingface_hub import snapshot_download

        report(STEP, f"fetching {len(names)} files of {repository}")
        folder = snapshot_download(
            repository,
            repo_type="dataset",
            revision=commit,
            allow_patterns=[_literally(name) for name in names],
        )
    files = [Path(folder) / name for name in names]
    if missing := [name for name, file in zip(names, files, strict=True) if not file.is_file()]:
        raise FetchError(f"{spec} did not give {listed(missing, 3)}. Run again.")
    return files


def _literally(name: str) -> str:
    """A name as a pattern that matches nothing else."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _link(names: list[str], files: list[Path], folder: Path) -> list[str]:
    for name, file in zip(names, files, strict=True):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        content = file.resolve()
        try:
            os.link(content, target)
        except OSError:  # another disk
            shutil.copyfile(content, target)
    return []


def _write_rows(spec: str, files: list[Path], folder: Path) -> list[str]:
    """Every row's audio as a file in the folder of its label."""
    import pyarrow
    import pyarrow.parquet as parquet

    row, empty = 0, 0
    for file in files:
        try:
            with parquet.ParquetFile(file) as table:
                audio, text = _columns(spec, table.schema_arrow)
                names = _class_names(table.schema_arrow, text)
                for batch in table.iter_batches(ROWS_AT_ONCE, columns=[audio, text]):
                    for sound, which in zip(
                        batch.column(audio).to_pylist(), batch.column(text).to_pylist(), strict=True
                    ):
                        content, name = (sound, "") if isinstance(sound, bytes) else _sound(sound)
                        row += 1
                        genre = _genre(names, which)
                        if content is None or genre is None:
                            empty += 1
                            continue
                        _write_row(folder, genre, name, row, content)
        except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk's complaint, not pyarrow's
                raise
            raise CorpusError(f"{spec}: {file.name} is not readable as parquet.") from error
    return [f"{empty} rows of {spec} have no audio or no label."] if empty else []


def _write_row(folder: Path, genre: str, name: str, row: int, content: bytes) -> None:
    place = folder / (re.sub(r"[^\w -]", "_", genre)[:LONGEST_NAME] or "_")
    place.mkdir(exist_ok=True)
    plain = re.sub(r"[^\w. -]", "_", PurePosixPath(name).name).lstrip(".")[-LONGEST_NAME:]
    target = place / (plain or f"{row:07d}")
    if target.exists():
        target = place / f"{row:07d}-{plain}"
    target.write_bytes(content)


def _genre(names: list[str] | None, label: Any) -> str | None:
    """What a label means; None for a row without one (-1, in a column of numbers)."""
    if names is None or not isinstance(label, int):
        return None if label is None else str(label)
    return names[label] if 0 <= label < len(names) else None


def _sound(value: Any) -> tuple[bytes | None, str]:
    if not isinstance(value, dict):
        return None, ""
    content, path = value.get("bytes"), value.get("path")
    return content if isinstance(content, bytes) else None, path if isinstance(path, str) else ""


def _columns(spec: str, schema: Any) -> tuple[str, str]:
    """The columns of audio and of labels."""
    import pyarrow

    def holds_audio(kind: Any) -> bool:
        if pyarrow.types.is_struct(kind):
            return any(field.name == "bytes" for field in kind)
        return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))

    audio = next((field.name for field in schema if holds_audio(field.type)), None)
    text = next((name for name in LABELS if name in schema.names), None)
    if audio is None or text is None:
        raise CorpusError(
            f"The parquet files of {spec} have no column with the bytes of audio, or none called "
            f"{' or '.join(LABELS[:2])}; they have {listed(schema.names)}."
        )
    return audio, text


def _class_names(schema: Any, column: str) -> list[str] | None:
    """What the numbers of a label column mean, as `datasets` writes it down."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    return None
