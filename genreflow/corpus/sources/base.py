"""What every source is: labelled files with a fingerprint; their names, ids and counts."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from genreflow.core.commands import set_option
from genreflow.core.errors import GenreCountError
from genreflow.core.genres import genre_key, genre_named

LITTER = {"thumbs.db", "desktop.ini", "__macosx"}
"""What operating systems leave behind, beside names that begin with a dot: never a clip."""

LONGEST_NAME_BYTES = 200
"""Of a folder that is made from a genre; file systems take 255."""
MOST_GENRES_IN_HINT = 40
SYNTHETIC_MARK = "synthetic.json"
"""Lies in every folder that `genreflow data synthesize` writes: its music is never treated as real."""
DECEPTIVE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that break a line or let a name look like another."""


@dataclass(frozen=True)
class SourceItem:
    """One labelled file of a source."""

    name: str
    """Path from the folder that holds the genre folders, below `folder` where there are several, as `shown`,
    with forward slashes: unique in the source."""
    genre: str
    open: Callable[[], Path] = field(compare=False)
    """A local path to the file, fetched where it is not local; `Source.fetch` fetches many at once."""
    state: str | None = field(default=None, compare=False)
    """The file's `file_state` when it was listed; None where `open` gives what was listed or nothing."""
    folder: str = ""
    """The folder above the genre's, such as `train`; empty where only one folder holds genre folders."""


class Source(Protocol):
    """Labelled files. A source lists cheaply and opens lazily; it decodes nothing."""

    @property
    def synthetic(self) -> bool:
        """Whether it is procedural music; known once `fetch` has run."""

    def resolve(self) -> str:
        """A fingerprint of what the source holds now, without reading the audio."""

    def fetch(self) -> None:
        """Bring what `items` opens onto this machine, many at once; nothing where it lies here already."""

    def items(self) -> Iterator[SourceItem]:
        """Every labelled file, in the order of names."""

    def notes(self) -> list[str]:
        """Sentences about what was ignored."""


def check_counts(counts: dict[str, int], where: str, what: str) -> None:
    """Refuse what no classifier can be trained and tested on.

    Raises:
        GenreCountError: a genre has no clip, or only one.
    """
    missing = [genre for genre, count in counts.items() if count == 0]
    lonely = [genre for genre, count in counts.items() if count == 1]
    short = missing or lonely
    if not short:
        return
    rest = [genre for genre, count in counts.items() if count > 1]
    left_out = f"{'it is' if len(short) == 1 else 'they are'} left out"
    remedy = "Add clips"
    remedy += f"; with {set_option('corpus.genres', rest)} {left_out}." if len(rest) >= 2 else "."
    if missing:
        raise GenreCountError(f"{where} has no {what} of the genre {listed(missing)}. {remedy}", missing)
    raise GenreCountError(
        f"{where} has only one {what} of the genre {listed(lonely)}: "
        f"it cannot be split into training and test. {remedy}",
        lonely,
    )


def genres_hint(names: Sequence[str]) -> str:
    """How to take names as the genres, as a sentence after a blank; empty where that is no help."""
    typed = [name for name in names if _is_text(name)]
    if not 2 <= len(typed) <= MOST_GENRES_IN_HINT:
        return ""
    return f" With {set_option('corpus.genres', typed)} those are the genres."


def clip_ids(items: Sequence[SourceItem]) -> list[str]:
    """A unique id `<genre>.<name>` for each item; it depends on the set of items alone.

    GTZAN's own `blues/blues.00000.wav` becomes `blues.00000`. Where several files would have the same id, all
    of them get the folder above their genre's (`blues.train_blues.00000`), if that is not enough keep their
    extension, and if that is not enough, get a few digits of their name's digest.
    """
    ids = [_clip_id(item) for item in items]
    for longer in (
        lambda item: _clip_id(item, folder=True),
        lambda item: _clip_id(item, folder=True, extension=True),
        lambda item: f"{_clip_id(item, folder=True, extension=True)}.{_digits(item.name)}",
    ):
        seen = Counter(ids)
        ids = [longer(item) if seen[name] > 1 else name for item, name in zip(items, ids, strict=True)]
    return ids


def _clip_id(item: SourceItem, folder: bool = False, extension: bool = False) -> str:
    below = item.name.removeprefix(f"{item.folder}/") if item.folder else item.name
    stem = below.partition("/")[2]
    if not extension:
        stem = re.sub(r"\.\w{1,5}$", "", stem)
    if folder and item.folder:
        stem = f"{item.folder}/{stem}"
    stem = stem.replace("/", "_")
    first, dot, _ = stem.partition(".")
    return stem if dot and genre_key(first) == genre_key(item.genre) else f"{item.genre}.{stem}"


def _is_text(name: str) -> bool:
    """Whether a name can be typed: names of files may hold bytes that are no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _digits(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def file_state(path: Path) -> str:
    """Size and modification time of a file, or why it cannot be seen: another text when the file changes."""
    try:
        state = path.stat()
    except OSError as error:  # a dangling link: ingest will quarantine it
        return f"{error.errno}"
    return f"{state.st_size} {state.st_mtime_ns}"


def folder_name(genre: str) -> str:
    """A name that a folder of this genre can have: the genre's own, or else one that is made from it.

    What no file system takes is written as in URLs (`R&B/Soul` as `R&B%2FSoul`); a name that is too long ends
    in a digest.
    """
    encoded = re.sub(r"[/\0]|%(?=[0-9A-Fa-f]{2})|^\.", lambda match: f"%{ord(match[0]):02X}", genre)
    if is_litter(encoded):
        encoded = f"%{ord(encoded[0]):02X}{encoded[1:]}"
    if len(encoded.encode()) > LONGEST_NAME_BYTES:
        start = encoded.encode()[: LONGEST_NAME_BYTES - 9].decode(errors="ignore")
        return f"{start}-{_digits(genre)}"
    return encoded


def genre_of_folder(name: str, genres: Sequence[str]) -> str | None:
    """The one of `genres` that a folder's name means: by its spelling, or as `folder_name` wrote it."""
    by_name = genre_named(name, genres)
    return by_name or next((genre for genre in genres if name == folder_name(genre)), None)


def is_missing(state: str) -> bool:
    """Whether a `file_state` is one of a file that cannot be seen."""
    return " " not in state


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is no clip but something an operating system left behind."""
    return name.startswith(".") or name.lower() in LITTER


def shown(name: str) -> str:
    """A name as one line that looks like what it is, different for different names.

    Line breaks, other control characters, marks that turn the direction of writing and bytes that are no
    UTF-8 become backslash escapes; emoji and letters of every script stay.
    """
    return DECEPTIVE.sub(lambda match: match[0].encode("unicode_escape").decode(), name)


def listed(names: list[str], most: int = 12) -> str:
    """Names for a sentence, the first `most` of them."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + rest
