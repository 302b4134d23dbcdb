"""Where labelled clips come from: a folder, or the built-in synthetic corpus; a registry for more."""

import difflib
import hashlib
import importlib.util
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl

from genreflow import home
from genreflow.artifacts import file_digest, text_digest
from genreflow.errors import CorpusError, SettingsError
from genreflow.genres import GENRES

LEVELS_DOWN = 2
"""How far below the folder named the genre folders are looked for."""
LITTER = {"thumbs.db", "desktop.ini", "__macosx"}
"""What operating systems leave behind, beside names that begin with a dot: never a clip."""

SYNTHETIC_MARK = "synthetic.json"
"""Lies in every folder that `genreflow data synthesize` writes: its music is never taken for real."""
SYNTHETIC_DEFAULTS: dict[str, float] = {"clips": 20, "seconds": 8, "seed": 0}


@dataclass(frozen=True)
class SourceItem:
    """One labelled file of a source."""

    name: str
    """Path relative to the source's root, with forward slashes: unique in the source."""
    genre: str
    open: Callable[[], Path] = field(compare=False)
    """A local path to the file, fetched where it is not local."""


class Source(Protocol):
    """Labelled files. A source lists cheaply and opens lazily; it decodes nothing."""

    synthetic: bool

    def resolve(self) -> str:
        """A fingerprint of what the source holds now, without reading the audio."""

    def items(self) -> Iterator[SourceItem]:
        """Every labelled file, in the order of names."""

    def notes(self) -> list[str]:
        """Sentences about what was left alone."""


def open_source(spec: str, genres: tuple[str, ...]) -> Source:
    """The source that `spec` names: a folder, `synthetic`, or `synthetic?clips=20&seconds=8&seed=0`.

    Raises:
        CorpusError: there is no such source, or it cannot be split by genre.
        SettingsError: a parameter that the source does not have.
    """
    for prefix, opener in SOURCES.items():
        if re.match(rf"{re.escape(prefix)}($|[?:])", spec):
            return opener(spec, genres)
    if scheme := re.match(r"([a-z][a-z0-9+.-]*)://", spec):
        raise CorpusError(
            f"There is no kind of source {scheme[1]}://; a source is a folder or one of {', '.join(SOURCES)}."
        )
    return FolderSource(Path(spec).expanduser(), genres)


def same_genre(folder: str, genre: str) -> bool:
    """Whether a folder's name means a genre: `Hip-Hop`, `hip hop` and `HIPHOP` are `hiphop`."""
    return _plain(folder) == _plain(genre)


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
        self._check(folder)

    def resolve(self) -> str:
        """sha256 over path, size and modification time of every file in a genre folder."""
        return text_digest(
            [f"synthetic {self.synthetic}", *sorted(self._state(name) for name, _ in self._files)]
        )

    def items(self) -> Iterator[SourceItem]:
        for name, genre in self._files:
            path = self._root / name
            yield SourceItem(name, genre, lambda path=path: path)  # type: ignore[misc]

    def notes(self) -> list[str]:
        if not self._unknown:
            return []
        return [
            f"Left alone: {_listed(self._unknown)} in {self._root.name}, "
            f"not among the genres {', '.join(self._genres)}."
        ]

    def _state(self, name: str) -> str:
        try:
            state = (self._root / name).stat()
        except OSError as error:  # a dangling link: ingest will quarantine it
            return f"{name} {error.errno}"
        return f"{name} {state.st_size} {state.st_mtime_ns}"

    def _check(self, folder: Path) -> None:
        counts = Counter(genre for _, genre in self._files)
        check_counts({genre: counts[genre] for genre in self._genres}, str(folder), "file")


def synthetic_source(spec: str, genres: tuple[str, ...]) -> "SyntheticSource":
    """`synthetic?clips=20&seconds=8&seed=0`: clips a genre, their length, the seed."""
    parameters = dict(SYNTHETIC_DEFAULTS)
    for key, value in parse_qsl(spec.partition("?")[2], keep_blank_values=True):
        if key not in parameters:
            nearest = difflib.get_close_matches(key, parameters, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(parameters)}."
            raise SettingsError(f"The synthetic source has no parameter {key!r}; {hint}")
        try:
            parameters[key] = float(value) if key == "seconds" else int(value)
        except ValueError:
            raise SettingsError(f"The synthetic source's {key} must be a number, not {value!r}.") from None
    if parameters["clips"] < 2 or not 1 <= parameters["seconds"] <= 600 or parameters["seed"] < 0:
        raise SettingsError(
            "The synthetic source wants 2 clips or more a genre, 1 to 600 seconds and a seed of 0 or more."
        )
    if strangers := [genre for genre in genres if genre not in GENRES]:
        raise CorpusError(
            f"The synthetic source has no {_listed(strangers)}; it has {', '.join(GENRES)}. "
            "Leave corpus.genres away, or name a folder with --source."
        )
    return SyntheticSource(
        int(parameters["clips"]), float(parameters["seconds"]), int(parameters["seed"]), genres
    )


