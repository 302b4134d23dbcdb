"""A table of paths and labels (CSV or parquet), by the names of its columns."""

import csv
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO
from urllib.parse import parse_qsl

from genreflow.core.digests import text_digest
from genreflow.core.errors import CorpusError, GenreCountError, SettingsError, one_line
from genreflow.core.genres import genre_key, genre_named
from genreflow.corpus.sources.base import (
    SourceItem,
    check_counts,
    file_state,
    genres_hint,
    is_missing,
    listed,
    shown,
)
from genreflow.features.descriptors import NAMES

SUFFIXES = (".csv", ".tsv", ".parquet")
DEFAULTS = {"path": "path", "label": "label"}
DELIMITERS = ",;\t"
LONGEST_FIELD = 1 << 16


def table_source(spec: str, genres: tuple[str, ...]) -> "TableSource":
    """`clips.csv`, or `clips.csv?path=file_name&label=genre` where the columns are called so.

    Raises:
        CorpusError: the table cannot be read, or has not these columns.
        SettingsError: a parameter that a table does not have.
    """
    name, _, query = spec.partition("?")
    columns = dict(DEFAULTS)
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in columns:
            raise SettingsError(
                f"A table has no parameter {key!r}; there are path and label, for its columns."
            )
        columns[key] = value
    return TableSource(Path(name).expanduser(), columns["path"], columns["label"], genres)


def names_audio(table: Path) -> bool:
    """Whether a CSV has a table's columns by their usual names; False where it cannot be read."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            there = next(csv.reader(file, delimiter=_delimiter(file)), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return set(DEFAULTS.values()) <= set(there)


def has_descriptors(columns: Sequence[str]) -> bool:
    """Whether columns are those of a table of descriptors without audio, a few of them missing or not."""
    return len(set(columns) & set(NAMES)) > len(NAMES) / 2


def is_table(spec: str) -> bool:
    """Whether a source is named like a table."""
    return Path(spec.partition("?")[0]).suffix.lower() in SUFFIXES


class TableSource:
    """Clips that lie anywhere, each with its label; relative paths are relative to the table's folder."""

    synthetic = False

    def __init__(self, table: Path, path: str, label: str, genres: tuple[str, ...]) -> None:
        self._genres, self._table = genres, table
        unknown: Counter[str] = Counter()
        labels: dict[Path, str] = {}
        names: list[str] = []
        self._repeated = 0
        for line, (name, text) in _rows(table, path, label):
            if not name.strip() or not text.strip():
                raise CorpusError(f"{table}, {line}: the {path if text.strip() else label} is empty.")
            if "\0" in name:
                raise CorpusError(f"{table}, {line}: {shown(name)} cannot be the name of a file.")
            genre = genre_named(text, genres)
            if genre is None:
                unknown[text.strip()] += 1
                continue
            file = table.parent / name.strip()
            if file not in labels:
                names.append(name.strip())
            if labels.setdefault(file, genre) != genre:
                raise CorpusError(f"{table}, {line}: {shown(name)} is {genre} here and {labels[file]} above.")
            self._repeated += 1
        self._repeated -= len(labels)
        self._unknown = sorted(unknown)
        if not labels:
            raise GenreCountError(
                f"No row of {table} has one of the labels {', '.join(genres)}; its column {label} has "
                f"{listed(self._unknown)}.{genres_hint(self._unknown)}",
                genres,
            )
        counts = Counter(labels.values())
        check_counts({genre: counts[genre] for genre in genres}, str(table), "row")
        self._files = sorted(
            (name, genre, file, file_state(file))
            for name, (file, genre) in zip(_names(labels), labels.items(), strict=True)
        )
        self._names = names

    def resolve(self) -> str:
        """sha256 over label, path, size and modification time of every file that the table names.

        Raises:
            CorpusError: none of them is there.
        """
        if all(is_missing(state) for _, _, _, state in self._files):
            raise CorpusError(_none_is_here(self._table, self._names))
        return text_digest(f"{genre} {name} {state}" for name, genre, _, state in self._files)

    def fetch(self) -> None:
        """Nothing: what a table names lies here."""

    def items(self) -> Iterator[SourceItem]:
        for name, genre, file, state in self._files:
            yield SourceItem(name, genre, lambda file=file: file, state)  # type: ignore[misc]

    def notes(self) -> list[str]:
        notes = []
        if self._unknown:
            notes.append(
                f"Ignored: rows of {self._table.name} with the labels {listed(self._unknown)}, "
                f"not among the genres {', '.join(self._genres)}."
            )
        if self._repeated:
            notes.append(f"{self._repeated} rows of {self._table.name} repeat another row's path.")
        return notes


