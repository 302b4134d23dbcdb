"""Matroska and WebM: whether the bytes that its elements declare are there."""

from genreflow.audio.limits import INTACT_SHARE
from genreflow.audio.ranges import OpenFile, read_at, size
from genreflow.core.errors import AudioError

MAGIC = b"\x1a\x45\xdf\xa3"
SEGMENT = 0x18538067
MAX_ELEMENTS = 100_000


def check(file: OpenFile, name: str) -> None:
    """Reject a file whose segment, or last cluster, reaches far beyond its end.

    A duration does not count: audio may begin late and have gaps. The segment of a live recording has an
    unknown size; there the elements in it count.

    Raises:
        AudioError: `reason` is `truncated`.
    """
    end = size(file)
    position, declared = 0, 0
    for _ in range(MAX_ELEMENTS):
        element = _element(read_at(file, position, 12))
        if element is None:
            break
        kind, head, length = element
        if length is None:  # unknown: its children follow
            position += head
        elif kind == SEGMENT:
            declared = position + head + length
            break
        else:
            position += head + length
            declared = position
        if position >= end:
            break
    if end < declared * INTACT_SHARE:
        raise AudioError(
            f"{name} is truncated: its header claims {declared} bytes, it holds {end}.", "truncated"
        )


def _element(content: bytes) -> tuple[int, int, int | None] | None:
    """An element's identifier, the length of its head, and its size in bytes (None: unknown)."""
    if not content or not content[0]:
        return None
    width = 9 - content[0].bit_length()
    if width > 4 or len(content) <= width or not content[width]:
        return None
    wide = 9 - content[width].bit_length()
    if len(content) < width + wide:
        return None
    length = int.from_bytes(content[width : width + wide], "big") & ((1 << 7 * wide) - 1)
    unknown = length == (1 << 7 * wide) - 1
    return int.from_bytes(content[:width], "big"), width + wide, None if unknown else length
