"""mp4, m4a and mov: whether the bytes that boxes and the segment index declare are there."""

import struct

from genreflow.audio.limits import INTACT_SHARE
from genreflow.audio.ranges import OpenFile, read_at, size
from genreflow.core.errors import AudioError

FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"sidx", b"moof", b"pnot")
MAX_BOXES = 100_000
"""An hour in fragments of a tenth of a second has fewer."""


def check(file: OpenFile, name: str) -> None:
    """Reject a file without its index, or whose boxes reach far beyond its end.

    Raises:
        AudioError: `reason` is `truncated`.
    """
    end = size(file)
    position, declared = 0, 0
    kinds = set()
    for _ in range(MAX_BOXES):
        head = read_at(file, position, 16)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head[:8])
        body = 8
        if length == 1 and len(head) == 16:
            length, body = struct.unpack(">Q", head[8:])[0], 16
        if length == 0:  # up to the file's end
            length = end - position
        if length < body:
            break
        kinds.add(kind)
        if kind == b"sidx":
            declared = max(declared, _segments(file, position, length))
        position += length
        declared = max(declared, position)
        if position >= end:
            break
    if b"mdat" in kinds and not kinds & {b"moov", b"moof"}:
        raise AudioError(
            f"{name} is incomplete: its index (moov) is missing, as after a recording or a download that "
            "was interrupted. Record or fetch it again.",
            "truncated",
        )
    if end < declared * INTACT_SHARE:
        raise AudioError(
            f"{name} is truncated: its header claims {declared} bytes, it holds {end}.", "truncated"
        )


def _segments(file: OpenFile, position: int, length: int) -> int:
    """Where the segments end that an index (sidx) lists."""
    box = read_at(file, position, min(length, 1 << 20))
    if len(box) < 32:
        return 0
    long = box[8] != 0
    at = 28 if long else 24
    first = struct.unpack_from(">Q" if long else ">I", box, at)[0] if len(box) >= at + 8 else 0
    at += 8 if long else 4
    count = struct.unpack_from(">H", box, at + 2)[0] if len(box) >= at + 4 else 0
    end = position + length + first
    for number in range(count):
        entry = at + 4 + 12 * number
        if len(box) < entry + 4:
            break
        end += struct.unpack_from(">I", box, entry)[0] & 0x7FFF_FFFF
    return int(end)
