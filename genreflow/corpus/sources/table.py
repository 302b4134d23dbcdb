"""A table of paths and labels (CSV or parquet), by the names of its columns."""

import csv
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

from genreflow.artifacts import text_digest
from genreflow.corpus.sources.base import SourceItem, check_counts, file_state, listed, same_genre, shown
from genreflow.errors import CorpusError, SettingsError

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
        self._repeated = 0
        for line, (name, text) in _rows(table, path, label):
            if not name.strip() or not text.strip():
                raise CorpusError(f"{table}, {line}: the {path if text.strip() else label} is empty.")
            if "\0" in name:
                raise CorpusError(f"{table}, {line}: {shown(name)} cannot be the name of a file.")
            genre = next((genre for genre in genres if same_genre(text, genre)), None)
            if genre is None:
                unknown[text.strip()] += 1
                continue
            file = table.parent / name.strip()
            if labels.setdefault(file, genre) != genre:
                raise CorpusError(f"{table}, {line}: {shown(name)} is {genre} here and {labels[file]} above.")
            self._repeated += 1
        self._repeated -= len(labels)
        self._unknown = sorted(unknown)
        if not labels:
            raise CorpusError(
                f"No row of {table} has one of the labels {', '.join(genres)}; its column {label} has "
                f"{listed(self._unknown)}."
            )
        counts = Counter(labels.values())
        check_counts({genre: counts[genre] for genre in genres}, str(table), "row")
        common = _common(labels)
        self._files = sorted(
            (_name(file, genre, common), genre, file, file_state(file)) for file, genre in labels.items()
        )

    def resolve(self) -> str:
        """sha256 over label, path, size and modification time of every file that the table names."""
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
                f"Left alone: rows of {self._table.name} with the labels {listed(self._unknown)}, "
                f"not among the genres {', '.join(self._genres)}."
            )
        if self._repeated:
            notes.append(f"{self._repeated} rows of {self._table.name} repeat another row's path.")
        return notes


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
    return CorpusError(f"{table} is not readable as parquet: {' '.join(str(error).split())}")


def _csv_rows(table: Path, path: str, label: str) -> Iterator[tuple[str, tuple[str, str]]]:
    csv.field_size_limit(LONGEST_FIELD)
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = max(DELIMITERS, key=header.count)
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            _check_columns(table, list(reader.fieldnames or ()), path, label)
            for row in reader:
                yield f"line {reader.line_num}", (row[path] or "", row[label] or "")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{table} is not UTF-8 text; save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise CorpusError(f"{table} is not readable as CSV, line {reader.line_num}: {error}.") from error


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
    if missing:
        raise CorpusError(
            f"{table} has no column {' and no column '.join(missing)}; it has {listed(there) or 'none'}. "
            f"Name them: --source '{table}?path=COLUMN&label=COLUMN'."
        )


def _common(files: dict[Path, str]) -> str:
    parents = {str(file.parent) for file in files}
    return os.path.commonpath(parents) if len({file.is_absolute() for file in files}) == 1 else ""


def _name(file: Path, genre: str, common: str) -> str:
    """The path below the folder that all share, and below the genre, as a folder of clips would have it."""
    name = os.path.relpath(file, common) if common else str(file)
    first, slash, _ = name.partition("/")
    return shown(name) if slash and same_genre(first, genre) else f"{genre}/{shown(name)}"
