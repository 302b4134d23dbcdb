"""Decoding of any audio file to mono float32.

Every file is read front to back, and the length that counts is what was decoded. What a container's own
header or index declares is compared with it; time stamps and estimates are ignored. Where libsndfile and
FFmpeg (PyAV) both read a format, one of them does it, for a reason:

| format | library | reason |
|---|---|---|
| wav, RF64, W64, aiff, au, caf, voc … | libsndfile | much faster; its bounds are what fuzzing holds |
| FLAC | libsndfile, without seeking | faster; reads what is not numbered from 0 and has no length |
| mp3 with a Xing header that fits the file | libsndfile (mpg123) | faster; the header states the length |
| any other mp3, mp2 | FFmpeg | libsndfile takes an estimate from the first frame for the length |
| Ogg (Vorbis, Opus, FLAC) | FFmpeg, link by link | libsndfile reads one link, stops or fills in at gaps |
| mp4, m4a, mov, Matroska, WebM, ADTS, ASF … | FFmpeg | libsndfile does not read them |
"""

import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genreflow.audio import ffmpeg, flac, isobmff, libsndfile, matroska, mpeg, ogg, pcm
from genreflow.audio.limits import INTACT_SHARE, MAX_SECONDS, Bounds, check_declared
from genreflow.audio.ranges import FileRange, OpenFile, read_at
from genreflow.audio.sections import Sections
from genreflow.audio.tags import tags
from genreflow.core.errors import AudioError

NOTED_SECONDS = 1.0
"""Shorter gaps are not worth a note."""

OUT_OF_PHASE = "The channels cancel each other out in their mean (out of phase): the loudest one was taken."
GAPS = "The time stamps leave out more than a second (a late start or gaps): what was recorded was joined."
CUT = (
    "The file is shorter than its header claims and ends with a whole frame: it was cut without re-encoding."
)
JOINED = "The file holds several recordings, one behind the other: all were decoded and joined."
CONVERTED = "Parts of another sample rate or number of channels were converted to those of the first."

OTHER_FORMATS = {
    b"wvpk": "WavPack",
    b"TTA1": "True Audio (TTA)",
    b"TTA2": "True Audio (TTA)",
    b"\x7f\xfe\x80\x01": "DTS",
    b"\xfe\x7f\x01\x80": "DTS",
    b"\x1f\xff\xe8\x00": "DTS",
    b"\xff\x1f\x00\xe8": "DTS",
    b"dX %": "DTS",
    b"DTSHDHDR": "DTS-HD",
    b"MAC ": "Monkey's Audio (APE)",
    b"MPCK": "Musepack",
    b"MP+": "Musepack",
    b"tBaK": "TAK",
    b"OFR ": "OptimFROG",
    b"DSD ": "DSD (DSF)",
    b"FRM8": "DSD (DSDIFF)",
}
"""Formats that are audio and are not decoded, by their first bytes."""


@dataclass(frozen=True)
class Audio:
    """Decoded audio: mono float32 `samples` of shape (n,), nominally in [-1, 1], at `sample_rate` Hz."""

    samples: NDArray[np.float32]
    sample_rate: int
    channels: int
    """Channels of the file; `samples` is their mean, or the loudest of them where they cancel out."""
    format: str = "unknown"
    """The container, lower case, by content: wav, au, flac, mp3, ogg, mov, matroska …"""
    artist: str | None = None
    """From the file's tags, as the title."""
    title: str | None = None
    notes: tuple[str, ...] = ()
    """What a listener of the file might not expect, a sentence each: what was left out, joined or chosen."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


class _Read(NamedTuple):
    """A reader's result for a file, besides its samples."""

    format: str
    tags: Mapping[str, str]
    notes: tuple[str, ...] = ()


