"""Sounds and files of every format that tests of audio and corpora are made from."""

from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

AV_CODECS = {"m4a": "aac", "mp4": "aac", "aac": "aac", "webm": "libopus", "mkv": "pcm_s16le"}
"""Extensions that PyAV writes; soundfile writes the others."""


def tone(
    seconds: float = 2.0, rate: int = 22_050, pitch: float = 440.0, level: float = 0.3
) -> NDArray[np.float32]:
    """A sine (n,) with a little noise that depends on the pitch alone."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(round(pitch * 100)).normal(0, level / 30, len(time))
    return (level * np.sin(2 * np.pi * pitch * time) + noise).astype(np.float32)


def write(path: Path, samples: NDArray[np.float32], rate: int = 22_050, subtype: str | None = None) -> Path:
    """Write (n,) or (n, channels) in the format of the path's extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.removeprefix(".")
    if kind in AV_CODECS:
        _write_av(path, samples, rate, AV_CODECS[kind])
    elif kind == "opus":
        soundfile.write(path, samples, rate, format="OGG", subtype="OPUS")
    else:
        soundfile.write(path, samples, rate, subtype=subtype)
    return path


def write_silent_film(path: Path) -> Path:
    """A video without an audio stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def genre_folder(
    root: Path,
    clips: int = 6,
    genres: tuple[str, ...] = ("jazz", "rock"),
    seconds: float = 1.2,
    rate: int = 8_000,
) -> Path:
    """`root/<genre>/<genre>.NNNNN.wav`, every clip of a pitch of its own."""
    for g, genre in enumerate(genres):
        for clip in range(clips):
            path = root / genre / f"{genre}.{clip:05d}.wav"
            write(path, tone(seconds, rate, 200 + 150 * g + 10 * clip), rate)
    return root


def _write_av(path: Path, samples: NDArray[np.float32], rate: int, codec: str) -> None:
    planes = np.ascontiguousarray(np.atleast_2d(samples.T), dtype=np.float32)
    layout = "mono" if len(planes) == 1 else "stereo"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = layout
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.sample_rate = rate
        frames = av.AudioResampler(
            format=stream.format.name,
            layout=layout,
            rate=rate,
            frame_size=stream.codec_context.frame_size or 960,
        )
        for part in frames.resample(frame) + frames.resample(None):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
