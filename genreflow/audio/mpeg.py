"""MPEG audio (mp3, mp2): frames, what a Xing header declares, and recordings joined in one file."""

from collections.abc import Callable
from typing import NamedTuple

from genreflow.audio.ranges import OpenFile, read_at, size

BIT_RATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""kbit/s by version (MPEG-2.5 has MPEG-2's) and layer; not of index 0: its frames have no known length."""
SAMPLE_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""Hz by the version's two bits."""
ID3V1_BYTES = 128
TAG_BYTES = 1 << 16
"""What may follow the frames that a Xing header counts: ID3v1, APE and lyrics tags."""
SEARCH_BYTES = 1 << 16
IN_A_ROW = 3
"""Frame headers that have to follow one another, so that bytes count as MPEG audio."""
ROW_BYTES = 8_192
"""More than so many of the longest frames have."""
CHUNK_BYTES = 1 << 20
CHECK_FRAMES = 1_000
XING = (b"Xing", b"Info")


class Header(NamedTuple):
    """A frame's header."""

    kind: tuple[int, int, int, bool]
    """Version bits, layer, sample rate in Hz, mono: what does not change within a recording."""
    samples: int
    size: int
    """Bytes, the header's four included."""
    side: int
    """Offset of a Xing header in a frame that has one."""


class XingHeader(NamedTuple):
    """The fields of a Xing, Info or VBRI header; 0 where one is missing."""

    frames: int
    size: int


class Recording(NamedTuple):
    """Consecutive frames of one kind, from byte `start` to `end`."""

    start: int
    end: int
    frames: int
    declared: int
    """Frames, by its Xing header; 0 without one."""


def header(content: bytes, at: int = 0) -> Header | None:
    """The frame header at a place, None where there is none whose frame's length is known."""
    if len(content) < at + 4 or content[at] != 0xFF or content[at + 1] & 0xE0 != 0xE0:
        return None
    return _HEADERS.get((content[at + 1] & 0xFE, content[at + 2] & 0xFE, content[at + 3] >> 6 == 3))


def skip_tags(file: OpenFile, position: int = 0) -> int:
    """Where the ID3v2 tags end that begin at a place."""
    while (tag := read_at(file, position, 10))[:3] == b"ID3" and len(tag) == 10:
        length = tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9]
        position += 10 + length + (10 if tag[5] & 0x10 else 0)
    return position


def first_frame(file: OpenFile, position: int) -> int | None:
    """Where the first of `IN_A_ROW` consecutive frames is, at most `SEARCH_BYTES` after a place.

    Fewer, up to the file's end, count at the place itself only: further on they may be anything.
    """
    content = read_at(file, position, SEARCH_BYTES + ROW_BYTES)
    if _row(content, 0, len(content)):
        return position
    at = 0
    while 0 < (at := content.find(b"\xff", at + 1)) < SEARCH_BYTES:
        if _row(content, at, None):
            return position + at
    return None


def xing_header(file: OpenFile, position: int) -> XingHeader | None:
    """What the first frame declares, None where it holds sound."""
    content = read_at(file, position, 200)
    frame = header(content)
    return None if frame is None else _xing_header(content, 0, frame)


def stated_whole(file: OpenFile, position: int) -> bool:
    """Whether the file is one recording whose Xing header states how many frames and bytes it has.

    libsndfile takes the number of frames from there. Without it, it estimates the length from the first
    frame's bit rate, and reads no further.
    """
    stated = xing_header(file, position)
    if stated is None or not stated.frames or not stated.size:
        return False
    rest = size(file) - (position + stated.size)
    return -stated.size // 100 <= rest < TAG_BYTES and _only_tags(file, position + stated.size)