def decode(
    source: Path | str | bytes | BinaryIO,
    name: str | None = None,
    max_seconds: float = MAX_SECONDS,
    timeout: float | None = None,
    sample_rate: int | None = None,
) -> Audio:
    """Decode wav, au, flac, mp3 (libsndfile), ogg, opus, m4a, webm, mp4 (PyAV) and others to mono.

    What a file is, is read from its content; its name is used in messages only. docs/data.md has a table of
    what is decoded of each format.

    Args:
        source: a path, a whole file's bytes, or an open seekable binary file (left open).
        name: what errors call it.
        max_seconds: longer audio is rejected.
        timeout: seconds that decoding itself may take; without limit where None.
        sample_rate: of the result, in Hz: a long file is resampled block by block, and never in memory at its
            own rate. The file's own where None.

    Returns:
        The mean over channels; at least one sample, all finite.

    Raises:
        AudioError: there is no usable audio in it; `reason` is one of `unreadable`, `empty`, `not-audio`,
            `no-sound`, `truncated`, `not-finite`, `too-long`, `too-slow`, `sample-rate`.
    """
    bounds = Bounds(max_seconds, None if timeout is None else time.monotonic() + timeout)
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), name or "the audio", bounds, sample_rate)
    if not isinstance(source, str | Path):
        return _decode(source, name or str(getattr(source, "name", "the audio")), bounds, sample_rate)
    name = name or str(source)
    try:
        # unbuffered: libsndfile takes the descriptor, PyAV the object, and both must see the same position
        with Path(source).open("rb", buffering=0) as file:
            return _decode(file, name, bounds, sample_rate)
    except OSError as error:
        raise AudioError(f"{name} cannot be read: {error.strerror or error}.", "unreadable") from error


def _decode(file: OpenFile, name: str, bounds: Bounds, sample_rate: int | None) -> Audio:
    head = read_at(file, 0, 64)
    _check_head(head, name)
    sections = Sections(name, bounds, sample_rate)
    read = _read(file, head, name, bounds, sections)
    notes = list(read.notes)
    cancelled = sections.cancelled()
    if cancelled:
        # whether channels cancel out shows at the end; keeping each of them would multiply the memory
        sections = Sections(name, bounds, sample_rate, cancelled)
        _read(file, head, name, bounds, sections)
        notes.append(OUT_OF_PHASE)
    if not any(section.frames for section in sections.all):
        raise AudioError(f"{name} holds no samples.", "empty")
    first = sections.all[0]
    rate, channels = first.rate, first.channels
    if any((section.rate, section.channels) != (rate, channels) for section in sections.all):
        notes.append(CONVERTED)
    samples = sections.joined()
    # the ends are not finite where any sample is not, and no array is made to see it
    if not np.isfinite([samples.min(), samples.max()]).all():
        raise AudioError(f"{name} holds samples that are not finite numbers (NaN or infinity).", "not-finite")
    values = read.tags
    if any(libsndfile.REPLACED in value for value in values.values()):
        values = ffmpeg.metadata(file) or values
    labels = tags(values)
    return Audio(
        samples, sample_rate or rate, channels, read.format, labels.artist, labels.title, tuple(notes)
    )


def _check_head(head: bytes, name: str) -> None:
    """Reject what shows by its first bytes that it is not decoded."""
    if not head:
        raise AudioError(f"{name} is empty: it holds no bytes.", "empty")
    if text := _text(head):
        raise AudioError(f"{name} is text, not audio: it begins with {text!r}.", "not-audio")
    other = next((kind for magic, kind in OTHER_FORMATS.items() if head.startswith(magic)), None)
    if other is not None:
        raise AudioError(
            f"{name} is {other}, which is not decoded: convert it to flac first (ffmpeg -i FILE FILE.flac).",
            "not-audio",
        )


def _text(head: bytes) -> str | None:
    """The beginning of a text file (an error page saved as .wav), None for binary content."""
    printable = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head.removeprefix(b"\xef\xbb\xbf"))
    return head.decode("utf-8", "replace").strip()[:40] if printable else None


