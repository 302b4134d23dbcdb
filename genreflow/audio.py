"""Audio in: decode any file, resample, cut windows. Every audio constant is named and derived here."""

import errno
import io
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from genreflow.errors import AudioError

MIN_SAMPLE_RATE = 2_000
MAX_SAMPLE_RATE = 768_000

MAX_SECONDS = 2 * 3600.0
"""Longer files are refused: a clip or a song is meant, not a day of radio."""
MAX_SAMPLES = int(MAX_SECONDS) * 48_000
"""What bounds the memory of one decoded file: 1.4 GB of mono float32."""

UNHEARD_SHARE = 0.05
"""Of a window: a rest after the last whole window that is shorter gets no window of its own."""

BLOCK_SAMPLES = 1 << 18
"""Samples of all channels decoded at once: only the mono mean of a file is ever whole in memory."""

INTACT_SHARE = 0.99
"""A file that holds less than this share of what its own header claims is truncated."""
UNKNOWN_LENGTH = 0x7FFF_F000
"""Writers to a pipe cannot know the length and put this (sox) or more (ffmpeg: 0xFFFFFFFF): no claim."""

CONTAINERS = (
    "mov,mp4,m4a,matroska,webm,aac,mp3,ogg,flac,wav,w64,aiff,au,asf,avi,mpegts,mpeg,amr,caf,ac3,eac3,flv"
)
"""What PyAV may open. Playlists (hls, concat, dash) are not among them: they name other files and hosts."""
LENGTH_KEEPERS = ("mov", "matroska")
"""PyAV's containers whose header states the length; elsewhere FFmpeg guesses it from the bit rate."""


@dataclass(frozen=True)
class Audio:
    """Decoded audio: mono float32 `samples` of shape (n,), nominally in [-1, 1], at `sample_rate` Hz."""

    samples: NDArray[np.float32]
    sample_rate: int
    channels: int
    """Channels of the file; `samples` is their mean."""
    format: str = "unknown"
    """The container, lower case, by content: wav, au, flac, mp3, ogg, mov, matroska …"""
    artist: str | None = None
    """From the file's tags, as the title."""
    title: str | None = None

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True)
class Bounds:
    """How much may become of one file."""

    seconds: float
    """Of audio."""
    until: float | None
    """On the monotonic clock, when decoding is given up."""

    def frames(self, rate: int) -> int:
        return min(int(self.seconds * rate), MAX_SAMPLES)

    def check(self, frames: int, rate: int, name: str) -> None:
        """Refuse a file of so many frames at `rate` Hz, or one that has taken too long to get there."""
        most = self.frames(rate)
        if frames > most:
            raise AudioError(
                f"{name} is too long: more than {most / rate:.0f} s at {rate} Hz is not decoded; "
                "cut it first.",
                "too-long",
            )
        if self.until is not None and time.monotonic() > self.until:
            raise AudioError(
                f"{name} takes too long to decode: given up after {frames / rate:.0f} s of audio; "
                "convert it to wav, flac or mp3 first.",
                "too-slow",
            )


def decode(
    source: Path | str | bytes | BinaryIO,
    name: str | None = None,
    max_seconds: float = MAX_SECONDS,
    patience: float | None = None,
) -> Audio:
    """Decode wav, au, flac, mp3, ogg, opus (libsndfile), m4a, webm, mp4 (PyAV) to mono.

    What a file is, is read from its content; its name only serves to speak of it.

    Args:
        source: a path, a whole file's bytes, or an open seekable binary file (left open).
        name: what errors call it.
        max_seconds: longer audio is refused.
        patience: seconds that decoding itself may take; without limit where None.

    Returns:
        The mean over channels at the file's own rate; at least one sample, all finite.

    Raises:
        AudioError: there is no usable audio in it; `reason` is one of `unreadable`, `empty`, `not-audio`,
            `no-sound`, `truncated`, `not-finite`, `too-long`, `too-slow`, `sample-rate`.
    """
    bounds = Bounds(max_seconds, None if patience is None else time.monotonic() + patience)
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), name or "the audio", bounds)
    if not isinstance(source, str | Path):
        return _decode(source, name or str(getattr(source, "name", "the audio")), bounds)
    name = name or str(source)
    try:
        # unbuffered: libsndfile takes the descriptor, PyAV the object, and both must see the same position
        with Path(source).open("rb", buffering=0) as file:
            return _decode(file, name, bounds)
    except OSError as error:
        raise AudioError(f"{name} cannot be read: {error.strerror or error}.", "unreadable") from error


