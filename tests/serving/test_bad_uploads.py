"""Whatever is sent: a status of 4xx, one sentence, nothing of the host, and the service is still there."""

import contextlib
import io
import json
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
import soundfile
from services import SAMPLE_RATE, Service
from sounds import tone, write, write_silent_film

BOUNDARY = "b0undary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def wav(samples: np.ndarray, rate: int = SAMPLE_RATE, **options: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", **options)
    return buffer.getvalue()


def encoded(kind: str, folder: Path) -> bytes:
    return write(folder / f"song.{kind}", tone(2.0)).read_bytes()


def patched(content: bytes, offset: int, fresh: bytes) -> bytes:
    return content[:offset] + fresh + content[offset + len(fresh) :]


def film(folder: Path) -> bytes:
    return write_silent_film(folder / "film.mp4").read_bytes()


def archive(_: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("song.wav", wav(tone(1.5, SAMPLE_RATE)))
    return buffer.getvalue()


def hours_of_silence(_: Path) -> bytes:
    """A bomb: two hours in a few kilobytes."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 2_000, 1, format="FLAC", subtype="PCM_16") as sound:
        for _ in range(122):
            sound.write(np.zeros(60 * 2_000, np.int16))
    return buffer.getvalue()


def header(rate: int = 8_000, channels: int = 1, data: int = 16_000, form: int = 1, bits: int = 16) -> bytes:
    align = channels * bits // 8
    chunk = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, form, channels, rate, rate * align & 0xFFFFFFFF, align, bits
    )
    return b"RIFF" + struct.pack("<I", 36 + data) + b"WAVE" + chunk + b"data" + struct.pack("<I", data)


SONG = wav(tone(2.0, SAMPLE_RATE))
FILES: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda _: b"",
    "one byte": lambda _: b"R",
    "text": lambda _: b"this is my favourite song\n" * 50,
    "html": lambda _: b"<!doctype html><title>404</title>",
    "json": lambda _: b'{"file": "song.mp3"}',
    "playlist of addresses": lambda _: b"#EXTM3U\nhttp://127.0.0.1:1/song.mp3\n",
    "playlist of files": lambda _: b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    "zip": archive,
    "gzip": lambda _: b"\x1f\x8b\x08" + bytes(200),
    "png": lambda _: b"\x89PNG\r\n\x1a\n" + bytes(500),
    "pickle": lambda _: b"\x80\x05\x95" + bytes(64),
    "elf": lambda _: b"\x7fELF" + bytes(500),
    "zeros": lambda _: bytes(100_000),
    "random": lambda _: np.random.default_rng(0).bytes(100_000),
    "film without sound": film,
    "no samples": lambda _: wav(np.zeros(0)),
    "a fifth of a second": lambda _: wav(tone(0.2, SAMPLE_RATE)),
    "nan": lambda _: wav(np.full(SAMPLE_RATE * 2, np.nan, np.float32), subtype="FLOAT"),
    "infinity": lambda _: wav(np.full(SAMPLE_RATE * 2, np.inf, np.float32), subtype="FLOAT"),
    "two hours": hours_of_silence,
    "header alone": lambda _: header(),
    "no channels": lambda _: header(channels=0) + bytes(16_000),
    "30000 channels": lambda _: header(channels=30_000, bits=8) + bytes(16_000),
    "rate 0": lambda _: header(rate=0) + bytes(16_000),
    "rate 1 Hz": lambda _: header(rate=1) + bytes(16_000),
    "rate 4 GHz": lambda _: header(rate=4_000_000_000) + bytes(16_000),
    "claims 2 GB": lambda _: header(data=2_000_000_000) + bytes(16_000),
    "unknown encoding": lambda _: header(form=0x7777) + bytes(16_000),
    "riff of nothing": lambda _: b"RIFF\x00\x00\x00\x00WAVE",
    "ogg of nothing": lambda _: b"OggS" + bytes(60),
    "flac of nothing": lambda _: b"fLaC" + bytes(60),
    "mp3 tag alone": lambda _: b"ID3\x04\x00\x00\x00\x00\x00\x10" + bytes(16),
    **{
        f"{kind} cut at {eighth} eighths": (
            lambda folder, kind=kind, eighth=eighth: (content := encoded(kind, folder))[
                : len(content) * eighth // 8
            ]
        )
        for kind in ("wav", "m4a")
        for eighth in range(1, 8)
    },
}
"""Each in the field `file`."""


def part(name: str | None, content: bytes, file_name: str | None = None) -> bytes:
    disposition = "form-data" + (f'; name="{name}"' if name is not None else "")
    if file_name is not None:
        disposition += f'; filename="{file_name}"'
    return f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
FORMS: dict[str, tuple[str, bytes, str]] = {
    "no body": ("classify", b"", FORM),
    "no content type": ("classify", part("file", SONG, "a.wav") + END, ""),
    "no form": ("classify", SONG, "audio/wav"),
    "json": ("classify", b'{"file": "http://127.0.0.1:1/a.wav"}', "application/json"),
    "broken json": ("classify", b"{", "application/json"),
    "pickle": ("classify", b"\x80\x04N.", "application/vnd.bentoml+pickle"),
    "urlencoded": ("classify", b"file=song.mp3", "application/x-www-form-urlencoded"),
    "no boundary": ("classify", part("file", SONG, "a.wav") + END, "multipart/form-data"),
    "another boundary": ("classify", part("file", SONG, "a.wav") + END, "multipart/form-data; boundary=x"),
    "no end": ("classify", part("file", SONG, "a.wav")[:-3], FORM),
    "no file": ("classify", END, FORM),
    "wrong field": ("classify", part("song", SONG, "a.wav") + END, FORM),
    "no field name": ("classify", part(None, SONG, "a.wav") + END, FORM),
    "twice": ("classify", 2 * part("file", SONG, "a.wav") + END, FORM),
    "more than the file": ("classify", part("file", SONG, "a.wav") + part("x", b"1") + END, FORM),
    "an address as file": ("classify", part("file", b"http://127.0.0.1:1/a.wav") + END, FORM),
    "nothing as file": ("classify", part("file", b"") + END, FORM),
    "a long field": ("classify", part("file", b"x" * 100_000) + END, FORM),
    "thousands of fields": ("classify", 3_000 * part("x", b"1") + END, FORM),
    "thousands of files": ("classify_batch", 1_500 * part("files", b"", "a") + END, FORM),
    "no files": ("classify_batch", END, FORM),
    "a file as hop": (
        "timeline",
        part("file", SONG, "a.wav") + part("hop_seconds", b"1", "hop.txt") + END,
        FORM,
    ),
    **{
        f"hop {hop}": (
            "timeline",
            part("file", SONG, "a.wav") + part("hop_seconds", hop.encode()) + END,
            FORM,
        )
        for hop in (
            "0",
            "-1",
            "nan",
            "NaN",
            "Infinity",
            "1e400",
            "1e300",
            "1e-9",
            "true",
            "[1]",
            "two",
            "[" * 900,
        )
    },
}
"""Address, body, content type."""
NAMES = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "C:\\songs\\a.wav",
    "a" * 500,
    "\u266b" * 300,
    "%00.wav",
    "a\x00b.wav",
]


def is_a_sentence(answer: requests.Response) -> str:
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"error"}
    sentence = str(body["error"])
    assert len(sentence) > 15, sentence
    for private in (
        "/tmp",
        "/home",
        "/usr",
        "/work",
        "site-packages",
        "Traceback",
        "0x",
        "Error(",
        "UploadFile",
    ):
        assert private not in sentence
    return sentence


def is_up(service: Service) -> bool:
    return service.post("classify", service.song.read_bytes()).status_code == 200


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_good_is_refused(service: Service, tmp_path: Path, name: str) -> None:
    content = FILES[name](tmp_path)
    sentence = is_a_sentence(service.post("classify", content, "mine.wav"))
    assert "mine.wav" in sentence
    is_a_sentence(service.post("timeline", content, "mine.wav"))


@pytest.mark.parametrize("name", FORMS)
def test_a_request_that_is_no_good_is_refused(service: Service, name: str) -> None:
    path, body, kind = FORMS[name]
    headers = {"Content-Type": kind} if kind else {}
    is_a_sentence(requests.post(f"{service.address}/{path}", data=body, headers=headers, timeout=60))
    assert is_up(service)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_may_have_any_name(service: Service, name: str) -> None:
    body = part("file", SONG, name.replace("\\", "\\\\")) + END
    answer = requests.post(
        f"{service.address}/classify", data=body, headers={"Content-Type": FORM}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    body = part("file", b"", name.replace("\\", "\\\\")) + END
    answer = requests.post(
        f"{service.address}/classify", data=body, headers={"Content-Type": FORM}, timeout=60
    )
    assert "is empty" in is_a_sentence(answer)


@pytest.mark.parametrize("path", ["classify", "timeline", "classify_batch"])
def test_a_file_may_have_no_name_at_all(service: Service, path: str) -> None:
    """As `curl -F 'file=<song.wav'` sends it: Starlette takes such a part for text, of a kilobyte at most."""
    field = "files" if path == "classify_batch" else "file"
    answers = [
        requests.post(
            f"{service.address}/{path}",
            data=part(field, SONG, name) + END,
            headers={"Content-Type": FORM},
            timeout=60,
        )
        for name in (None, "")
    ]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    assert answers[0].json() == answers[1].json()


def test_text_in_place_of_a_file_is_rejected_as_text(service: Service) -> None:
    for content, said in ((b"http://127.0.0.1:1/a.wav", "the upload is text, not audio"), (b"", "is empty")):
        body = part("file", content) + END
        headers = {"Content-Type": FORM}
        answer = requests.post(f"{service.address}/classify", data=body, headers=headers, timeout=60)
        assert said in is_a_sentence(answer)


def test_a_gigabyte_is_refused_before_it_is_sent(service: Service) -> None:
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 1000000000\r\n\r\n"
    status, body = raw(service, head.encode())
    assert status == 413
    assert "larger than 800 MB" in json.loads(body)["error"]
    assert is_up(service)


@pytest.mark.parametrize("length", ["-1", "x", "99999999999999999999"])
def test_an_invalid_length_is_rejected(service: Service, length: str) -> None:
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: {length}\r\n\r\n"
    status, _ = raw(service, head.encode())
    assert 400 <= status < 500
    assert is_up(service)


def test_huge_headers_are_refused_or_ignored(service: Service) -> None:
    head = b"GET /model HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n"
    status, _ = raw(service, head)
    assert status == 200 or 400 <= status < 500
    assert is_up(service)


def test_an_interrupted_upload_affects_no_other_request(service: Service) -> None:
    body = part("file", SONG, "a.wav")
    head = (
        f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    place = urlsplit(service.address)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        connection.sendall(head.encode() + body[: len(body) // 2])
    assert is_up(service)


@pytest.mark.parametrize(("method", "path"), [("GET", "classify"), ("POST", "nothing"), ("DELETE", "model")])
def test_another_address_or_method_gets_an_error_message(service: Service, method: str, path: str) -> None:
    is_a_sentence(requests.request(method, f"{service.address}/{path}", timeout=60))


def test_none_of_these_requests_was_an_error_of_the_service(service: Service) -> None:
    for content in (b"", b"text", bytes(100)):
        service.post("classify", content)
    assert "Traceback" not in service.log
    assert "(status=5" not in service.log


def raw(service: Service, request: bytes) -> tuple[int, bytes]:
    """Status and body of an answer to exactly these bytes."""
    place = urlsplit(service.address)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):  # refused while we were still sending: the answer is there
            connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.partition(b"\r\n\r\n")[2]:
            block = connection.recv(65_536)
            if not block:
                break
            answer += block
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body
