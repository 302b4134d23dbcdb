"""Ogg: the links of a chained stream, as radio recordings and `cat a.ogg b.ogg` have them."""

from genreflow.audio.ranges import OpenFile, read_at, size

PAGE = b"OggS"
HEADER_BYTES = 27
FIRST_OF_STREAM = 2
"""A flag of the page that begins a logical stream."""
SEARCH_BYTES = 1 << 16


def links(file: OpenFile) -> list[tuple[int, int]]:
    """Start and end in bytes of each link of a chain.

    A link begins where a page that begins a logical stream follows one that does not: streams that are
    multiplexed, a film's sound and its pictures, all begin together.
    """
    end = size(file)
    starts: list[int] = []
    beginning = False
    position = 0
    while position < end:
        head = read_at(file, position, HEADER_BYTES + 255)
        if head[:4] != PAGE or len(head) < HEADER_BYTES:
            position = _next_page(file, position + 1, end)
            continue
        first = bool(head[5] & FIRST_OF_STREAM)
        if first and not beginning:
            starts.append(position)
        beginning = first
        segments = head[26]
        position += HEADER_BYTES + segments + sum(head[HEADER_BYTES : HEADER_BYTES + segments])
    starts = starts or [0]
    starts[0] = 0
    return list(zip(starts, [*starts[1:], end], strict=True))


def _next_page(file: OpenFile, position: int, end: int) -> int:
    while position < end:
        content = read_at(file, position, SEARCH_BYTES)
        at = content.find(PAGE)
        if at >= 0:
            return position + at
        position += max(1, len(content) - len(PAGE) + 1)
    return end