def _none_is_here(table: Path, names: Sequence[str]) -> str:
    """The sentence about a table none of whose files is here."""
    first = shown(names[0])
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", names[0]):
        return (
            f"{table} names addresses, such as {first}, and the files of a table lie on this machine. Fetch "
            "them, and put their paths into the table."
        )
    if "\\" in names[0] or re.match(r"[A-Za-z]:", names[0]):
        return (
            f"{table} names paths of Windows, such as {first}, and no file is there. Write them with forward "
            "slashes, relative to the table's folder or from / on."
        )
    return (
        f"None of the {len(names)} files that {table} names is there; the first is "
        f"{shown(str(table.parent / names[0]))}. Relative paths are relative to the table's folder."
    )


def _rows(table: Path, path: str, label: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Where each row is, and its path and label."""
    try:
        if table.suffix.lower() == ".parquet":
            yield from _parquet_rows(table, path, label)
        else:
            yield from _csv_rows(table, path, label)
    except FileNotFoundError:
        raise CorpusError(f"There is no table {table}.") from None
    except OSError as error:
        if error.errno is None:  # pyarrow's complaint, not the disk's
            raise _damaged(table, error) from error
        raise CorpusError(f"{table} cannot be read: {error.strerror}.") from error


def _damaged(table: Path, error: Exception) -> CorpusError:
    return CorpusError(f"{table} is not readable as parquet: {one_line(error)}")


def _csv_rows(table: Path, path: str, label: str) -> Iterator[tuple[str, tuple[str, str]]]:
    csv.field_size_limit(LONGEST_FIELD)
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=_delimiter(file), strict=True)
            _check_columns(table, list(reader.fieldnames or ()), path, label)
            for row in reader:
                yield f"line {reader.line_num}", (row[path] or "", row[label] or "")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{table} is not UTF-8 text; save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise CorpusError(
            f"{table} is not readable as CSV, line {reader.line_num}: {one_line(error)}."
        ) from error


def _delimiter(file: TextIO) -> str:
    """What a CSV's first line has most of; the file is at its beginning again."""
    header = file.readline()
    file.seek(0)
    return max(DELIMITERS, key=header.count)


def _parquet_rows(table: Path, path: str, label: str) -> Iterator[tuple[str, tuple[str, str]]]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(table) as file:
            _check_columns(table, file.schema_arrow.names, path, label)
            row = 0
            for batch in file.iter_batches(columns=[path, label]):
                paths, labels = batch.column(path), batch.column(label)
                for name, text in zip(paths.to_pylist(), labels.to_pylist(), strict=True):
                    row += 1
                    yield f"row {row}", ("" if name is None else str(name), "" if text is None else str(text))
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(table, error) from error


def _check_columns(table: Path, there: list[str], path: str, label: str) -> None:
    missing = [column for column in (path, label) if column not in there]
    if path in missing and has_descriptors(there):
        raise CorpusError(
            f"{table} is a table of descriptors without audio: no model of it can be evaluated on audio or "
            f"served. Study it with: genreflow study --source {shlex.quote(str(table))}"
        )
    if missing:
        raise CorpusError(
            f"{table} has no column {' and no column '.join(missing)}; it has {listed(there) or 'none'}. "
            f"Name them: --source {shlex.quote(f'{table}?path=COLUMN&label=COLUMN')} for instance."
        )


def _names(files: dict[Path, str]) -> list[str]:
    """What files with their genres are called: no two alike.

    By the path below the folder that all share or, of files that would be called alike, by the whole path.
    """
    common = _common(files)
    found = [_name(file, genre, common) for file, genre in files.items()]
    seen = Counter(found)
    return [
        name if seen[name] == 1 else f"{genre}/{shown(str(file).lstrip('/'))}"
        for name, (file, genre) in zip(found, files.items(), strict=True)
    ]


def _common(files: dict[Path, str]) -> str:
    parents = {str(file.parent) for file in files}
    return os.path.commonpath(parents) if len({file.is_absolute() for file in files}) == 1 else ""


def _name(file: Path, genre: str, common: str) -> str:
    """The path below the folder that all share, and below the genre, as a folder of clips would have it."""
    name = os.path.relpath(file, common) if common else str(file)
    first, slash, _ = name.partition("/")
    return shown(name) if slash and genre_key(first) == genre_key(genre) else f"{genre}/{shown(name)}"
