"""Artist and title in whatever encoding a tag has."""

import struct
from pathlib import Path

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from media import melody

from genreflow.audio import decode
from genreflow.audio.tags import text

RATE = 22_050


@pytest.fixture
def mp3(tmp_path: Path) -> bytes:
    soundfile.write(tmp_path / "song.mp3", melody(1, RATE), RATE)
    return (tmp_path / "song.mp3").read_bytes()


def id3v1(artist: bytes, title: bytes) -> bytes:
    return b"TAG" + title.ljust(30, b"\0")[:30] + artist.ljust(30, b"\0")[:30] + bytes(64) + b"\x0c"


def id3v2(**frames: bytes) -> bytes:
    body = b"".join(
        name.encode() + struct.pack(">IH", len(value) + 1, 0) + b"\0" + value
        for name, value in frames.items()
    )
    return b"ID3\x03\0\0" + bytes([0, 0, len(body) >> 7, len(body) & 127]) + body


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_id3v1(mp3: bytes, encoding: str) -> None:
    found = decode(mp3 + id3v1("Björk".encode(encoding), "Jóga".encode(encoding)))
    assert (found.artist, found.title) == ("Björk", "Jóga")


def test_id3v2_in_latin_1(mp3: bytes) -> None:
    found = decode(id3v2(TPE1="Sigur Rós".encode("latin-1"), TIT2="Hoppípolla".encode("latin-1")) + mp3)
    assert (found.artist, found.title) == ("Sigur Rós", "Hoppípolla")


def test_an_mp3_without_a_xing_header_keeps_its_tags(mp3: bytes) -> None:
    joined = mp3 + mp3 + id3v1("Mötley Crüe".encode("latin-1"), b"Dr. Feelgood")
    found = decode(joined)
    assert (found.artist, found.title) == ("Mötley Crüe", "Dr. Feelgood")


def test_riff_info_in_windows_1252(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    soundfile.write(path, melody(1, RATE), RATE)
    values = {b"IART": "Beyoncé".encode("cp1252") + b"\0", b"INAM": "L’Été".encode("cp1252") + b"\0"}
    body = b"INFO" + b"".join(
        name + struct.pack("<I", len(value)) + value + bytes(len(value) % 2) for name, value in values.items()
    )
    content = bytearray(path.read_bytes() + b"LIST" + struct.pack("<I", len(body)) + body)
    content[4:8] = struct.pack("<I", len(content) - 8)
    found = decode(bytes(content))
    assert (found.artist, found.title) == ("Beyoncé", "L’Été")


def test_a_name_that_id3v1_cut_within_a_character_loses_only_that() -> None:
    assert text("Ásgeir og Ágætis byrjun í Ásbyrgi".encode()[:30]) in "Ásgeir og Ágætis byrjun í Ásbyrgi"
    assert text(b"Beyonc\xe9") == "Beyoncé"


@given(st.binary(max_size=60))
def test_any_bytes_decode_to_a_text(value: bytes) -> None:
    text(value).encode()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_utf_8_is_read_as_it_is(value: str) -> None:
    assert text(value.encode()) == value.strip()
