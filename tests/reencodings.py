"""Re-encodings of a recording: what its near duplicates in a collection are made by."""

import io
from collections.abc import Callable

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

Clip = tuple[NDArray[np.float32], int]
"""Samples (n,) and their rate in hertz."""

OFFSET_SECONDS = 0.2


def mp3(clip: Clip, kbit: int = 64) -> Clip:
    """Through an mp3 of a constant bit rate and back."""
    samples, rate = clip
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=rate)
        stream.layout, stream.bit_rate = "mono", kbit * 1000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
        frame.sample_rate = rate
        frames = av.AudioResampler(stream.format.name, "mono", rate, stream.codec_context.frame_size)
        for part in frames.resample(frame) + frames.resample(None):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    file.seek(0)
    decoded, rate = soundfile.read(file, dtype="float32")
    return decoded, rate


def gain(clip: Clip, decibels: float) -> Clip:
    """Louder or quieter, clipped at full scale."""
    samples, rate = clip
    return np.clip(samples * np.float32(10 ** (decibels / 20)), -1, 1), rate


def resampled(clip: Clip, rate: int) -> Clip:
    return soxr.resample(clip[0], clip[1], rate), rate


def cut(clip: Clip, start: float, end: float | None = None) -> Clip:
    """From `start` to `end` in seconds."""
    samples, rate = clip
    return samples[round(start * rate) : None if end is None else round(end * rate)], rate


REENCODINGS: dict[str, Callable[[Clip], Clip]] = {
    "mp3": mp3,
    "-6 dB": lambda clip: gain(clip, -6),
    "+3 dB": lambda clip: gain(clip, 3),
    "0.2 s later": lambda clip: cut(clip, OFFSET_SECONDS),
    "16 kHz": lambda clip: resampled(clip, 16_000),
    "44.1 kHz": lambda clip: resampled(clip, 44_100),
    "-6 dB, 0.2 s later, mp3": lambda clip: mp3(gain(cut(clip, OFFSET_SECONDS), -6)),
    "+3 dB, 0.2 s later, 16 kHz, mp3": lambda clip: mp3(
        resampled(gain(cut(clip, OFFSET_SECONDS), 3), 16_000)
    ),
    "-6 dB, 0.2 s later, 44.1 kHz, mp3": lambda clip: mp3(
        resampled(gain(cut(clip, OFFSET_SECONDS), -6), 44_100)
    ),
    "the middle two thirds, mp3": lambda clip: mp3(
        cut(clip, len(clip[0]) / clip[1] / 6, len(clip[0]) / clip[1] * 5 / 6)
    ),
}
