"""Archives into folders, safely: nothing lands outside, nothing is a link, and size and number have bounds.

Archives come from anywhere. tarfile's data filter says what a member may be, of zips as well; links are left
out, and a name that leads outside refuses the whole archive. What the filter has no bounds for is counted
here: entries, unpacked bytes as they come, headers in memory.
"""

import bz2
import calendar
import contextlib
import errno
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from pydantic import ValidationError

from genreflow.core.digests import text_digest
from genreflow.core.documents import Frozen
from genreflow.core.errors import CorpusError, one_line
from genreflow.corpus.sources.base import is_litter, listed, shown

MOST_ENTRIES = 200_000
"""Twice as many clips as the largest free collection (FMA, 106,574) has."""
MOST_BYTES = 200 * 10**9
"""More than any corpus of clips; unpack by hand what is larger."""
MOST_RATIO = 200
"""Unpacked over packed bytes. Music shrinks to half; even a minute of silence among clips stays far below."""
RATIO_FREE_BYTES = 256 << 20
"""Small archives may have any ratio."""
MOST_HEADER_BYTES = 1 << 20
"""What tar's headers (long names, attributes) may take at once: they are held in memory."""
MOST_DIRECTORY_BYTES = 64 << 20
"""The same of a zip's directory: 200,000 names of 255 bytes, and some."""
SPARE_BYTES = 1 << 30
"""What is left free on the disk."""
BLOCK = 1 << 20
TAR_BLOCK = 512

RECORD = ".unpacked.json"
"""Lies in every unpacked folder: what was left out, and what the folder held then."""

Kind = Literal["zip", "tar"]
MAGIC: dict[bytes, str] = {
    b"\x1f\x8b": "gz",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"]\x00\x00": "lzma",
    b"\x28\xb5\x2f\xfd": "zst",
    b"\x04\x22\x4d\x18": "lz4",
}
DAMAGE = (
    EOFError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    UnicodeDecodeError,
    NotImplementedError,
    ValueError,
)
"""What the standard library raises on archives that are cut short, altered or of an unknown method."""


class Unpacked(Frozen):
    """What became of an archive."""

    state: str
    """sha256 over path, size and modification time of every file, as it was unpacked."""
    notes: tuple[str, ...]
    """Sentences about what was left out."""


def archive_kind(path: Path) -> Kind | None:
    """Whether a file is a zip or a tar of whatever compression, by its first bytes and not by its name.

    What is compressed but damaged at its very start counts as a tar: `unpack` reports what is wrong.

    Raises:
        CorpusError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(TAR_BLOCK)
            if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
                return "zip"
            if _compression(start) is not None:
                try:
                    with contextlib.closing(_decompressed(file)) as stream:
                        start = stream.read(TAR_BLOCK)
                except (*DAMAGE, OSError):
                    return "tar"
        tarfile.TarInfo.frombuf(start, tarfile.ENCODING, "surrogateescape")
        return "tar"
    except DAMAGE:
        return None
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}.") from error


def unpack(
    archive: Path, folder: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Unpack `archive` into the new folder `folder`, which is there whole or not at all.

    Args:
        on_progress: called now and then with the packed bytes read, and all of them.

    Raises:
        CorpusError: it is no archive, is damaged or cut short, names places outside of itself, exceeds a
            limit, or the disk is full.
    """
    try:
        build(folder, lambda partial: _fill(archive, partial, on_progress))
    except DAMAGE as error:
        raise CorpusError(
            f"The archive {archive} is damaged or cut short ({one_line(error)}); fetch or make it again."
        ) from error
    except RuntimeError as error:  # raised by zipfile where a password is needed
        raise CorpusError(
            f"The archive {archive} is encrypted ({one_line(error)}); unpack it yourself."
        ) from error
    except OSError as error:
        if error.errno is None:  # a decompressor's complaint, not the disk's
            raise CorpusError(
                f"The archive {archive} is damaged or cut short ({one_line(error)}); fetch or make it again."
            ) from error
        raise CorpusError(f"{archive} cannot be unpacked: {error.strerror}.") from error


