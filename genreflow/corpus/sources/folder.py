"""A folder with one folder of clips per genre, and where in it the genre folders lie."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from genreflow.artifacts import text_digest
from genreflow.corpus.sources.base import (
    SYNTHETIC_MARK,
    SourceItem,
    check_counts,
    file_state,
    is_litter,
    listed,
    same_genre,
    shown,
)
from genreflow.errors import CorpusError

LEVELS_DOWN = 2
"""How far below the folder named the genre folders are looked for."""


class FolderSource:
    """`<genre>/*` in a folder, or one or two levels down (GTZAN's `genres/<genre>/*`)."""

    def __init__(self, folder: Path, genres: tuple[str, ...]) -> None:
        self._root = _genre_root(folder, genres)
        self.synthetic = any((place / SYNTHETIC_MARK).is_file() for place in (self._root, self._root.parent))
        self._genres = genres
        self._folders: list[tuple[str, str]] = []
        self._unknown: list[str] = []
        for name in _folder_names(self._root):
            genre = next((genre for genre in genres if same_genre(name, genre)), None)
            if genre is None:
                self._unknown.append(name)
            else:
                self._folders.append((name, genre))
        self._files = sorted(
            (f"{name}/{path}", genre) for name, genre in self._folders for path in _files(self._root / name)
        )
        self._states = {name: file_state(self._root / name) for name, _ in self._files}
        self._check(folder)

    def resolve(self) -> str:
        """sha256 over path, size and modification time of every file in a genre folder."""
        return text_digest(
            [
                f"synthetic {self.synthetic}",
                *sorted(f"{shown(name)} {state}" for name, state in self._states.items()),
            ]
        )

    def fetch(self) -> None:
        """Nothing: a folder lies here already."""

    def items(self) -> Iterator[SourceItem]:
        for name, genre in self._files:
            path = self._root / name
            yield SourceItem(shown(name), genre, lambda path=path: path, self._states[name])  # type: ignore[misc]

    def notes(self) -> list[str]:
        if not self._unknown:
            return []
        return [
            f"Left alone: {listed(self._unknown)} in {self._root.name}, "
            f"not among the genres {', '.join(self._genres)}."
        ]

    def _check(self, folder: Path) -> None:
        counts = Counter(genre for _, genre in self._files)
        check_counts({genre: counts[genre] for genre in self._genres}, str(folder), "file")


def files_below(folder: Path) -> list[str]:
    """Paths of all files below a folder, relative, with forward slashes, in order; litter aside.

    Raises:
        CorpusError: a folder cannot be read.
    """
    return sorted(_files(folder))


def _genre_root(folder: Path, genres: tuple[str, ...]) -> Path:
    """The folder whose subfolders are the genres: `folder` or the shallowest below it that has any."""
    try:
        if not folder.exists():
            raise CorpusError(
                f"There is no folder {folder}. Name one with --source, or use --source synthetic."
            )
        if not folder.is_dir():
            raise CorpusError(f"{folder} is a file; a source is a folder with one subfolder a genre.")
    except OSError as error:
        raise CorpusError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    level, found = [folder], []
    for _ in range(LEVELS_DOWN + 1):
        matches = [(_matches(path, genres), path) for path in level]
        if best := max((count for count, _ in matches), default=0):
            return next(path for count, path in matches if count == best)
        level = [path / name for path in level for name in _folder_names(path)]
        found += [path.name for path in level]
    if not found and not any(_files(folder)):
        raise CorpusError(f"The folder {folder} is empty. It should hold one subfolder a genre.")
    there = f"it has {listed(found)}" if found else "it has no subfolders"
    hint = ""
    if len(names := _folder_names(folder)) >= 2:
        hint = f" If those are your genres, say --set corpus.genres=[{','.join(names[:12])}]."
    raise CorpusError(f"No genre in {folder}: {there}, none of {', '.join(genres)}.{hint}")


def _matches(folder: Path, genres: tuple[str, ...]) -> int:
    return sum(any(same_genre(name, genre) for genre in genres) for name in _folder_names(folder))


def _folder_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not is_litter(entry.name) and entry.is_dir())
    except OSError as error:
        raise CorpusError(f"The folder {folder} cannot be read: {error.strerror}.") from error


def _files(folder: Path) -> Iterator[str]:
    """Paths of all files below, relative, with forward slashes; links to folders are followed.

    A folder that several links lead to is listed once, and none that `folder` itself lies in.
    """

    def fail(error: OSError) -> None:
        raise CorpusError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error

    real = folder.resolve()
    seen = {real, *real.parents}

    def new(path: Path) -> bool:
        known = path.resolve() in seen
        seen.add(path.resolve())
        return not known

    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        path = Path(place)
        # folders before links: what lies here keeps its own name
        in_order = sorted(folders, key=lambda name: ((path / name).is_symlink(), name))
        folders[:] = [name for name in in_order if not is_litter(name) and new(path / name)]
        for name in names:
            if not is_litter(name):
                yield (path / name).relative_to(folder).as_posix()
