"""Where the genre folders lie in a tree of files, and which of them are read, whatever kind the source is."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from genreflow.core.errors import CorpusError, GenreCountError
from genreflow.corpus.sources.base import (
    SYNTHETIC_MARK,
    check_counts,
    genre_of_folder,
    genres_hint,
    is_litter,
    listed,
    shown,
)

LEVELS_DOWN = 2
"""How far below the place named the genre folders are looked for."""
# fmt: off
AUDIO_SUFFIXES = frozenset({
    ".3gp", ".8svx", ".aac", ".ac3", ".adts", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf", ".au",
    ".avi", ".bwf", ".caf", ".dts", ".flac", ".flv", ".gsm", ".m4a", ".m4b", ".m4v", ".mka", ".mkv",
    ".mov", ".mp2", ".mp3", ".mp4", ".mpc", ".mpeg", ".mpg", ".oga", ".ogg", ".ogv", ".opus", ".ra",
    ".raw", ".rf64", ".sd2", ".snd", ".spx", ".tta", ".voc", ".w64", ".wav", ".wave", ".webm", ".wma",
    ".wv",
})
# fmt: on
"""Names of files that may hold sound: what chooses between folders; content is seen when it is decoded."""

Place = tuple[str, ...]
"""The names of the folders from the source's own down; the source itself is `()`."""


class Tree(Protocol):
    """Files in folders; what operating systems leave behind is not among them."""

    def folders(self, place: Place) -> list[str]:
        """The names of the folders in a folder, links to folders last."""

    def files(self, place: Place) -> list[str]:
        """The paths of all files below a folder, relative to it, with forward slashes."""

    def origin(self, place: Place) -> str:
        """The same for all names of one folder."""

    def is_marked(self, place: Place) -> bool:
        """Whether `SYNTHETIC_MARK` lies in a folder, or in one above it."""


@dataclass(frozen=True, order=True)
class LabelledFile:
    """A file in a genre folder."""

    path: str
    """From the source's own folder, as the tree names it."""
    name: str
    """From the folder that holds the genre folders, below `folder` where there are several; as `shown`."""
    genre: str
    folder: str
    """The folder above the genre's, as `shown`; empty where only one holds genre folders."""


@dataclass(frozen=True)
class Listing:
    """The labelled files of a source."""

    files: tuple[LabelledFile, ...]
    """In the order of paths."""
    synthetic: bool
    left_alone: tuple[str, ...]
    """Sentences about folders that are not read."""
    merged: tuple[str, ...]
    """Sentences about folders whose genre folders were put together."""

    def notes(self) -> list[str]:
        return [*self.merged, *self.left_alone]


@dataclass(frozen=True)
class _Root:
    """A folder that holds genre folders."""

    place: Place
    files: tuple[tuple[str, str, str], ...]
    """Genre folder, path below it, genre."""
    unknown: tuple[str, ...]
    """Folders of other names in it."""

    def genres(self) -> set[str]:
        return {genre for _, _, genre in self.files}

    def holds_audio(self) -> bool:
        return any(_may_be_audio(path) for _, path, _ in self.files)


class Names:
    """A tree of names with forward slashes: keys of a bucket, files of a repository."""

    def __init__(self, names: Iterable[str]) -> None:
        self._folders: defaultdict[Place, set[str]] = defaultdict(set)
        self._files: defaultdict[Place, list[str]] = defaultdict(list)
        self._marked: set[Place] = set()
        for name in names:
            *place, last = name.split("/")
            if any(is_litter(part) for part in (*place, last)):
                continue
            if last == SYNTHETIC_MARK:
                self._marked.add(tuple(place))
            for depth in range(min(len(place), LEVELS_DOWN + 1) + 1):
                here = tuple(place[:depth])
                self._files[here].append("/".join((*place[depth:], last)))
                if depth < len(place):
                    self._folders[here].add(place[depth])

    def folders(self, place: Place) -> list[str]:
        return sorted(self._folders.get(place, ()))

    def files(self, place: Place) -> list[str]:
        return self._files.get(place, [])

    def origin(self, place: Place) -> str:
        return "/".join(place)

    def is_marked(self, place: Place) -> bool:
        return any(place[:depth] in self._marked for depth in range(len(place) + 1))


def label(tree: Tree, genres: tuple[str, ...], where: str) -> Listing:
    """Label files by the genre folders that they lie in.

    Genre folders are looked for in the source's own folder and in those up to `LEVELS_DOWN` below it. Where
    several folders hold some (`train`, `val`, `test`; `2019`, `2020`), all are read and merged, provided that
    one of them has all the genres of the others: folders of different genres are no parts of one corpus. A
    folder without files that are named like audio (`images` beside `wavs`) is ignored if another has some.
    Below a folder that holds genre folders no others are looked for.

    Args:
        where: what the source is called in sentences.

    Raises:
        CorpusError: there are no genre folders, they cannot be put together, or a genre has fewer than two
            files.
    """
    roots = _roots(tree, genres)
    if not roots:
        raise _no_genre(tree, genres, where)
    kept = [root for root in roots if root.holds_audio()] or [root for root in roots if root.files] or roots
    _check_same_genres(kept, where)
    labels = _labels([root.place for root in kept])
    files = [
        LabelledFile(
            path="/".join((*root.place, name, path)),
            name=shown("/".join((*part, name, path))),
            genre=genre,
            folder=shown("/".join(part)),
        )
        for root, part in zip(kept, labels, strict=True)
        for name, path, genre in root.files
    ]
    counts = Counter(file.genre for file in files)
    check_counts({genre: counts[genre] for genre in genres}, where, "file")
    return Listing(
        files=tuple(sorted(files)),
        synthetic=any(tree.is_marked(root.place) for root in kept),
        left_alone=_left_alone(tree, roots, kept, genres),
        merged=_merged(kept, labels, genres),
    )