def recordings(file: OpenFile, position: int, check: Callable[[int, int], None]) -> list[Recording]:
    """The recordings that lie one behind the other in a file.

    A new one begins with a Xing header, or where the sample rate, the number of channels, version or layer
    change. Frames are counted; `check(samples, rate)` may end that.
    """
    end = size(file)
    found: list[Recording] = []
    start, frames, declared, kind, samples = position, 0, 0, None, 0
    last = position
    base, content = position, read_at(file, position, CHUNK_BYTES)

    def close() -> None:
        if frames:
            found.append(Recording(start, last, frames, declared))

    while position < end:
        if position + ROW_BYTES > base + len(content) and base + len(content) < end:
            base, content = position, read_at(file, position, CHUNK_BYTES)
        at = position - base
        frame = header(content, at)
        if frame is None or (frame.kind != kind and not _row(content, at, end - base)):
            resumed = _resume(file, position, end)
            position = resumed
            if not base <= position < base + len(content):
                base, content = position, read_at(file, position, CHUNK_BYTES)
            continue
        stated = _xing_header(content, at, frame)
        if stated is not None or frame.kind != kind:
            close()
            start, frames, declared, kind = position, 0, stated.frames if stated else 0, frame.kind
        if stated is None:
            frames += 1
            samples += frame.samples
            if not frames % CHECK_FRAMES:
                check(samples, frame.kind[2])
        position += frame.size
        last = min(position, end)
    close()
    return found


def _resume(file: OpenFile, position: int, end: int) -> int:
    """The next place that may be a frame: behind a tag, or at the next header that others follow."""
    content = read_at(file, position, CHUNK_BYTES)
    if content[:3] == b"ID3":
        return max(position + 10, skip_tags(file, position))
    if content[:3] == b"TAG":
        return min(end, position + ID3V1_BYTES)
    at = 0
    while (at := content.find(b"\xff", at + 1)) >= 0:
        if _row(content, at, end - position):
            return position + at
    return position + max(1, len(content) - ROW_BYTES) if position + len(content) < end else end


def _row(content: bytes, at: int, end: int | None) -> bool:
    """Whether frames of one kind follow one another from a place on; fewer where they reach `end` exactly."""
    first = None
    for _ in range(IN_A_ROW):
        frame = header(content, at)
        if frame is None:
            return first is not None and at == end
        if first is None:
            first = frame.kind
        elif frame.kind != first:
            return False
        at += frame.size
    return True


def _xing_header(content: bytes, at: int, frame: Header) -> XingHeader | None:
    """Of a frame that is silent and carries a Xing, Info or VBRI header in place of sound."""
    place = at + frame.side
    if content[place : place + 4] not in XING:
        place += 2  # behind a checksum
    tag = content[place : place + 16]
    if tag[:4] in XING and len(tag) == 16 and not any(content[at + 6 : at + frame.side]):
        flags = int.from_bytes(tag[4:8], "big")
        frames = int.from_bytes(tag[8:12], "big") if flags & 1 else 0
        length = int.from_bytes(tag[12:16] if flags & 1 else tag[8:12], "big") if flags & 2 else 0
        return XingHeader(frames, length)
    tag = content[at + 36 : at + 54]
    if tag[:4] == b"VBRI" and len(tag) == 18:
        return XingHeader(int.from_bytes(tag[14:18], "big"), int.from_bytes(tag[10:14], "big"))
    return None


def _only_tags(file: OpenFile, position: int) -> bool:
    """Whether no frames follow a place."""
    return first_frame(file, position) is None


def _headers() -> dict[tuple[int, int, bool], Header]:
    """Every header by its second byte (less the CRC's bit), its third (less the private bit), and mono."""
    found = {}
    for version, rates in SAMPLE_RATES.items():
        for layer in (1, 2, 3):
            second = 0xE0 | version << 3 | (4 - layer) << 1
            samples = 384 if layer == 1 else 1_152 if layer == 2 or version == 3 else 576
            for index, kbit in enumerate(BIT_RATES[1 if version == 3 else 2, layer], start=1):
                for place, rate in enumerate(rates):
                    for padding in (0, 1):
                        slot = 4 if layer == 1 else 1
                        length = (samples // 8 * kbit * 1000 // rate // slot + padding) * slot
                        for mono in (False, True):
                            side = 4 + ((17 if mono else 32) if version == 3 else (9 if mono else 17))
                            third = index << 4 | place << 2 | padding << 1
                            kind = (version, layer, rate, mono)
                            found[second, third, mono] = Header(kind, samples, length, side)
    return found


_HEADERS = _headers()
