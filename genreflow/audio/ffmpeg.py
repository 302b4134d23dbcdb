"""Decoding by FFmpeg's libraries (PyAV), front to back."""

import errno
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genreflow.audio.limits import BLOCK_SAMPLES, INTACT_SHARE, check_rate
from genreflow.audio.ranges import FileRange, OpenFile
from genreflow.audio.sections import Sections
from genreflow.core.errors import AudioError

CONTAINERS = (
    "mov,mp4,m4a,matroska,webm,aac,mp3,ogg,flac,wav,w64,aiff,au,asf,avi,mpegts,mpeg,amr,caf,ac3,eac3,flv"
)
"""What may be opened. Playlists (hls, concat, dash) are not among them: they name other files and hosts."""
FROM_ZERO = ("mov", "matroska")
"""Formats whose time stamps begin at 0, so that a late start shows; broadcasts begin anywhere."""
TIMED = (*FROM_ZERO, "ogg")
"""Formats that state time stamps in which a gap shows; elsewhere FFmpeg guesses them, or they wrap around."""
JITTER_SECONDS = 0.005
"""Matroska rounds time stamps to milliseconds: what is less is no gap."""
NOT_RECOGNISED = "Format not recognised"


class Decoded(NamedTuple):
    """What a file was."""

    format: str
    """The container, lower case: mov, matroska, ogg, mp3 …"""
    tags: dict[str, str]
    """With surrogate escapes for bytes that are no UTF-8."""
    gap_seconds: float
    """What the time stamps leave out before and between what was recorded."""


def read(
    file: OpenFile | FileRange,
    name: str,
    sections: Sections,
    refusal: str = NOT_RECOGNISED,
    whole: bool = False,
) -> Decoded:
    """Decode the first audio stream of a file into `sections`. Gaps in its time stamps are not filled.

    Args:
        refusal: another library's error message on the file, for the error's sentence.
        whole: whether the end of the file is known to be there: then a last packet that cannot be decoded
            is no sign of truncation.

    Raises:
        AudioError: there is no audio in it, or it cannot be decoded.
    """
    import av

    opened = file if isinstance(file, FileRange) else FileRange(file)
    opened.seek(0)
    try:
        with _open(opened) as container:
            if not container.streams.audio:
                raise AudioError(f"{name} has no sound: there is no audio stream in it.", "no-sound")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise AudioError(
                    f"{name} is not audio that can be decoded: its encoding is unknown.", "not-audio"
                )
            check_rate(int(stream.codec_context.sample_rate), name)
            kind = container.format.name.split(",")[0]
            if kind == "mov" and stream.duration and stream.time_base:
                # the sum of the track's own packets; other containers count pauses, which are not decoded
                declared = float(stream.duration * stream.time_base)
                sections.check_declared(declared, int(stream.codec_context.sample_rate))
            gaps = _decode(av, container, stream, name, sections, kind in FROM_ZERO, whole)
            return Decoded(kind, {**stream.metadata, **container.metadata}, gaps if kind in TIMED else 0.0)
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


def metadata(file: OpenFile) -> dict[str, str]:
    """The tags of a file, bytes that are no UTF-8 as surrogate escapes; none where it cannot be read."""
    import av

    try:
        with _open(FileRange(file)) as container:
            return dict(container.metadata)
    except (av.FFmpegError, OSError, ValueError):
        return {}


def probe(file: OpenFile) -> str | None:
    """The format that FFmpeg recognises in a file; None where it recognises none."""
    import av

    try:
        with _open(FileRange(file)) as container:
            return str(container.format.name.split(",")[0])
    except (av.FFmpegError, OSError, ValueError):
        return None


def _open(file: FileRange) -> Any:
    # imported here: only the formats that libsndfile does not read pay for it
    import av

    return av.open(file, "r", options={"format_whitelist": CONTAINERS}, metadata_errors="surrogateescape")


def _decode(
    av: Any, container: Any, stream: Any, name: str, sections: Sections, from_zero: bool, whole: bool
) -> float:
    """Seconds of gaps. A packet that cannot be decoded is left out; many of them are a damaged file."""
    planes: list[NDArray[np.float32]] = []
    held = 0
    rate, channels = 0, 0
    seconds, gaps = 0.0, 0.0
    expected = 0.0 if from_zero else None
    good, bad, last_is_bad = 0, 0, False

    def flush() -> None:
        nonlocal held
        if planes:
            sections.add(np.concatenate(planes, axis=1).T, rate)
        planes.clear()
        held = 0

    converter = None
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                bad, last_is_bad = bad + 1, True
                continue
            if packet.size:
                good, last_is_bad = good + 1, False
            for frame in frames:
                if frame.samples == 0:
                    continue
                if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                    flush()
                    rate, channels = frame.sample_rate, frame.layout.nb_channels
                    check_rate(rate, name)
                    converter = None
                time = frame.time
                length = frame.samples / rate
                if time is not None:
                    if expected is not None and time - expected > JITTER_SECONDS:
                        gaps += time - expected
                    expected = time + length
                seconds += length
                if frame.format.name == "fltp":
                    planes.append(frame.to_ndarray())
                else:
                    converter = converter or av.AudioResampler("fltp")
                    frame.pts = None  # the converter would report gaps
                    planes += [part.to_ndarray() for part in converter.resample(frame)]
                held += frame.samples * channels
                if held >= BLOCK_SAMPLES // 2:
                    flush()
    except av.error.InvalidDataError:
        last_is_bad = True
    flush()
    if not whole and (last_is_bad or bad > (good + bad) * (1 - INTACT_SHARE)):
        raise AudioError(f"{name} is truncated or damaged after {seconds:.1f} s.", "truncated")
    if whole and bad > (good + bad) * (1 - INTACT_SHARE):
        raise AudioError(f"{name} is damaged: {bad} of {good + bad} packets cannot be decoded.", "truncated")
    return gaps
