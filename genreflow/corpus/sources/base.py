"""What every source is: labelled files with a fingerprint; their names, ids and counts."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from genreflow.errors import CorpusError

LITTER = {"thumbs.db", "desktop.ini", "__macosx"}
"""What operating systems leave behind, beside names that begin with a dot: never a clip."""

SYNTHETIC_MARK = "synthetic.json"
"""Lies in every folder that `genreflow data synthesize` writes: its music is never taken for real."""
DECEPTIVE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that break a line or let a name look like another."""


@dataclass(frozen=True)
class SourceItem:
    """One labelled file of a source."""

    name: str
    """Path relative to the source's root as `shown`, with forward slashes: unique in the source."""
    genre: str
    open: Callable[[], Path] = field(compare=False)
    """A local path to the file, fetched where it is not local; `Source.fetch` fetches many at once."""
    state: str | None = field(default=None, compare=False)
    """The file's `file_state` when it was listed; None where `open` gives what was listed or nothing."""


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
        """Sentences about what was left alone."""


def same_genre(folder: str, genre: str) -> bool:
    """Whether a folder's name means a genre: `Hip-Hop`, `hip hop` and `HIPHOP` are `hiphop`."""
    return _plain(folder) == _plain(genre)


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
        raise CorpusError(f"{where} has no {what} of the genre {listed(missing)}. {remedy}")
    raise CorpusError(
        f"{where} has only one {what} of the genre {listed(lonely)}: "
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


def file_state(path: Path) -> str:
    """Size and modification time of a file, or why it cannot be seen: another text when the file changes."""
    try:
        state = path.stat()
    except OSError as error:  # a dangling link: ingest will quarantine it
        return f"{error.errno}"
    return f"{state.st_size} {state.st_mtime_ns}"


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


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())
