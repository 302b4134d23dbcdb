"""A folder with one folder of clips per genre."""

import os
from collections.abc import Iterator
from pathlib import Path

from genreflow.core.digests import text_digest
from genreflow.core.errors import CorpusError
from genreflow.corpus.sources.base import SYNTHETIC_MARK, SourceItem, file_state, is_litter
from genreflow.corpus.sources.listing import Place, label


class FolderSource:
    """`<genre>/*` in a folder, or one or two levels down (GTZAN's `genres/<genre>/*`, `train/<genre>/*`)."""

    def __init__(self, folder: Path, genres: tuple[str, ...]) -> None:
        self._folder = folder
        tree = _Disk(folder)
        self._listing = label(tree, genres, str(folder))
        self.synthetic = self._listing.synthetic
        self._states = [file_state(folder / file.path) for file in self._listing.files]

    def resolve(self) -> str:
        """sha256 over path, size and modification time of every file in a genre folder."""
        lines = [
            f"{file.name} {state}" for file, state in zip(self._listing.files, self._states, strict=True)
        ]
        return text_digest([f"synthetic {self.synthetic}", *sorted(lines)])

    def fetch(self) -> None:
        """Nothing: a folder lies here already."""

    def items(self) -> Iterator[SourceItem]:
        for file, state in zip(self._listing.files, self._states, strict=True):
            path = self._folder / file.path
            yield SourceItem(file.name, file.genre, lambda path=path: path, state, file.folder)  # type: ignore[misc]

    def notes(self) -> list[str]:
        return self._listing.notes()


class _Disk:
    """The tree of a folder of this machine.

    Raises:
        CorpusError: there is no such folder, it is empty, or a folder cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            if not folder.exists():
                raise CorpusError(
                    f"There is no folder {folder}. Name one with --source, or use --source synthetic."
                )
            if not folder.is_dir():
                raise CorpusError(f"{folder} is a file; a source is a folder with one subfolder a genre.")
        except OSError as error:
            raise CorpusError(f"The folder {folder} cannot be read: {error.strerror}.") from error
        if not self.folders(()) and not any(_files(folder)):
            raise CorpusError(f"The folder {folder} is empty. It should hold one subfolder a genre.")

    def folders(self, place: Place) -> list[str]:
        return _folder_names(self._folder.joinpath(*place))

    def files(self, place: Place) -> list[str]:
        return files_below(self._folder.joinpath(*place))

    def origin(self, place: Place) -> str:
        return str(self._folder.joinpath(*place).resolve())

    def is_marked(self, place: Place) -> bool:
        """Also by a mark beside the source, which is itself the folder that holds the genres then."""
        folder = self._folder.joinpath(*place)
        above = [self._folder.joinpath(*place[:depth]) for depth in range(len(place))] or [folder.parent]
        return any((each / SYNTHETIC_MARK).is_file() for each in (folder, *above))


def files_below(folder: Path) -> list[str]:
    """Paths of all files below a folder, relative, with forward slashes, in order; litter aside.

    Raises:
        CorpusError: a folder cannot be read.
    """
    return sorted(_files(folder))


def _folder_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            there = [entry for entry in entries if not is_litter(entry.name) and entry.is_dir()]
    except OSError as error:
        raise CorpusError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    return [entry.name for entry in sorted(there, key=lambda entry: (entry.is_symlink(), entry.name))]


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
