"""Genre labels: the ten default ones in their order, and when two names mean the same genre."""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

GENRES: tuple[str, ...] = (
    "blues",
    "classical",
    "country",
    "disco",
    "hiphop",
    "jazz",
    "metal",
    "pop",
    "reggae",
    "rock",
)

SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015]+")
"""Blanks, underscores, hyphens and dashes between the words of a name."""
BLANKS = re.compile(r"[\s_]+")


def caseless(name: str) -> str:
    """A name as it compares without case: canonically composed (NFC), case folded, stripped.

    Canonical caseless matching after the Unicode Standard, section 3.13: a name in decomposed form, as file
    systems of macOS have it, equals the composed one.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold()).strip()


@lru_cache(maxsize=1 << 14)
def genre_key(name: str) -> str:
    """What all spellings of a genre have in common: `Hip-Hop`, `hip hop` and `HIP_HOP` are `hiphop`.

    `caseless`, without what separates words; between two digits a separator stays, as a blank. All other
    characters count: `C`, `C+` and `C#` are three genres. It is empty for blank names only.
    """
    plain = caseless(name)

    def joined(match: re.Match[str]) -> str:
        before, after = plain[match.start() - 1 : match.start()], plain[match.end() : match.end() + 1]
        if before.isdecimal() and after.isdecimal():  # 2019-20 is not 201920
            return " "
        if _in_word(before) and unicodedata.category(after or " ")[0] in "LN":
            return ""
        return BLANKS.sub("", match[0])  # a hyphen at an end or beside a symbol is none between words

    return unicodedata.normalize("NFC", SEPARATORS.sub(joined, plain)) or plain


def genre_named(name: str, genres: Iterable[str]) -> str | None:
    """The one of `genres` that a name means, None if it means none of them."""
    key = genre_key(name)
    return next((genre for genre in genres if genre_key(genre) == key), None)


def _in_word(character: str) -> bool:
    return character != "" and unicodedata.category(character)[0] in "LMN"