def resample(samples: NDArray[np.float32], from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """Resample (n,) to (round(n * to_rate / from_rate),), soxr's HQ; the same array where rates are equal."""
    if from_rate == to_rate:
        return samples
    wanted = round(len(samples) * to_rate / from_rate)
    resampled: NDArray[np.float32] = soxr.resample(samples, from_rate, to_rate, quality="HQ")[:wanted]
    if len(resampled) < wanted:
        resampled = np.pad(resampled, (0, wanted - len(resampled)))
    return resampled


def plan_windows(samples: int, window: int, hop: int) -> NDArray[np.int64]:
    """Starts of windows over `samples` samples, every `hop`, the last aligned to the end.

    [0] where there are fewer samples than one window. A rest of less than `UNHEARD_SHARE` of a window is left
    unheard: GTZAN's "30 s" are 30.01 s or more, and would cost an encoder of 30 s windows every clip twice.
    """
    if window < 1 or hop < 1:
        raise ValueError(
            f"A window of {window} samples every {hop} samples is no plan: both must be positive."
        )
    last = max(0, samples - window)
    starts = np.arange(0, last + 1, hop, dtype=np.int64)
    return np.append(starts, last) if last - starts[-1] > UNHEARD_SHARE * window else starts


def cut_windows(
    samples: NDArray[np.float32], window: int, hop: int, extend: Literal["repeat", "silence"]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Windows of shape (windows, window) and their starts in samples.

    Raises:
        AudioError: there is not one sample.
    """
    if len(samples) == 0:
        raise AudioError("There is no sample to cut a window from.", "empty")
    starts = plan_windows(len(samples), window, hop)
    if len(samples) < window:
        if extend == "repeat":
            samples = np.resize(samples, window)
        else:
            samples = np.pad(samples, (0, window - len(samples)))
    windows = np.lib.stride_tricks.sliding_window_view(samples, window)[starts]
    return windows.astype(np.float32, copy=False), starts


def _decode(file: BinaryIO | io.FileIO, name: str, bounds: Bounds) -> Audio:
    file.seek(0)
    head = file.read(64)
    if not head:
        raise AudioError(f"{name} is empty: it holds no bytes.", "empty")
    if text := _text(head):
        raise AudioError(f"{name} is text, not audio: it begins with {text!r}.", "not-audio")
    _check_header(file, name)
    try:
        audio = _decode_soundfile(file, name, bounds)
    except soundfile.LibsndfileError as error:
        audio = _decode_av(file, name, bounds, error.error_string)
    except TypeError:  # an open file whose name ends in .raw: soundfile judges by it
        audio = _decode_av(file, name, bounds, "Format not recognised")
    if len(audio.samples) == 0:
        raise AudioError(f"{name} holds no samples.", "empty")
    # the ends are not finite where any sample is not, and no array is made to see it
    if not np.isfinite([audio.samples.min(), audio.samples.max()]).all():
        raise AudioError(f"{name} holds samples that are not finite numbers (NaN or infinity).", "not-finite")
    return audio


def _text(head: bytes) -> str | None:
    """The beginning of a text file (an error page saved as .wav), None for binary content."""
    printable = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head.removeprefix(b"\xef\xbb\xbf"))
    return head.decode("utf-8", "replace").strip()[:40] if printable else None


def _check_header(file: BinaryIO | io.FileIO, name: str) -> None:
    """Refuse wav, au and aiff files whose data ends early: libsndfile reads them without a word."""
    claim = _claimed_data(file)
    if claim is None:
        return
    offset, size = claim
    held = max(0, file.seek(0, io.SEEK_END) - offset)
    if 0 < size < UNKNOWN_LENGTH and held < size * INTACT_SHARE:
        raise AudioError(
            f"{name} is truncated: its header claims {size} bytes of audio, it holds {held}.", "truncated"
        )


def _claimed_data(file: BinaryIO | io.FileIO) -> tuple[int, int] | None:
    """Offset and claimed size in bytes of a wav, au or aiff file's audio data; None without a claim."""
    file.seek(0)
    head = file.read(12)
    if head[:4] == b".snd" and len(head) == 12:
        offset, size = struct.unpack(">II", head[4:12])
        return offset, size
    if head[:4] == b"FORM" and len(head) == 12:
        return 8, struct.unpack(">I", head[4:8])[0]
    if head[:4] not in (b"RIFF", b"RIFX") or head[8:12] != b"WAVE":
        return None
    order = "<" if head[:4] == b"RIFF" else ">"
    position = 12
    while True:
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8:
            return None
        size = struct.unpack(order + "I", chunk[4:])[0]
        if chunk[:4] == b"data":
            return position + 8, size
        position += 8 + size + size % 2


def _decode_soundfile(file: BinaryIO | io.FileIO, name: str, bounds: Bounds) -> Audio:
    file.seek(0)
    # a descriptor has no name, so that libsndfile cannot judge by the extension
    handle = file.fileno() if isinstance(file, io.FileIO) else file
    with soundfile.SoundFile(handle, closefd=False) as sound:
        rate, claimed = int(sound.samplerate), int(sound.frames)
        _check_rate(rate, name)
        if claimed < UNKNOWN_LENGTH:
            bounds.check(claimed, rate, name)
        blocks: list[NDArray[np.float32]] = []
        read = 0
        block_frames = max(1, BLOCK_SAMPLES // int(sound.channels))
        while True:
            try:
                block = sound.read(block_frames, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise AudioError(
                    f"{name} is truncated or damaged: {error.error_string}", "truncated"
                ) from error
            blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32))
            read += len(block)
            bounds.check(read, rate, name)
            if len(block) < block_frames:
                break
        if claimed < UNKNOWN_LENGTH and read < claimed * INTACT_SHARE:
            raise AudioError(_short(name, claimed / rate, read / rate), "truncated")
        tags = sound.copy_metadata()
        return Audio(
            _joined(blocks),
            rate,
            int(sound.channels),
            sound.format.lower(),
            tags.get("artist", "").strip() or None,
            tags.get("title", "").strip() or None,
        )


class _Seekable:
    """A file for PyAV.

    FFmpeg follows damaged headers to places before the beginning, and takes a negative number for "there is
    none". An exception would be printed with its traceback, and hide what FFmpeg says then.
    """

    def __init__(self, file: BinaryIO | io.FileIO) -> None:
        self.read, self.tell, self._file = file.read, file.tell, file

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            return -1


def _decode_av(file: BinaryIO | io.FileIO, name: str, bounds: Bounds, refusal: str) -> Audio:
    # imported here: only the formats that libsndfile does not read pay for it
    import av

    file.seek(0)
    try:
        with av.open(_Seekable(file), "r", options={"format_whitelist": CONTAINERS}) as container:
            if not container.streams.audio:
                raise AudioError(f"{name} has no sound: there is no audio stream in it.", "no-sound")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise AudioError(
                    f"{name} is not audio that can be decoded: its encoding is unknown.", "not-audio"
                )
            rate, channels = int(stream.codec_context.sample_rate), int(stream.codec_context.channels)
            _check_rate(rate, name)
            kind = container.format.name.split(",")[0]
            claimed = 0.0
            if kind not in LENGTH_KEEPERS:
                pass
            elif stream.duration is not None and stream.time_base is not None:
                claimed = float(stream.duration * stream.time_base)
            elif container.duration is not None and len(container.streams) == 1:
                claimed = container.duration / av.time_base
            bounds.check(int(claimed * rate), rate, name)
            blocks: list[NDArray[np.float32]] = []
            read = 0
            try:
                for block in _av_blocks(av, container, stream, rate):
                    blocks.append(block)
                    read += len(block)
                    bounds.check(read, rate, name)
            except av.error.InvalidDataError as error:
                if not claimed:
                    raise AudioError(
                        f"{name} is truncated or damaged after {read / rate:.1f} s.", "truncated"
                    ) from error
            if read < claimed * rate * INTACT_SHARE:
                raise AudioError(_short(name, claimed, read / rate), "truncated")
            tags = {key.lower(): value.strip() for key, value in container.metadata.items()}
            artist, title = tags.get("artist") or None, tags.get("title") or None
            return Audio(_joined(blocks), rate, channels, kind, artist, title)
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(
            f"{name} is not audio that can be decoded: {refusal.rstrip('.')}; "
            f"{getattr(error, 'strerror', error)}.",
            "not-audio",
        ) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a header that sends the reader before the file's beginning
            raise
        raise AudioError(
            f"{name} is not audio that can be decoded: {refusal.rstrip('.')}.", "not-audio"
        ) from error


def _av_blocks(av: Any, container: Any, stream: Any, rate: int) -> Iterator[NDArray[np.float32]]:
    """Mono blocks of a PyAV stream, each the mean over channels."""
    resampler = av.AudioResampler(format="fltp", rate=rate)
    for frame in container.decode(stream):
        for part in resampler.resample(frame):
            yield part.to_ndarray().mean(axis=0, dtype=np.float32)


def _joined(blocks: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """All samples in one array. Blocks are given up one by one: a long file is in memory once, not twice."""
    if len(blocks) == 1:
        return np.ascontiguousarray(blocks[0])
    samples = np.empty(sum(map(len, blocks)), np.float32)
    end = len(samples)
    while blocks:
        block = blocks.pop()
        samples[end - len(block) : end] = block
        end -= len(block)
    return samples


def _check_rate(rate: int, name: str) -> None:
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"{name} has a sample rate of {rate} Hz; "
            f"between {MIN_SAMPLE_RATE} and {MAX_SAMPLE_RATE} is understood.",
            "sample-rate",
        )


def _short(name: str, claimed: float, held: float) -> str:
    return f"{name} is truncated: its header claims {claimed:.1f} s of audio, it holds {held:.1f} s."