def build(folder: Path, fill: Callable[[Path], list[str]]) -> None:
    """Make the new folder `folder` of what `fill` writes into an empty one; it is there whole or not at all.

    Args:
        fill: writes files and says what it left out, in sentences.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-partial-", dir=folder.parent))
    try:
        notes = fill(partial)
        record = Unpacked(state=folder_state(partial), notes=tuple(notes))
        (partial / RECORD).write_text(record.model_dump_json(indent=2) + "\n")
        partial.chmod(0o755)
        if not folder.is_dir():  # another process may have been quicker: the content is the same
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def unpacked(folder: Path) -> Unpacked:
    """What was recorded when `folder` was unpacked.

    Raises:
        CorpusError: it was changed since.
    """
    try:
        record = Unpacked.model_validate_json((folder / RECORD).read_text())
    except (OSError, ValidationError):
        record = None
    if record is None or record.state != folder_state(folder):
        raise CorpusError(
            f"{folder} is not what was unpacked there any more. Delete it, and it will be made again."
        )
    return record


def folder_state(folder: Path) -> str:
    """sha256 over path, size and modification time of every file below, the record aside."""
    lines = []
    for path, _, names in os.walk(folder):
        for name in names:
            if name != RECORD:
                file = Path(path) / name
                state = file.stat()
                lines.append(
                    f"{shown(file.relative_to(folder).as_posix())} {state.st_size} {state.st_mtime_ns}"
                )
    return text_digest(sorted(lines))


def _fill(archive: Path, folder: Path, on_progress: Callable[[int, int], None]) -> list[str]:
    writer = _Writer(archive, folder, _limit(archive, folder))
    match archive_kind(archive):
        case "zip":
            _unpack_zip(archive, writer, on_progress)
        case "tar":
            _unpack_tar(archive, writer, on_progress)
        case None:
            raise CorpusError(f"{archive} is neither a tar nor a zip archive.")
    return writer.notes()


@dataclass
class _Writer:
    """Writes members below a folder and keeps count."""

    archive: Path
    folder: Path
    limit: int
    entries: int = 0
    size: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def admits(self, member: tarfile.TarInfo) -> bool:
        """Whether one more member is a file to be written; what else it is, a folder aside, is noted.

        Raises:
            CorpusError: its name is absolute or climbs, or there are too many members.
        """
        self.entries += 1
        if self.entries > MOST_ENTRIES:
            raise CorpusError(
                f"The archive {self.archive} has more than {MOST_ENTRIES:,} entries, which no corpus of "
                "clips needs. Unpack it yourself if you trust it, and name the folder."
            )

        try:
            # The filter takes the slash off an absolute name.
            inside = tarfile.data_filter(member, str(self.folder)).name == member.name
        except tarfile.SpecialFileError:
            self.leave_out(member.name, "entries that are no files (devices, pipes)")
            return False
        except (tarfile.AbsoluteLinkError, tarfile.LinkOutsideDestinationError):
            inside = True
        except tarfile.FilterError:
            inside = False
        if not inside:
            raise CorpusError(
                f"The archive {self.archive} names a place outside of itself, {shown(member.name)}; nothing "
                "of it was kept. Pack the folder again with relative names."
            )
        if member.issym() or member.islnk():
            self.leave_out(member.name, "links (links are not followed out of archives)")
        elif member.issparse():  # zeros that no header pays for
            self.leave_out(member.name, "sparse files")
        else:
            return member.isreg()
        return False

    def grow(self, size: int) -> None:
        """So many unpacked bytes more.

        Raises:
            CorpusError: they exceed what this archive may unpack to.
        """
        self.size += size
        if self.size > self.limit:
            raise CorpusError(
                f"The archive {self.archive} ({self.archive.stat().st_size:,} bytes) unpacks to more than "
                f"{self.limit:,} bytes: a decompression bomb, or larger than the free disk space "
                "allows. Unpack it yourself if you trust it, and name the folder."
            )

    def leave_out(self, name: str, why: str) -> None:
        self.left_out.setdefault(why, []).append(name)

    def notes(self) -> list[str]:
        return [
            f"Left out of {self.archive.name}: {len(names)} {why}, such as {listed(names, 3)}."
            for why, names in sorted(self.left_out.items())
        ]

    def write(self, name: str, source: IO[bytes], modified: float) -> None:
        """The bytes of a member that `admits` let through, under its name.

        Raises:
            CorpusError: the archive grows past its limit.
        """
        parts = PurePosixPath(os.path.normpath(name)).parts
        if not parts or any(is_litter(part) for part in parts):
            return
        target = self.folder.joinpath(*parts)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("xb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            self.leave_out(name, "files whose place another entry has")
            return
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            self.leave_out(name, "files whose names are too long for this disk")
            return
        with file:
            while block := source.read(BLOCK):
                file.write(block)
        with contextlib.suppress(OSError, OverflowError, ValueError):  # a date that this disk does not know
            os.utime(target, (modified, modified))


def _unpack_tar(archive: Path, writer: _Writer, on_progress: Callable[[int, int], None]) -> None:
    total = archive.stat().st_size
    with archive.open("rb") as packed, contextlib.closing(_Metered(_decompressed(packed), writer)) as stream:
        with tarfile.open(fileobj=stream, mode="r:", errorlevel=1) as tar:
            while (member := tar.next()) is not None:
                # undocumented (Python 3.11): it would keep every member of a hostile archive in memory
                tar.members = []  # type: ignore[attr-defined]
                if writer.admits(member) and (content := tar.extractfile(member)) is not None:
                    writer.write(member.name, content, member.mtime)
                on_progress(packed.tell(), total)
        if stream.last != bytes(TAR_BLOCK):  # tarfile takes a damaged or missing header for the end
            raise tarfile.ReadError(f"there is no end mark at byte {stream.tell():,}")
        while stream.read(BLOCK):  # the checksum lies at the compressed end
            pass


def _unpack_zip(archive: Path, writer: _Writer, on_progress: Callable[[int, int], None]) -> None:
    total = archive.stat().st_size
    if (directory := _directory_bytes(archive)) > MOST_DIRECTORY_BYTES:
        raise CorpusError(
            f"The archive {archive} has a directory of {directory:,} bytes, which no corpus of clips needs. "
            "Unpack it yourself if you trust it, and name the folder."
        )
    done = 0
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            entry = _as_tar_member(member)
            if writer.admits(entry):
                with packed.open(member) as content:
                    metered: Any = _Metered(content, writer)
                    writer.write(entry.name, metered, _modified(member))
            done += member.compress_size
            on_progress(min(done, total), total)


class _Metered(io.RawIOBase):
    """A stream that only goes forward, counts what comes out of it, and gives little at a time."""

    def __init__(self, stream: Any, writer: _Writer) -> None:
        self._stream, self._writer, self._position = stream, writer, 0
        self.last = b""
        """What the last read gave."""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > MOST_HEADER_BYTES:
            raise CorpusError(
                f"The archive {self._writer.archive} has a header of {size:,} bytes: it is made to exhaust "
                "memory, or damaged."
            )
        data: bytes = self._stream.read(size)
        while data and len(data) < size and (more := self._stream.read(size - len(data))):
            data += more
        self._position += len(data)
        self._writer.grow(len(data))
        self.last = data
        return data

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = 0) -> int:
        if whence != 0 or position < self._position:
            raise tarfile.ReadError("a member that lies before the one before it")
        while self._position < position:
            if not self.read(min(BLOCK, position - self._position)):
                raise EOFError("it ends before its last member does")
        return self._position

    def close(self) -> None:
        self._stream.close()
        super().close()


def _limit(archive: Path, folder: Path) -> int:
    """The bytes that an archive may unpack to here."""
    ratio = max(RATIO_FREE_BYTES, MOST_RATIO * archive.stat().st_size)
    return min(MOST_BYTES, ratio, max(0, shutil.disk_usage(folder).free - SPARE_BYTES))


def _compression(start: bytes) -> str | None:
    return next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), None)


def _decompressed(file: IO[bytes]) -> IO[bytes] | gzip.GzipFile:
    """The tar in a file of whatever compression."""
    file.seek(0)
    kind = _compression(file.read(8))
    file.seek(0)
    match kind:
        case "gz":
            return gzip.GzipFile(fileobj=file)
        case "bz2":
            return bz2.BZ2File(file)
        case "xz" | "lzma":
            return lzma.LZMAFile(file)
        case "zst" | "lz4":
            import pyarrow

            return pyarrow.CompressedInputStream(file, "zstd" if kind == "zst" else "lz4")
        case _:
            return file


def _directory_bytes(archive: Path) -> int:
    """The size of a zip's directory, which zipfile reads at once, as the end record claims it."""
    with archive.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - (1 << 16) - 22))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 20:
        return 0  # zipfile will say so
    (claimed,) = struct.unpack_from("<I", tail, at + 12)
    if claimed == 0xFFFFFFFF and (far := tail.rfind(b"PK\x06\x06", 0, at)) >= 0 and len(tail) >= far + 48:
        (claimed,) = struct.unpack_from("<Q", tail, far + 40)
    return int(claimed)


def _as_tar_member(member: zipfile.ZipInfo) -> tarfile.TarInfo:
    """Name and type of a zip's member, for tarfile's filter."""
    entry = tarfile.TarInfo(member.filename.replace("\\", "/"))  # some programs of Windows write it so
    kind = stat.S_IFMT(member.external_attr >> 16)
    if not entry.name or entry.name.endswith("/"):
        entry.type = tarfile.DIRTYPE
    elif kind == stat.S_IFLNK:
        entry.type = tarfile.SYMTYPE
    elif kind not in (0, stat.S_IFREG):
        entry.type = tarfile.FIFOTYPE
    return entry


def _modified(member: zipfile.ZipInfo) -> float:
    """A member's date, which has no time zone, in seconds since 1970."""
    try:
        return calendar.timegm((*member.date_time, 0, 0, 0))
    except ValueError:  # a month of 0: no date was given
        return 0.0
