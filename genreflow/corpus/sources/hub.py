"""Data sets of a Hugging Face hub: an archive, parquet files with audio and labels, or genre folders.

The hub is `HF_ENDPOINT`'s, the token `HF_TOKEN`; files lie in the hub's own cache under `HF_HOME`, where the
library resumes and checks them.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from genreflow.core import home, hub
from genreflow.core.digests import text_digest
from genreflow.core.errors import CorpusError, FetchError
from genreflow.core.progress import MB, Reporter, report
from genreflow.corpus.sources.archive import SUFFIXES, UnpackedSource
from genreflow.corpus.sources.base import folder_name, listed, shown
from genreflow.corpus.sources.listing import Names, label
from genreflow.corpus.sources.unpack import build, unpack

STEP = "ingest"
SPECIFICATION = re.compile(
    r"hf://datasets/(?P<repository>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w.-]+))?(/(?P<path>.+))?"
)
SPLIT = re.compile(r"(?:^|[/_-])(train|validation|valid|val|dev|test)[/_.-]")
"""In the path of a parquet file, as `datasets` writes it: `data/train-00000-of-00002.parquet`."""
LABELS = ("label", "genre", "genres", "labels")
ROWS_AT_ONCE = 16
LONGEST_NAME = 60
HUB_LAYOUT = "hub 2"
"""In the fingerprint: what an earlier version made of the same files is not reused."""
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
    with hub.translate_errors(spec, "read", FetchError, AGAIN):
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
    left_alone: tuple[str, ...] = ()
    if archives:
        chosen = archives
    elif tables:
        chosen = tables
    else:
        listing = label(Names(names), genres, spec)
        left_alone = listing.left_alone
        chosen = [file.path for file in listing.files]
        chosen += [name for name in names if PurePosixPath(name).name == "synthetic.json"]

    def make(folder: Path) -> None:
        files = _download(spec, repository, commit, chosen)
        if archives:
            unpack(files[0], folder, Reporter(STEP, f"MB of {shown(chosen[0])} unpacked", MB))
        elif tables:
            build(folder, lambda partial: _write_rows(spec, files, partial, _splits(tables)))
        else:
            build(folder, lambda partial: [*_link(chosen, files, partial), *left_alone])

    fingerprint = text_digest([HUB_LAYOUT, commit, *map(shown, chosen)])
    folder = home.corpora_folder() / f"hf-{repository.replace('/', '-')[:LONGEST_NAME]}-{fingerprint[:12]}"
    return UnpackedSource(folder, fingerprint, make, genres)


def _download(spec: str, repository: str, commit: str, names: list[str]) -> list[Path]:
    """The files in the hub's cache, in order."""
    with hub.translate_errors(spec, "read", FetchError, AGAIN):
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


def _splits(tables: list[str]) -> list[str]:
    """The split that the name of each parquet file says, empty unless all do and there are several."""
    found = [SPLIT.search(name) for name in tables]
    splits = [match[1] for match in found if match is not None]
    return splits if len(splits) == len(tables) and len(set(splits)) > 1 else [""] * len(tables)


def _write_rows(spec: str, files: list[Path], folder: Path, splits: Sequence[str] = ()) -> list[str]:
    """Every row's audio as a file in the folder of its label, below that of the file's split if given."""
    import pyarrow
    import pyarrow.parquet as parquet

    row, empty = 0, 0
    for file, split in zip(files, splits or [""] * len(files), strict=True):
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
                        _write_row(folder / split, genre, name, row, content)
        except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk's complaint, not pyarrow's
                raise
            raise CorpusError(f"{spec}: {file.name} is not readable as parquet.") from error
    return [f"{empty} rows of {spec} have no audio or no label."] if empty else []


def _write_row(folder: Path, genre: str, name: str, row: int, content: bytes) -> None:
    place = folder / folder_name(genre)
    place.mkdir(parents=True, exist_ok=True)
    plain = PurePosixPath(name).name.replace("\0", "_")[-LONGEST_NAME:].lstrip(".")
    target = place / (plain or f"{row:07d}")
    if target.exists():
        target = place / f"{row:07d}-{plain}"
    target.write_bytes(content)


def _genre(names: list[str] | None, label: Any) -> str | None:
    """What a label means; None for a row without one (-1, in a column of numbers)."""
    if names is not None and isinstance(label, int):
        label = names[label] if 0 <= label < len(names) else None
    return None if label is None else str(label).strip() or None


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
