"""Audio files made by the commands that people make theirs with: ffmpeg, lame, flac, sox."""

import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from tests.conftest import need


def run(*words: str | Path, to: Path | None = None, given: Path | None = None) -> None:
    """Run a command; `to` gets what it writes to a pipe, which it cannot seek in."""
    need(shutil.which(str(words[0])) is not None, str(words[0]))
    content = given.read_bytes() if given else None
    done = subprocess.run([str(word) for word in words], input=content, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    if to is not None:
        to.write_bytes(done.stdout)


def ffmpeg(*words: str | Path, to: Path | None = None) -> None:
    """`ffmpeg -v error -y …`."""
    run("ffmpeg", "-v", "error", "-y", *words, to=to)


def reference(path: Path, rate: int, channels: int) -> NDArray[np.float32]:
    """What Debian's ffmpeg decodes of a file, (n,), the mean of its channels; gaps are not filled."""
    need(shutil.which("ffmpeg") is not None, "ffmpeg")
    words = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a:0", "-f", "f32le"]
    done = subprocess.run(
        [*words, "-ac", str(channels), "-ar", str(rate), "-"], capture_output=True, check=True
    )
    return np.frombuffer(done.stdout, np.float32).reshape(-1, channels).mean(axis=1, dtype=np.float32)


def without(source: Path, to: Path, start: float, end: float, delay: float = 0.0) -> Path:
    """The packets of a file without those of some seconds, all of them later by `delay`."""
    with av.open(str(source)) as old, av.open(str(to), "w") as new:
        stream = old.streams.audio[0]
        copy = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.pts is None or packet.dts is None:
                continue
            if start <= float(packet.pts * packet.time_base) < end:
                continue
            later = round(delay / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + later, packet.dts + later, copy
            new.mux(packet)
    return to


def melody(seconds: float, rate: int, seed: int = 0, channels: int = 1) -> NDArray[np.float32]:
    """Notes with overtones and noise, no two seconds alike: (n,), or (n, channels) of a seed each."""
    if channels > 1:
        return np.stack([melody(seconds, rate, seed * 10 + one) for one in range(channels)], axis=1)
    rng = np.random.default_rng(seed)
    length = round(seconds * rate)
    time = np.arange(length) / rate
    pitch = np.repeat(220 * 2 ** rng.uniform(0, 2, round(seconds * 4) + 1), rate // 4 + 1)[:length]
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = sum(np.sin(k * phase) / k for k in range(1, 5)) * (0.6 + 0.3 * np.sin(2 * np.pi * 3 * time))
    return (0.2 * sound + rng.normal(0, 0.01, length)).astype(np.float32)