def _read(file: OpenFile, head: bytes, name: str, bounds: Bounds, sections: Sections) -> _Read:
    """Decode a file into `sections` with the reader of its format."""
    if head[:4] == ogg.PAGE:
        return _read_ogg(file, name, bounds, sections)
    if head[:4] == matroska.MAGIC:
        matroska.check(file, name)
        return _with_notes(ffmpeg.read(file, name, sections, whole=True))
    if head[4:8] in isobmff.FIRST_BOXES:
        isobmff.check(file, name)
        return _with_notes(ffmpeg.read(file, name, sections, whole=True))
    after_tags = mpeg.skip_tags(file)
    if read_at(file, after_tags, 8) == flac.MARKER:
        return _read_flac(file, after_tags, name, bounds, sections)
    if (after_tags or head[0] == 0xFF) and (start := mpeg.first_frame(file, after_tags)) is not None:
        return _read_mpeg(file, start, name, bounds, sections)
    try:
        kind, values = libsndfile.read(pcm.checked(file, name), name, bounds, sections)
        return _Read(kind, values)
    except libsndfile.NotRecognisedError as error:
        # a recording that begins within a frame; other containers hold consecutive frames, too
        if (start := mpeg.first_frame(file, 0)) is not None and ffmpeg.probe(file) == "mp3":
            return _read_mpeg(file, start, name, bounds, sections)
        return _with_notes(ffmpeg.read(file, name, sections, str(error)))


def _with_notes(decoded: ffmpeg.Decoded, *notes: str) -> _Read:
    gaps = (GAPS,) if decoded.gap_seconds > NOTED_SECONDS else ()
    return _Read(decoded.format, decoded.tags, (*notes, *gaps))


def _read_ogg(file: OpenFile, name: str, bounds: Bounds, sections: Sections) -> _Read:
    links = ogg.links(file)
    read = [
        ffmpeg.read(part, spoken, sections, whole=True)
        for part, spoken in _parts(file, links, name, sections)
    ]
    gaps = sum(one.gap_seconds for one in read)
    return _with_notes(read[0]._replace(gap_seconds=gaps), *[JOINED][: len(links) - 1])


def _read_mpeg(file: OpenFile, start: int, name: str, bounds: Bounds, sections: Sections) -> _Read:
    if mpeg.stated_whole(file, start):
        try:
            kind, values = libsndfile.read(file, name, bounds, sections)
            return _Read(kind, values)
        except libsndfile.NotRecognisedError:
            pass
    recordings = mpeg.recordings(file, start, lambda samples, rate: bounds.check(samples, rate, name))
    for recording in recordings:
        check_declared(recording.declared, recording.frames, "frames", name)
    ranges = [(recording.start, recording.end) for recording in recordings]
    for part, spoken in _parts(file, ranges, name, sections):
        ffmpeg.read(part, spoken, sections, whole=True)
    return _Read("mp3", ffmpeg.metadata(file), tuple([JOINED][: len(ranges) - 1]))


def _read_flac(file: OpenFile, start: int, name: str, bounds: Bounds, sections: Sections) -> _Read:
    streams = flac.streams(file, start)
    read = _Read("flac", {})
    notes: list[str] = [JOINED][: len(streams) - 1]
    ranges = [(stream.start, stream.end) for stream in streams]
    for stream in streams:
        # a service puts long songs aside by this, before it decodes ten minutes of each
        if stream.rate:
            bounds.check(stream.samples, stream.rate, name)
    for stream, (part, spoken) in zip(streams, _parts(file, ranges, name, sections), strict=True):
        before = sum(section.frames for section in sections.all)
        whole = file if len(streams) == 1 else part
        try:
            _, values = libsndfile.read(whole, spoken, bounds, sections, declared=False)
        except libsndfile.NotRecognisedError as error:
            values = ffmpeg.read(part, spoken, sections, str(error), whole=True).tags
        held = sum(section.frames for section in sections.all) - before
        if held < stream.samples * INTACT_SHARE:
            if not held or not flac.ends_with_a_whole_frame(file, stream):
                check_declared(stream.samples, held, "samples", spoken)
            notes.append(CUT)
        read = _Read("flac", read.tags or values)
    return read._replace(notes=tuple(dict.fromkeys(notes)))


def _parts(
    file: OpenFile, ranges: list[tuple[int, int]], name: str, sections: Sections
) -> Iterator[tuple[FileRange, str]]:
    """Each recording of a file, and what errors call it."""
    for number, (start, end) in enumerate(ranges, start=1):
        sections.begin()
        yield (
            FileRange(file, start, end),
            name if len(ranges) == 1 else f"{name}, part {number} of {len(ranges)},",
        )
