"""Headers of wav, RF64, W64, au and aiff: what they declare, and those that were never completed."""

import struct

from genreflow.audio.limits import INTACT_SHARE
from genreflow.audio.ranges import FileRange, OpenFile, read_at, size
from genreflow.core.errors import AudioError

UNKNOWN_LENGTH = 0x7F00_0000
"""Writers to a pipe cannot know the length and put this or more (sox's aiff 0x7F000050, its wav 0x7FFFF000,
ffmpeg 0xFFFFFFFF): no claim."""
UNKNOWN_LONG = 1 << 62
"""The same in 64 bits."""
W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")


def checked(file: OpenFile, name: str) -> OpenFile | FileRange:
    """The file, its header completed where a recorder never did it; other formats as they are.

    A recorder that is interrupted, or that writes to a pipe, leaves 0 where the length belongs. libsndfile
    takes that for a file without samples.

    Raises:
        AudioError: `reason` is `truncated`: the header claims more than 1 % more than the file holds.
    """
    head = read_at(file, 0, 16)
    if len(head) < 12:
        return file
    if head[:4] == b".snd":
        return _au(file, head, name)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        claimed = struct.unpack(">I", head[4:8])[0]
        if claimed < UNKNOWN_LENGTH:
            _check(claimed, size(file) - 8, name)
        return file
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return _wave(file, head, name)
    if head == W64_RIFF:
        return _w64(file, name)
    return file


def _au(file: OpenFile, head: bytes, name: str) -> OpenFile | FileRange:
    offset, claimed = struct.unpack(">II", head[4:12])
    held = size(file) - offset
    if claimed == 0 and held > 0:
        return FileRange(file, patches={8: struct.pack(">I", min(held, 0xFFFF_FFFF))})
    if claimed < UNKNOWN_LENGTH:
        _check(claimed, held, name)
    return file


def _wave(file: OpenFile, head: bytes, name: str) -> OpenFile | FileRange:
    order = ">" if head[:4] == b"RIFX" else "<"
    end = size(file)
    position, long_at, long_size, block = 12, None, None, 1
    while True:
        chunk = read_at(file, position, 8)
        if len(chunk) < 8:
            return file
        claimed = struct.unpack(order + "I", chunk[4:])[0]
        offset = position + 8
        if chunk[:4] == b"ds64" and head[:4] == b"RF64":
            sizes = read_at(file, offset, 24)
            if len(sizes) == 24:
                long_at, long_size = offset, struct.unpack("<Q", sizes[8:16])[0]
        elif chunk[:4] == b"fmt ":
            shape = read_at(file, offset, 16)
            block = struct.unpack(order + "H", shape[12:14])[0] or 1 if len(shape) == 16 else 1
        elif chunk[:4] == b"data":
            break
        position = offset + claimed + claimed % 2
    held = max(0, end - offset)
    if long_at is not None and long_size is not None and claimed == 0xFFFF_FFFF:
        if 0 < long_size < UNKNOWN_LONG:
            _check(long_size, held, name)
            return file
        whole = held - held % block
        sizes = struct.pack("<QQQ", end - 8, whole, whole // block)
        return FileRange(file, patches={long_at: sizes})
    if claimed == 0 and held > 0 and not _chunks_follow(file, offset, end, order):
        whole = min(held - held % block, UNKNOWN_LENGTH - UNKNOWN_LENGTH % block)
        return FileRange(file, patches={offset - 4: struct.pack(order + "I", whole)})
    if 0 < claimed < UNKNOWN_LENGTH:
        _check(claimed, held, name)
    return file


def _chunks_follow(file: OpenFile, position: int, end: int, order: str) -> bool:
    """Whether what follows an empty data chunk is made of other chunks, up to the file's end."""
    while position < end:
        chunk = read_at(file, position, 8)
        if len(chunk) < 8 or not all(32 <= byte < 127 for byte in chunk[:4]):
            return False
        length = struct.unpack(order + "I", chunk[4:])[0]
        position += 8 + length + length % 2
    return position in (end, end + 1)


def _w64(file: OpenFile, name: str) -> OpenFile:
    position, end = 40, size(file)
    while position < end:
        chunk = read_at(file, position, 24)
        if len(chunk) < 24:
            return file
        claimed = struct.unpack("<Q", chunk[16:])[0]
        if chunk[:16] == W64_DATA:
            if 24 < claimed < UNKNOWN_LONG:
                _check(claimed - 24, end - position - 24, name)
            return file
        if claimed < 24:
            return file
        position += claimed + -claimed % 8
    return file


def _check(claimed: int, held: int, name: str) -> None:
    if held < claimed * INTACT_SHARE:
        raise AudioError(
            f"{name} is truncated: its header claims {claimed} bytes of audio, it holds {max(0, held)}.",
            "truncated",
        )
