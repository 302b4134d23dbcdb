"""A tar or zip of a folder, of whatever compression, unpacked once and kept."""

import re
import shutil
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from genreflow.core import home
from genreflow.core.digests import text_digest
from genreflow.core.errors import CorpusError
from genreflow.core.progress import MB, Reporter
from genreflow.corpus.sources.base import SourceItem, shown
from genreflow.corpus.sources.folder import FolderSource
from genreflow.corpus.sources.unpack import Unpacked, unpack, unpacked

SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz", ".zip", ".gz", ".bz2", ".xz", ".lzma", ".zst", ".lz4")
"""What archives are called, for a sentence where there is none; what they are is read from their bytes."""
LONGEST_STEM = 60


def archive_source(path: Path, genres: tuple[str, ...]) -> "UnpackedSource":
    """The folder packed in an archive; its fingerprint: sha256 over the archive's size and modification time.

    Raises:
        CorpusError: the archive cannot be read.
    """
    try:
        before = path.stat()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}.") from error

    def make(folder: Path) -> None:
        unpack(path, folder, Reporter("ingest", f"MB of {shown(path.name)} unpacked", MB))
        now = path.stat()
        if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            shutil.rmtree(folder)
            raise CorpusError(f"{path} was changed while it was unpacked. Run again.")

    fingerprint = text_digest([f"archive {before.st_size} {before.st_mtime_ns}"])
    folder = home.corpora_folder() / f"{stem(path.name)}-{fingerprint[:12]}"
    return UnpackedSource(folder, fingerprint, make, genres)


def stem(name: str) -> str:
    """An archive's name without what says that it is one, fit for a folder."""
    plain = re.sub(r"(\.tar)?\.\w{2,4}$", "", name)
    return re.sub(r"[^\w.-]", "_", plain).lstrip(".")[:LONGEST_STEM] or "archive"


class UnpackedSource:
    """A folder that is made where it is missing, kept, and checked when it is used."""

    def __init__(
        self, folder: Path, fingerprint: str, make: Callable[[Path], None], genres: tuple[str, ...]
    ) -> None:
        """
        Args:
            folder: where the files lie once they are fetched.
            make: unpacks into that folder with a record (`unpack.unpacked`), whole or not at all.
        """
        self.folder, self._fingerprint, self._make, self._genres = folder, fingerprint, make, genres

    def resolve(self) -> str:
        return self._fingerprint

    def fetch(self) -> None:
        """Make the folder where it is missing."""
        if not self.folder.is_dir():
            self._make(self.folder)

    @property
    def synthetic(self) -> bool:
        return self._source.synthetic

    def items(self) -> Iterator[SourceItem]:
        return self._source.items()

    def notes(self) -> list[str]:
        return [*self._record.notes, *self._source.notes()]

    @cached_property
    def _record(self) -> Unpacked:
        self.fetch()
        return unpacked(self.folder)

    @cached_property
    def _source(self) -> FolderSource:
        assert self._record
        return FolderSource(self.folder, self._genres)
