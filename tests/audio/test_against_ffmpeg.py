"""Containers, codecs, cuts, gaps and channel layouts, against the source's samples or Debian's ffmpeg.

The product does not use the ffmpeg command. What is lossless equals the source; what is lossy equals what the
command decodes, to within the rounding of another decoder.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media import ffmpeg, melody, reference, without

from genreflow.audio import decode
from genreflow.audio.decode import GAPS, JOINED

EXAMPLES = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ERROR = 1e-4
"""Of another decoder of the same packets, relative to the level: -80 dB."""
EMPTY_LEVEL = 1e-9


class Format(NamedTuple):
    """How a container is made."""

    extension: str
    codec: str
    frame: int
    """Samples of a codec frame, at most."""
    rates: tuple[int, ...]
    lossless: bool = False
    most_channels: int = 6


COMMON = (16_000, 22_050, 44_100, 48_000)
LOSSLESS = [
    Format("wav", "pcm_s16le", 1, COMMON, True),
    Format("wav", "pcm_s24le", 1, COMMON, True),
    Format("w64", "pcm_s16le", 1, COMMON, True),
    Format("aiff", "pcm_s16be", 1, COMMON, True),
    Format("au", "pcm_s16be", 1, COMMON, True),
    Format("caf", "pcm_s16le", 1, COMMON, True),
    Format("flac", "flac", 4_608, COMMON, True),
    Format("ogg", "flac", 4_608, COMMON, True),
    Format("mka", "flac", 4_608, COMMON, True),
    Format("mov", "pcm_s16le", 1_024, COMMON, True),
    Format("m4a", "alac", 4_096, COMMON, True, most_channels=2),
]
LOSSY = [
    Format("mp3", "libmp3lame", 1_152, COMMON, most_channels=2),
    Format("ogg", "libvorbis", 2_048, COMMON),
    Format("opus", "libopus", 960, (48_000,), most_channels=2),
    Format("webm", "libopus", 960, (48_000,), most_channels=2),
    Format("mkv", "libvorbis", 2_048, COMMON),
    Format("mkv", "aac", 1_024, COMMON),
    Format("m4a", "aac", 1_024, COMMON),
    Format("mp4", "aac", 1_024, COMMON),
    Format("aac", "aac", 1_024, COMMON, most_channels=2),
    Format("wma", "wmav2", 2_048, (22_050, 44_100), most_channels=2),
    Format("flv", "libmp3lame", 1_152, (22_050, 44_100), most_channels=2),
    Format("avi", "libmp3lame", 1_152, COMMON, most_channels=2),
    Format("ts", "aac", 1_024, COMMON, most_channels=2),
]


def _name(one: Format) -> str:
    return f"{one.extension}-{one.codec}"


def _source(folder: Path, rate: int, channels: int, seconds: float) -> Path:
    path = folder / "source.wav"
    soundfile.write(path, melody(seconds, rate, channels, channels), rate, subtype="PCM_16")
    return path


@pytest.mark.parametrize("form", LOSSLESS, ids=_name)
@EXAMPLES
@given(data=st.data())
def test_lossless_formats_equal_the_source(form: Format, data: st.DataObject) -> None:
    rate = data.draw(st.sampled_from(form.rates))
    channels = data.draw(st.integers(1, form.most_channels))
    seconds = data.draw(st.floats(0.1, 4))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = _source(folder, rate, channels, seconds)
        path = folder / f"song.{form.extension}"
        ffmpeg("-i", source, "-c:a", form.codec, path)
        found = decode(path)
        expected = soundfile.read(source, dtype="float32", always_2d=True)[0]
    assert (found.sample_rate, found.channels, found.notes) == (rate, channels, ())
    length = len(expected)
    np.testing.assert_allclose(found.samples[:length], expected.mean(axis=1), atol=1e-6)
    # ffmpeg pads a W64 to eight bytes and counts them as samples
    padding = found.samples[length:]
    assert len(padding) < (8 if form.extension == "w64" else 1)
    assert not padding.any()


@pytest.mark.parametrize("form", LOSSY, ids=_name)
@EXAMPLES
@given(data=st.data())
def test_lossy_formats_equal_what_ffmpeg_decodes(form: Format, data: st.DataObject) -> None:
    """Also from a pipe and with packets missing; gaps are dropped and not filled."""
    rate = data.draw(st.sampled_from(form.rates))
    channels = data.draw(st.sampled_from([one for one in (1, 2, 6) if one <= form.most_channels]))
    seconds = data.draw(st.floats(0.5, 4))
    gap = data.draw(st.floats(0, 1)) if form.extension in ("webm", "mkv", "m4a", "mp4") else 0.0
    piped = form.extension in ("mp3", "webm", "ogg", "aac", "mkv") and data.draw(st.booleans())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = _source(folder, rate, channels, seconds)
        path = folder / f"song.{form.extension}"
        if piped:
            kind = {"mkv": "matroska", "aac": "adts"}.get(form.extension, form.extension)
            ffmpeg("-i", source, "-c:a", form.codec, "-f", kind, "pipe:1", to=path)
        else:
            ffmpeg("-i", source, "-c:a", form.codec, path)
        if gap:
            path = without(path, folder / f"gap.{form.extension}", 0.2, 0.2 + gap * seconds)
        found = decode(path)
        expected = reference(path, found.sample_rate, found.channels)
    assert (found.sample_rate, found.channels) == (rate, channels)
    assert abs(len(found.samples) - len(expected)) <= form.frame
    if not gap:
        assert found.seconds == pytest.approx(seconds, abs=4 * form.frame / rate)
    assert found.notes == (() if gap * seconds < 1 - 2 * form.frame / rate else found.notes)
    assert set(found.notes) <= {GAPS}
    length = min(len(found.samples), len(expected))
    difference = found.samples[:length] - expected[:length]
    assert np.sqrt(np.mean(difference**2)) <= ERROR * np.sqrt(np.mean(expected**2)) + EMPTY_LEVEL


@pytest.mark.parametrize("form", [one for one in LOSSY if one.extension in ("mp3", "ogg", "opus")], ids=_name)
@EXAMPLES
@given(data=st.data())
def test_joined_files_are_as_long_as_their_parts(form: Format, data: st.DataObject) -> None:
    parts = []
    with tempfile.TemporaryDirectory() as name:
        for number in range(data.draw(st.integers(2, 3))):
            folder = Path(name) / str(number)
            folder.mkdir()
            rate = data.draw(st.sampled_from(form.rates))
            source = _source(folder, rate, data.draw(st.integers(1, 2)), data.draw(st.floats(0.5, 2)))
            ffmpeg("-i", source, "-c:a", form.codec, folder / f"song.{form.extension}")
            parts.append((folder / f"song.{form.extension}").read_bytes())
    found = decode(b"".join(parts))
    alone = [decode(part, sample_rate=found.sample_rate) for part in parts]
    np.testing.assert_allclose(found.samples, np.concatenate([one.samples for one in alone]), atol=1e-5)
    assert found.sample_rate == decode(parts[0]).sample_rate
    assert JOINED in found.notes
