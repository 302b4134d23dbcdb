"""Artist and title from a file's tags."""

import codecs
from collections.abc import Mapping
from typing import NamedTuple


class Tags(NamedTuple):
    """Artist and title of a file."""

    artist: str | None = None
    title: str | None = None


def tags(values: Mapping[str, str]) -> Tags:
    """Artist and title from a container's values, whose undecodable bytes are surrogate escapes."""
    found = {key.lower(): text(value.encode("utf-8", "surrogateescape")) for key, value in values.items()}
    return Tags(found.get("artist") or None, found.get("title") or None)


def text(value: bytes) -> str:
    """A tag's text: UTF-8, else Windows-1252, which ID3v1 and RIFF tags are written in.

    ID3v1 cuts a value after 30 bytes: half a character of UTF-8 at its end is dropped.
    """
    try:
        decoded = codecs.getincrementaldecoder("utf-8")().decode(value)  # less half a character at its end
        if len(decoded.encode()) == len(value) or not decoded.isascii():
            return decoded.strip()
    except UnicodeDecodeError:
        pass
    try:
        return value.decode("cp1252").strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()
