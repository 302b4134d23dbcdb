"""Whether a folder holds a published corpus: every file against the md5 that was published for its clip."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genreflow.audio import decode
from genreflow.core.digests import file_md5
from genreflow.core.errors import AudioError, CorpusError
from genreflow.corpus.sources.base import listed, shown
from genreflow.corpus.sources.folder import files_below


@dataclass(frozen=True)
class Findings:
    """What is wrong with a folder, each list in order; paths are relative to it."""

    folder: str
    index: str
    """The corpus it was held against."""
    whole: int
    """Clips that are here with the published bytes."""
    expected: int
    missing: tuple[str, ...]
    """Clip ids of which no file is here."""
    altered: dict[str, str]
    """Path to what it holds instead."""
    unreadable: dict[str, str]
    """Path to the reason: files that cannot be opened or decoded."""
    duplicated: tuple[tuple[str, ...], ...]
    """Paths with the same bytes, where the published clips differ."""
    unknown: tuple[str, ...]
    """Files that the corpus does not have, as some published archives have; reported, but no fault."""
    published_twice: tuple[tuple[str, ...], ...]
    """Paths with the same bytes, as published: not wrong, but worth knowing."""

    @property
    def ok(self) -> bool:
        return not (self.missing or self.altered or self.unreadable or self.duplicated)

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    def lines(self) -> list[str]:
        """The findings as lines, the verdict last."""
        lines = [f"missing: {clip_id}" for clip_id in self.missing]
        lines += [f"altered: {shown(path)}: {what}" for path, what in self.altered.items()]
        lines += [f"unreadable: {shown(path)}: {why}" for path, why in self.unreadable.items()]
        lines += [f"duplicated: {' = '.join(map(shown, paths))}" for paths in self.duplicated]
        lines += [f"unknown: {shown(path)}" for path in self.unknown]
        lines += [f"published twice: {' = '.join(map(shown, paths))}" for paths in self.published_twice]
        return [*lines, self.verdict()]

    def verdict(self) -> str:
        """One sentence."""
        held = f"{self.whole} of {self.expected} clips of {self.index} are as published"
        if self.ok:
            beside = f" {len(self.unknown)} other files lie beside them." if self.unknown else ""
            return f"{self.folder}: {held}; nothing is wrong.{beside}"
        names = ("missing", "altered", "unreadable", "duplicated", "unknown")
        counts = [f"{len(getattr(self, name))} {name}" for name in names if getattr(self, name)]
        return f"{self.folder}: {held}; {', '.join(counts)}."


def verify(
    folder: Path,
    index: str,
    md5s: Mapping[str, str],
    on_progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Findings:
    """Hold every file below `folder` against a published corpus.

    Args:
        index: what the corpus is called.
        md5s: md5 of the published file by clip id.
        on_progress: called with files done, and all of them.

    Raises:
        CorpusError: there is no such folder, or nothing in it is named like a clip of the corpus.
    """
    paths = _paths(folder)
    if not any(_clip_id(path) in md5s for path in paths):
        raise CorpusError(
            f"Nothing in {folder} is named like a clip of {index} ({listed(sorted(md5s), 2)}): "
            "there is nothing to hold it against."
        )
    published = {md5: clip_id for clip_id, md5 in md5s.items()}
    here: dict[str, list[str]] = {}
    altered: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    unknown: list[str] = []
    for done, path in enumerate(paths, start=1):
        on_progress(done, len(paths))
        clip_id = _clip_id(path)
        try:
            md5 = file_md5(folder / path)
        except OSError as error:
            unreadable[path] = f"{error.strerror}"
            continue
        here.setdefault(md5, []).append(path)
        if clip_id not in md5s:
            unknown.append(path)
        elif md5 != md5s[clip_id]:
            try:
                altered[path] = _instead(folder / path, published.get(md5))
            except AudioError as error:
                unreadable[path] = str(error)
    ids = {path: _clip_id(path) for path in paths}
    same = [tuple(group) for group in here.values() if len(group) > 1]
    twice = [
        g for g in same if len({ids[p] for p in g}) == len(g) and len({md5s.get(ids[p]) for p in g}) == 1
    ]
    return Findings(
        folder=str(folder),
        index=index,
        whole=len({ids[path] for md5, group in here.items() for path in group if md5s.get(ids[path]) == md5}),
        expected=len(md5s),
        missing=tuple(sorted(md5s.keys() - set(ids.values()))),
        altered=altered,
        unreadable=unreadable,
        duplicated=tuple(group for group in same if group not in twice),
        unknown=tuple(unknown),
        published_twice=tuple(twice),
    )


def matching_index(folder: Path, indexes: Mapping[str, Mapping[str, str]]) -> str:
    """The smallest of the published corpora that has every published clip that the folder has.

    Raises:
        CorpusError: there is no such folder.
    """
    ids = {_clip_id(path) for path in _paths(folder)}
    known = ids & set().union(*indexes.values())
    return min(
        (name for name, md5s in indexes.items() if known <= md5s.keys()),
        key=lambda name: len(indexes[name]),
    )


def _paths(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise CorpusError(f"There is no folder {folder}.")
    return files_below(folder)


def _instead(path: Path, other: str | None) -> str:
    if other is not None:
        return f"holds the clip {other}"
    audio = decode(path, name=path.name)
    return f"other bytes than published, {audio.seconds:.1f} s of {audio.format} at {audio.sample_rate} Hz"


def _clip_id(path: str) -> str:
    return re.sub(r"\.\w{1,5}$", "", path.rpartition("/")[2])