class SyntheticSource:
    """Procedural music, made once a set of parameters and kept as audio one can listen to."""

    synthetic = True

    def __init__(self, clips: int, seconds: float, seed: int, genres: tuple[str, ...]) -> None:
        self._clips, self._seconds, self._seed, self._genres = clips, seconds, seed, genres

    def resolve(self) -> str:
        """sha256 over the parameters and the generator's code; nothing is synthesised."""
        return text_digest([f"{self._clips} {self._seconds} {self._seed}", generator_digest()])

    def folder(self) -> Path:
        """Where the clips lie; synthesised there if they do not yet."""
        folder = home.corpora_folder() / f"synthetic-{self.resolve()[:12]}"
        if not folder.is_dir():
            from genreflow.corpus.synthetic import synthesise

            folder.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}-partial-", dir=folder.parent))
            try:
                synthesise(partial, self._clips, self._seconds, self._seed)
                if not folder.is_dir():  # another process may have been quicker: the content is the same
                    partial.chmod(0o755)
                    partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return folder

    def items(self) -> Iterator[SourceItem]:
        items = list(FolderSource(self.folder(), self._genres).items())
        if len(items) != self._clips * len(self._genres):
            raise CorpusError(f"{self.folder()} is not whole any more. Delete it; it will be made again.")
        return iter(items)

    def notes(self) -> list[str]:
        return [
            "The clips are procedural music: figures say that the pipeline learns, nothing about real music."
        ]


SOURCES: dict[str, Callable[[str, tuple[str, ...]], Source]] = {"synthetic": synthetic_source}
"""Kinds of source by the prefix of their specification; anything else is a folder."""


def generator_digest() -> str:
    """sha256 over the code of the synthetic generator: a changed generator makes another corpus."""
    spec = importlib.util.find_spec("genreflow.corpus.synthetic")
    if spec is None or spec.origin is None:
        raise CorpusError("This installation has no synthetic generator; name a folder with --source.")
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    return text_digest(f"{path.name} {file_digest(path)}" for path in files)


def check_counts(counts: dict[str, int], where: str, what: str) -> None:
    """Refuse what no classifier can be trained and tested on.

    Raises:
        CorpusError: a genre has no clip, or only one.
    """
    missing = [genre for genre, count in counts.items() if count == 0]
    lonely = [genre for genre, count in counts.items() if count == 1]
    short = missing or lonely
    if not short:
        return
    rest = [genre for genre, count in counts.items() if count > 1]
    remedy = f"Add clips, or leave {'it' if len(short) == 1 else 'them'} out"
    remedy += f": --set corpus.genres=[{','.join(rest)}]." if len(rest) >= 2 else "."
    if missing:
        raise CorpusError(f"{where} has no {what} of the genre {_listed(missing)}. {remedy}")
    raise CorpusError(
        f"{where} has only one {what} of the genre {_listed(lonely)}: "
        f"it cannot be split into training and test. {remedy}"
    )


def clip_ids(names: list[tuple[str, str]]) -> list[str]:
    """A unique id `<genre>.<name>` for each (source name, genre); it depends on the set of names alone.

    GTZAN's own `blues/blues.00000.wav` becomes `blues.00000`. Where two files would have the same id, all of
    them keep their extension, and if that is not enough, a few digits of their path's digest.
    """
    plain = [_clip_id(name, genre, extension=False) for name, genre in names]
    long = [_clip_id(name, genre, extension=True) for name, genre in names]
    seen = Counter(plain)
    ids = [long[i] if seen[plain[i]] > 1 else plain[i] for i in range(len(names))]
    seen = Counter(ids)
    return [
        f"{ids[i]}.{hashlib.sha256(names[i][0].encode()).hexdigest()[:8]}" if seen[ids[i]] > 1 else ids[i]
        for i in range(len(names))
    ]


def _clip_id(name: str, genre: str, extension: bool) -> str:
    stem = name.partition("/")[2]
    if not extension:
        stem = re.sub(r"\.\w{1,5}$", "", stem)
    stem = stem.replace("/", "_")
    return stem if stem.startswith(f"{genre}.") else f"{genre}.{stem}"


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
    there = f"it has {_listed(found)}" if found else "it has no subfolders"
    hint = ""
    if len(names := _folder_names(folder)) >= 2:
        hint = f" If those are your genres, say --set corpus.genres=[{','.join(names[:12])}]."
    raise CorpusError(f"No genre in {folder}: {there}, none of {', '.join(genres)}.{hint}")


def _matches(folder: Path, genres: tuple[str, ...]) -> int:
    return sum(any(same_genre(name, genre) for genre in genres) for name in _folder_names(folder))


def _folder_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not _litter(entry.name) and entry.is_dir())
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
        folders[:] = [name for name in in_order if not _litter(name) and new(path / name)]
        for name in names:
            if not _litter(name):
                yield (path / name).relative_to(folder).as_posix()


def _litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _listed(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
