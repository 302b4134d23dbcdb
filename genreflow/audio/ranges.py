"""A range of an open file as a file of its own, for files that hold several recordings or a wrong header."""

import io
from typing import BinaryIO

OpenFile = BinaryIO | io.FileIO
"""An open, seekable binary file; unbuffered where it is a path's."""
LARGEST_OFFSET = 1 << 62


class FileRange(io.RawIOBase):
    """The bytes from `start` to `end` of an open file, with some of them replaced.

    A seek to nowhere gives -1: FFmpeg follows damaged headers to places before the
    beginning and takes a negative number for
    "there is none"; an exception would be printed with its traceback and hide FFmpeg's own message.
    """

    def __init__(
        self, file: OpenFile, start: int = 0, end: int | None = None, patches: dict[int, bytes] | None = None
    ) -> None:
        self._file, self._start = file, start
        self._size = (size(file) if end is None else end) - start
        self._patches = patches or {}
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}.get(whence, 0)
        if not 0 <= base + offset < LARGEST_OFFSET:
            return -1
        self._position = base + offset
        return self._position

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        if self._position >= self._size:  # the file may not have such places
            return 0
        view = memoryview(buffer).cast("B")
        self._file.seek(self._start + self._position)
        content = self._file.read(min(len(view), max(0, self._size - self._position)))
        count = len(content)
        view[:count] = content
        for at, patch in self._patches.items():
            first = max(at, self._position)
            last = min(at + len(patch), self._position + count)
            if first < last:
                view[first - self._position : last - self._position] = patch[first - at : last - at]
        self._position += count
        return count


def size(file: OpenFile) -> int:
    """Bytes of an open file."""
    return file.seek(0, io.SEEK_END)


def read_at(file: OpenFile, offset: int, count: int) -> bytes:
    """At most `count` bytes from `offset` on."""
    file.seek(offset)
    return file.read(count)
