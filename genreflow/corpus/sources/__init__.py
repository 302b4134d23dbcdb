"""Where labelled clips come from: a registry of kinds of source, and the one way to open any of them."""

import re
from collections.abc import Callable
from pathlib import Path

from genreflow.core.errors import CorpusError
from genreflow.corpus.sources.archive import SUFFIXES, archive_source
from genreflow.corpus.sources.base import (
    Source,
    SourceItem,
    check_counts,
    clip_ids,
    file_state,
    listed,
    shown,
)
from genreflow.corpus.sources.folder import FolderSource
from genreflow.corpus.sources.hub import hub_source
from genreflow.corpus.sources.s3 import S3Source
from genreflow.corpus.sources.synthetic import SyntheticSource, generator_digest, synthetic_source
from genreflow.corpus.sources.table import is_table, table_source
from genreflow.corpus.sources.unpack import archive_kind

__all__ = [
    "SOURCES",
    "FolderSource",
    "Source",
    "SourceItem",
    "SyntheticSource",
    "check_counts",
    "clip_ids",
    "file_state",
    "generator_digest",
    "listed",
    "open_source",
    "shown",
]


def _known(spec: str, genres: tuple[str, ...]) -> Source:
    from genreflow.corpus.known import known_source

    return known_source(spec, genres)


SOURCES: dict[str, Callable[[str, tuple[str, ...]], Source]] = {
    "synthetic": synthetic_source,
    "gtzan": _known,
    "gtzan-mini": _known,
    "s3": S3Source,
    "hf": hub_source,
}
"""Kinds of source by the prefix of their specification; else it is a file or folder of this machine."""


def open_source(spec: str, genres: tuple[str, ...]) -> Source:
    """The source that `spec` names.

    A folder, a tar or zip of one, or a table of paths and labels (`clips.csv?path=file&label=genre`); a
    published corpus (`gtzan`, `gtzan-mini`); `s3://bucket/prefix`; `hf://datasets/owner/name[@revision][/file]`;
    `synthetic`, or `synthetic?clips=20&seconds=8&seed=0`.

    Raises:
        CorpusError: there is no such source, or it cannot be split by genre.
        SettingsError: a parameter that the source does not have.
    """
    for prefix, opener in SOURCES.items():
        if re.match(rf"{re.escape(prefix)}($|[?:])", spec):
            return opener(spec, genres)
    if scheme := re.match(r"([a-z][a-z0-9+.-]*)://", spec):
        raise CorpusError(
            f"There is no kind of source {scheme[1]}://; a source is a folder, an archive, a "
            f"table, or one of {', '.join(SOURCES)}."
        )
    if is_table(spec):
        return table_source(spec, genres)
    path = Path(spec).expanduser()
    if path.is_file() and archive_kind(path) is not None:
        return archive_source(path, genres)
    if path.suffix.lower() in SUFFIXES and not path.exists():
        raise CorpusError(f"There is no archive {path}.")
    return FolderSource(path, genres)
