"""Where the genre folders lie among names: keys of a bucket, files of a repository."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from genreflow.corpus.sources.base import SYNTHETIC_MARK, check_counts, is_litter, listed, same_genre, shown
from genreflow.corpus.sources.folder import LEVELS_DOWN
from genreflow.errors import CorpusError


@dataclass(frozen=True)
class Listing:
    """The labelled ones among some names."""

    files: tuple[tuple[str, str, str], ...]
    """The name as given, the name below the genre folders' parent as `shown`, and the genre; in order."""
    unknown: tuple[str, ...]
    """Folders beside the genres'."""
    synthetic: bool

    def notes(self, genres: tuple[str, ...]) -> list[str]:
        """Sentences about what was left alone."""
        if not self.unknown:
            return []
        return [f"Left alone: {listed(list(self.unknown))}, not among the genres {', '.join(genres)}."]


def label(names: Iterable[str], genres: tuple[str, ...], where: str) -> Listing:
    """Label names with forward slashes by their genre folders, as a folder of such files would be.

    Raises:
        CorpusError: there is no genre among them, or one without two files.
    """
    every = list(names)
    split = [(name, name.split("/")) for name in every]
    clips = [(name, parts) for name, parts in split if not any(is_litter(part) for part in parts)]
    for depth in range(LEVELS_DOWN + 1):
        folders = {tuple(parts[: depth + 1]) for _, parts in clips if len(parts) > depth + 1}
        matches = Counter(folder[:depth] for folder in folders if _genre(folder[depth], genres))
        if matches:
            root = min(matches, key=lambda place: (-matches[place], place))
            break
    else:
        first = sorted({parts[0] for _, parts in clips if len(parts) > 1})
        there = f"it has {listed(first)}" if first else "it has no folders"
        raise CorpusError(f"No genre in {where}: {there}, none of {', '.join(genres)}.")
    files, unknown = [], set()
    for name, parts in clips:
        if tuple(parts[:depth]) != root or len(parts) < depth + 2:
            continue
        if genre := _genre(parts[depth], genres):
            files.append((name, shown("/".join(parts[depth:])), genre))
        else:
            unknown.add(parts[depth])
    counts = Counter(genre for _, _, genre in files)
    check_counts({genre: counts[genre] for genre in genres}, where, "file")
    marks = {"/".join((*place, SYNTHETIC_MARK)) for place in (root, root[:-1])}
    return Listing(tuple(sorted(files)), tuple(sorted(unknown)), not marks.isdisjoint(every))


def _genre(folder: str, genres: tuple[str, ...]) -> str | None:
    return next((genre for genre in genres if same_genre(folder, genre)), None)
