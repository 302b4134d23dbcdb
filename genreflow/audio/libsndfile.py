"""Decoding by libsndfile, front to back."""

import io
from typing import Any

import soundfile

from genreflow.audio.limits import BLOCK_SAMPLES, Bounds, check_declared, check_rate
from genreflow.audio.ranges import OpenFile
from genreflow.audio.sections import Sections
from genreflow.core.errors import AudioError

UNKNOWN_FRAMES = 1 << 62
"""libsndfile puts the largest integer where a header gives no length."""
REPLACED = "\ufffd"
"""What soundfile puts for bytes of a tag that are no UTF-8."""


class _FrontToBack(soundfile.SoundFile):
    """A file that is never seeked.

    soundfile seeks after every block of a seekable file. In a FLAC whose frames are not numbered from 0, or
    whose length is not known, that leads elsewhere or fails.
    """

    def seekable(self) -> bool:
        return False


class NotRecognisedError(Exception):
    """libsndfile does not read this format; the message is libsndfile's."""


def read(
    file: OpenFile | io.RawIOBase, name: str, bounds: Bounds, sections: Sections, declared: bool = True
) -> tuple[str, dict[str, str]]:
    """Decode a file into `sections`: its format, lower case, and its tags.

    Args:
        declared: whether the length that libsndfile gives is enforced; False leaves that to the caller.

    Raises:
        NotRecognisedError: libsndfile cannot open it.
        AudioError: it is damaged, shorter than declared, too long or of an unusable sample rate.
    """
    file.seek(0)
    # a descriptor has no name, so that libsndfile cannot judge by the extension
    handle: Any = file.fileno() if isinstance(file, io.FileIO) else file
    try:
        sound = _FrontToBack(handle, "r", closefd=False)
    except soundfile.LibsndfileError as error:
        raise NotRecognisedError(error.error_string) from error
    except TypeError as error:  # an open file whose name ends in .raw: soundfile judges by it
        raise NotRecognisedError("Format not recognised") from error
    with sound:
        rate, claimed = int(sound.samplerate), int(sound.frames)
        known = declared and claimed < UNKNOWN_FRAMES
        check_rate(rate, name)
        if known:
            bounds.check(claimed, rate, name)
        frames = max(1, BLOCK_SAMPLES // int(sound.channels))
        read_frames = 0
        while True:
            wanted = min(frames, claimed - read_frames)
            try:
                block = sound.read(wanted, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise AudioError(
                    f"{name} is truncated or damaged: {error.error_string}", "truncated"
                ) from error
            read_frames += len(block)
            if len(block):
                sections.add(block if len(block) == wanted else block.copy(), rate)
            if len(block) < wanted or read_frames == claimed:
                break
        if known:
            check_declared(claimed / rate, read_frames / rate, "s", name)
        return sound.format.lower(), sound.copy_metadata()
