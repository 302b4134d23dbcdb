"""Hours and gigabytes where a clip was expected: refused in bounded time and memory, whatever they claim."""

import io
import json
import struct
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import soundfile
from memory import PEAK
from sounds import genre_folder

from genreflow.corpus.store import QUARANTINE

RATE = 8_000
HOUR = 3_600
MIB = 1 << 20
WORKERS = 2
SECONDS = 60
"""For the dozen together, on a busy machine; decoded to their ends they would take many minutes."""
MOST_SAMPLES = 1_800 * 48_000
"""Of a clip of `max_seconds` at the highest rate here."""
CLIP_MIB = (4 + 2) * MOST_SAMPLES / MIB
"""What a worker may take: the samples as float32, and what becomes of them as int16."""
SLACK = 1.2
"""Of the allocator."""
TAKEN = ("rock.00000.wav", "rock.00001.wav", "half an hour.wav")

TAKE_IN = (
    PEAK
    + """
import json, sys
from pathlib import Path
from genreflow.corpus.ingest import ingest, resolve
from genreflow.corpus.settings import CorpusSettings

def taken(source, out):
    settings = CorpusSettings(genres=("jazz", "rock"))
    ingest(source, resolve(source, settings.genres), settings, Path(out), workers=int(sys.argv[4]))
    return peak()

few, long, out, _ = sys.argv[1:]
print(json.dumps([taken(few, out + "/few"), taken(long, out + "/long")]))
"""
)


def sparse_wav(path: Path, size: int, rate: int = 44_100, bits: int = 16, channels: int = 1) -> None:
    """A wav of `size` bytes of silence that takes none of the disk; over 4 GB an RF64."""
    frame = channels * bits // 8
    shape = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * frame, frame, bits)
    if size < 1 << 32:
        head = struct.pack("<4sI4s", b"RIFF", min(size + 36, 0xFFFF_FFFF), b"WAVE") + shape
        head += struct.pack("<4sI", b"data", size)
    else:
        sizes = struct.pack("<4sIQQQI", b"ds64", 28, size + 72, size, size // frame, 0)
        head = struct.pack("<4sI4s", b"RF64", 0xFFFF_FFFF, b"WAVE") + sizes + shape
        head += struct.pack("<4sI", b"data", 0xFFFF_FFFF)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)


def silence(kind: str, seconds: int) -> bytes:
    content = io.BytesIO()
    with soundfile.SoundFile(content, "w", RATE, 1, format=kind) as file:
        for _ in range(seconds // 10):
            file.write(np.zeros(10 * RATE, np.int16))
    return content.getvalue()


def without_length(flac: bytes) -> bytes:
    """The same stream whose header says that its length is not known."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


def claiming(ogg: bytes, samples: int) -> bytes:
    """The same stream whose last page claims to end after so many samples, under a checksum that is right."""
    at = ogg.rindex(b"OggS")
    page = bytearray(ogg[at:])
    page[6:14] = struct.pack("<q", samples)
    page[22:26] = bytes(4)
    check = 0
    for byte in page:
        check ^= byte << 24
        for _ in range(8):
            check = (check << 1 ^ (0x04C11DB7 if check & 0x8000_0000 else 0)) & 0xFFFF_FFFF
    page[22:26] = struct.pack("<I", check)
    return ogg[:at] + bytes(page)


def ten_hours_of_aac(path: Path) -> None:
    """One packet of silence, again and again."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = RATE
        content = bytes([packet for _ in range(4) for packet in stream.encode(frame)][-1])
        for number in range(10 * HOUR * RATE // 1024):
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, Fraction(1, RATE)
            packet.pts = packet.dts = number * 1024
            packet.duration = 1024
            container.mux(packet)


def with_durations(m4a: bytes, milliseconds: int) -> bytes:
    """The same file whose headers claim another length, in every place that says one."""
    changed = bytearray(m4a)
    for box, offset, scale in ((b"mvhd", 20, 16), (b"mdhd", 20, 16), (b"tkhd", 24, None)):
        at = m4a.index(box)
        rate = struct.unpack_from(">I", m4a, at + scale)[0] if scale else 1_000
        struct.pack_into(">I", changed, at + offset, rate * milliseconds // 1_000)
    return bytes(changed)


def a_long_clip(path: Path) -> None:
    """Half an hour that is wanted: noise, then silence."""
    sparse_wav(path, 1_799 * 48_000 * 2, 48_000)
    with path.open("r+b") as file:
        file.seek(44)
        file.write(np.random.default_rng(0).normal(0, 9_000, 480_000).astype(np.int16).tobytes())


@pytest.fixture
def long_files(tmp_path: Path) -> Path:
    folder = genre_folder(tmp_path / "long", clips=2)
    rock = folder / "rock"
    sparse_wav(rock / "5 GB.wav", 5 << 30)
    sparse_wav(rock / "4 GB.wav", 0xFFFF_FFF0)
    sparse_wav(rock / "3 GB in two channels.wav", 3 << 30, channels=2)
    sparse_wav(rock / "4 GB of eight bits.wav", 0xFFFF_FFF0, RATE, 8)
    flac, ogg = silence("FLAC", 10 * HOUR), silence("OGG", 2_000)
    (rock / "ten hours.flac").write_bytes(flac)
    (rock / "ten hours of no length.flac").write_bytes(without_length(flac))
    (rock / "claims ten minutes.mp3").write_bytes(silence("MP3", 600) * 60)
    (rock / "half an hour and more.ogg").write_bytes(ogg)
    (rock / "claims a second.ogg").write_bytes(claiming(ogg, RATE))
    (rock / "claims a year.ogg").write_bytes(claiming(ogg, RATE * 365 * 24 * HOUR))
    ten_hours_of_aac(rock / "ten hours.m4a")
    m4a = (rock / "ten hours.m4a").read_bytes()
    (rock / "claims a second.m4a").write_bytes(with_durations(m4a, 1_000))
    a_long_clip(rock / "half an hour.wav")
    return folder


def test_hours_and_gigabytes_are_refused_in_bounded_time_and_memory(long_files: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-c", TAKE_IN, str(genre_folder(tmp_path / "few")), str(long_files)),
            *(str(tmp_path / "out"), str(WORKERS)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    few, many = json.loads(done.stdout)
    refused = pd.read_parquet(tmp_path / "out" / "long" / QUARANTINE)
    reasons = dict(zip(refused["source"].str.removeprefix("rock/"), refused["reason"], strict=True))
    every = {path.name for path in (long_files / "rock").iterdir()} - set(TAKEN)
    assert reasons == dict.fromkeys(every, "too-long")
    assert refused["detail"].str.contains("is too long: more than 1800 s at").all()
    assert many - few < WORKERS * CLIP_MIB * SLACK
    assert seconds < SECONDS