def _roots(tree: Tree, genres: tuple[str, ...]) -> list[_Root]:
    roots: list[_Root] = []
    level: list[Place] = [()]
    seen: set[str] = set()
    for _ in range(LEVELS_DOWN + 1):
        below: list[Place] = []
        for place in level:
            if (origin := tree.origin(place)) in seen:  # a link, such as `latest` to `2020`
                continue
            seen.add(origin)
            names = tree.folders(place)
            found = {name: genre for name in names if (genre := genre_of_folder(name, genres))}
            if not found:
                below += [(*place, name) for name in names]
                continue
            files = [
                (name, path, genre) for name, genre in found.items() for path in tree.files((*place, name))
            ]
            roots.append(_Root(place, tuple(files), tuple(sorted(set(names) - set(found)))))
        level = below
    return sorted(roots, key=lambda root: root.place)


def _check_same_genres(roots: Sequence[_Root], where: str) -> None:
    """Refuse to put folders together that stand for different things.

    Raises:
        CorpusError: no folder has all the genres of the others.
    """
    whole = max(roots, key=lambda root: len(root.genres()))
    for root in roots:
        if root.genres() <= whole.genres():
            continue
        first, second = sorted((whole, root), key=lambda each: each.place)
        raise CorpusError(
            f"{where} holds genre folders in {_called(first.place)} ({listed(sorted(first.genres()))}) and "
            f"in {_called(second.place)} ({listed(sorted(second.genres()))}): folders are merged only where "
            "one of them has all the genres of the others. Name one of them as the source, or put the genre "
            "folders into one folder."
        )


def _labels(places: Sequence[Place]) -> list[Place]:
    """What distinguishes places: without the names that all begin or end with."""
    if len(places) == 1:
        return [()]
    begin = 0
    while len({place[: begin + 1] for place in places}) == 1:
        begin += 1
    rest = [place[begin:] for place in places]
    end = 0
    while min(map(len, rest)) > end + 1 and len({place[-end - 1] for place in rest}) == 1:
        end += 1
    return [place[: len(place) - end] for place in rest]


def _merged(roots: Sequence[_Root], labels: Sequence[Place], genres: tuple[str, ...]) -> tuple[str, ...]:
    if len(roots) == 1:
        return ()
    counts = [f"{_called(part)} ({len(root.files)})" for root, part in zip(roots, labels, strict=True)]
    notes = [
        f"Files of {len(roots)} folders were merged: {listed(counts)}. The manifest's column folder says in "
        "which of them a clip lies."
    ]
    there = set().union(*(root.genres() for root in roots))
    for root, part in zip(roots, labels, strict=True):
        if missing := [genre for genre in genres if genre in there - root.genres()]:
            notes.append(f"{_called(part)} has no files of the genre {listed(missing)}.")
    return tuple(notes)


def _left_alone(
    tree: Tree, roots: Sequence[_Root], kept: Sequence[_Root], genres: tuple[str, ...]
) -> tuple[str, ...]:
    unknown: list[str] = []
    nested: list[str] = []
    for root in kept:
        for name in root.unknown:
            place = (*root.place, name)
            called = "/".join(place if len(kept) > 1 else (name,))
            (nested if _holds_genres(tree, place, genres) else unknown).append(called)
    notes = []
    if unknown:
        notes.append(f"Ignored: {listed(unknown)}, not among the genres {listed(list(genres))}.")
    if nested:
        notes.append(
            f"Ignored: {listed(nested)}, which lies beside genre folders and holds genre folders itself. "
            "If it belongs to the corpus, put the genre folders beside it into a folder of their own."
        )
    if silent := [_called(root.place) for root in roots if root not in kept]:
        notes.append(f"Ignored: {listed(silent)}, without files that are named like audio.")
    return tuple(notes)


def _holds_genres(tree: Tree, place: Place, genres: tuple[str, ...]) -> bool:
    try:
        return any(genre_of_folder(name, genres) for name in tree.folders(place))
    except CorpusError:  # it cannot be read, and need not be: `lost+found`
        return False


def _no_genre(tree: Tree, genres: tuple[str, ...], where: str) -> GenreCountError:
    level: list[Place] = [()]
    found: list[str] = []
    for _ in range(LEVELS_DOWN + 1):
        level = [(*place, name) for place in level for name in tree.folders(place)]
        found += [place[-1] for place in level]
    there = f"it has {listed(list(dict.fromkeys(found)))}" if found else "it has no subfolders"
    names = _likely_genres(tree)
    sentence = f"No genre in {where}: {there}, none of {listed(list(genres))}.{genres_hint(names)}"
    return GenreCountError(sentence, genres)


def _likely_genres(tree: Tree) -> list[str]:
    """The names that may be meant as genres: the shallowest, or those that all folders there share below."""
    place: Place = ()
    for _ in range(LEVELS_DOWN):
        names = tree.folders(place)
        if len(names) != 1 or not tree.folders((*place, names[0])):
            break
        place = (*place, names[0])
    names = tree.folders(place)
    below = [tree.folders((*place, name)) for name in names]
    shared = len(below) > 1 and len(below[0]) > 1 and all(set(each) == set(below[0]) for each in below)
    return sorted(below[0] if shared else names)


def _may_be_audio(path: str) -> bool:
    suffix = PurePosixPath(path).suffix.lower()
    return suffix in AUDIO_SUFFIXES or not any(character.isalpha() for character in suffix)


def _called(place: Place) -> str:
    return shown("/".join(place)) or "the folder itself"
