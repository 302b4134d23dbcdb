"""FLAC: what its header declares, files cut without re-encoding, and several in one."""

from typing import NamedTuple

import numpy as np

from genreflow.audio.ranges import OpenFile, read_at, size

MARKER = b"fLaC\x00\x00\x00\x22"
"""The magic number and the header of STREAMINFO, which is always first."""
ID3V1_BYTES = 128
SEARCH_BYTES = 1 << 17
LARGEST_FRAME = 1 << 18
"""Bytes in which a last frame is looked for where STREAMINFO does not say how large frames are."""


class Stream(NamedTuple):
    """One FLAC stream in a file."""

    start: int
    end: int
    rate: int
    """Hz; 0 in a damaged header."""
    samples: int
    """What STREAMINFO declares; 0 where it is not known (written to a pipe)."""
    largest_frame: int
    """Bytes."""


def streams(file: OpenFile, start: int) -> list[Stream]:
    """The FLAC streams that lie one behind the other in a file, the first at `start`."""
    end = size(file)
    starts = [start, *_markers(file, start + len(MARKER), end)]
    found = []
    for first, last in zip(starts, [*starts[1:], end], strict=True):
        info = read_at(file, first + 8, 34)
        rate = int.from_bytes(info[10:13], "big") >> 4
        samples = int.from_bytes(info[13:18], "big") & 0xF_FFFF_FFFF
        largest = int.from_bytes(info[7:10], "big") or LARGEST_FRAME
        found.append(Stream(first, last, rate, samples, largest))
    return found


def ends_with_a_whole_frame(file: OpenFile, stream: Stream) -> bool:
    """Whether the last frame is complete, as it is where a file was cut between frames and not within one."""
    end = stream.end
    if read_at(file, max(stream.start, end - ID3V1_BYTES), 3) == b"TAG":
        end -= ID3V1_BYTES
    begin = max(stream.start, end - stream.largest_frame - 16)
    tail = read_at(file, begin, end - begin)
    at = len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        header = tail[at : at + 16]
        if (
            len(header) > 5
            and header[1] & 0xFC == 0xF8
            and _header_is_valid(header)
            and not _crc16(tail[at:])
        ):
            return True
    return False


def _markers(file: OpenFile, start: int, end: int) -> list[int]:
    found = []
    position = start
    while position < end:
        content = read_at(file, position, SEARCH_BYTES + len(MARKER) - 1)
        # faster than bytes.find, which every clip would pay for
        codes = np.frombuffer(content, np.uint8)
        places = np.flatnonzero(codes[: -len(MARKER) + 1] == MARKER[0])
        places = places[codes[places + 1] == MARKER[1]]
        found += [position + int(at) for at in places if content.startswith(MARKER, int(at))]
        position += SEARCH_BYTES
    return found


def _header_is_valid(header: bytes) -> bool:
    """Whether bytes begin with a frame header: its length follows from its own codes, and its CRC-8 fits."""
    first = header[4]
    number = 1 if first < 0x80 else 8 - (first ^ 0xFF).bit_length()
    length = 4 + number + {6: 1, 7: 2}.get(header[2] >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
    check = 0
    for byte in header[: length + 1]:
        check = _CRC8[check ^ byte]
    return len(header) > length and check == 0


def _crc16(content: bytes) -> int:
    check = 0
    for byte in content:
        check = (check << 8 & 0xFF00) ^ _CRC16[check >> 8 ^ byte]
    return check


def _crc_table(polynomial: int, bits: int) -> list[int]:
    top, mask = 1 << bits - 1, (1 << bits) - 1
    table = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value & top else 0)) & mask
        table.append(value)
    return table


_CRC8 = _crc_table(0x07, 8)
_CRC16 = _crc_table(0x8005, 16)
