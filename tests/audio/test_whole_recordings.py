"""Files as people have them are decoded whole, or rejected with the reason."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from media import ffmpeg, melody, reference, run, without
from numpy.typing import NDArray

from genreflow.audio import Audio, decode
from genreflow.audio import ffmpeg as reader
from genreflow.audio.decode import CONVERTED, CUT, GAPS, JOINED
from genreflow.core.errors import AudioError

RATE = 44_100
SECONDS = 20.0
"""Longer than a block."""
Samples = NDArray[np.float32]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def wav(folder: Path) -> Path:
    """Twenty seconds of 16 bits."""
    path = folder / "song.wav"
    soundfile.write(path, melody(SECONDS, RATE), RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def samples(wav: Path) -> Samples:
    return soundfile.read(wav, dtype="float32")[0]


def rejected(path: Path) -> AudioError:
    with pytest.raises(AudioError) as caught:
        decode(path)
    return caught.value


def like(found: Audio, expected: Samples, error: float = 1e-5) -> None:
    """As long, and nowhere further apart; `error` is relative to the expected level."""
    assert len(found.samples) == len(expected)
    difference = np.sqrt(np.mean((found.samples - expected) ** 2))
    assert difference <= error * np.sqrt(np.mean(expected**2))


@pytest.mark.parametrize("quality", [["-V2"], ["--abr", "96"], ["-b", "128"]], ids=["VBR", "ABR", "CBR"])
@pytest.mark.parametrize("header", ["none", "Xing"])
def test_an_mp3_is_whole_with_and_without_a_xing_header(
    wav: Path, tmp_path: Path, quality: list[str], header: str
) -> None:
    path = tmp_path / "song.mp3"
    if header == "none":
        run("lame", "--quiet", "-t", *quality, wav, "-", to=path)
    else:
        run("lame", "--quiet", *quality, wav, path)
    found = decode(path)
    assert found.seconds == pytest.approx(SECONDS, abs=3 * 1_152 / RATE)
    like(found, reference(path, RATE, 1))


def test_an_mp3_from_a_pipe_of_ffmpeg_is_whole(wav: Path, tmp_path: Path) -> None:
    ffmpeg("-i", wav, "-q:a", "2", "-f", "mp3", "pipe:1", to=tmp_path / "song.mp3")
    like(decode(tmp_path / "song.mp3"), reference(tmp_path / "song.mp3", RATE, 1))


def test_an_mp3_that_begins_within_a_frame_is_decoded_from_the_next_one_on(wav: Path, tmp_path: Path) -> None:
    path = tmp_path / "radio.mp3"
    run("lame", "--quiet", "-t", "-b", "128", wav, "-", to=path)
    path.write_bytes(path.read_bytes()[10_100:])
    assert decode(path).seconds == pytest.approx(SECONDS - 10_100 * 8 / 128_000, abs=0.1)


def test_half_an_mp3_whose_header_says_how_long_it_is_is_truncated(
    wav: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "song.mp3"
    run("lame", "--quiet", "-V2", wav, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert rejected(path).reason == "truncated"
    assert capfd.readouterr().err == "", "mpg123 warns on stderr"


@pytest.mark.parametrize("cut", [("-ss", "5"), ("-ss", "5", "-t", "10"), ("-t", "10")], ids=" ".join)
def test_a_flac_cut_without_reencoding_is_what_lies_between_the_cuts(
    wav: Path, samples: Samples, tmp_path: Path, cut: tuple[str, ...]
) -> None:
    ffmpeg("-i", wav, tmp_path / "a.flac")
    ffmpeg(*cut, "-i", tmp_path / "a.flac", "-c", "copy", tmp_path / "b.flac")
    found = decode(tmp_path / "b.flac")
    begin, length = (5 if "-ss" in cut else 0), (10 if "-t" in cut else SECONDS - 5)
    assert found.seconds == pytest.approx(length, abs=0.3)
    first = found.samples[:2_000]
    near = range(max(0, round((begin - 0.3) * RATE)), round((begin + 0.3) * RATE))
    offset = next(at for at in near if np.array_equal(samples[at : at + 2_000], first))
    np.testing.assert_array_equal(found.samples, samples[offset : offset + len(found.samples)])
    assert found.notes == (CUT,)


def test_a_flac_of_unknown_length_is_whole(wav: Path, samples: Samples, tmp_path: Path) -> None:
    ffmpeg("-i", wav, "-f", "flac", "pipe:1", to=tmp_path / "ffmpeg.flac")
    run("flac", "-s", "-c", "--ignore-chunk-sizes", "-", to=tmp_path / "flac.flac", given=wav)
    for name in ("ffmpeg.flac", "flac.flac"):
        found = decode(tmp_path / name)
        np.testing.assert_array_equal(found.samples, samples)
        assert found.notes == ()


def test_pieces_of_a_flac_are_together_the_whole(wav: Path, samples: Samples, tmp_path: Path) -> None:
    ffmpeg("-i", wav, tmp_path / "a.flac")
    ffmpeg(
        "-i",
        tmp_path / "a.flac",
        *["-f", "segment", "-segment_time", "7", "-c", "copy"],
        tmp_path / "%d.flac",
    )
    pieces = [decode(tmp_path / f"{number}.flac").samples for number in range(3)]
    np.testing.assert_array_equal(np.concatenate(pieces), samples)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_flac_that_ends_within_a_frame_is_truncated(wav: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.flac"
    ffmpeg("-i", wav, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: round(len(whole) * share) + 5])
    assert rejected(path).reason == "truncated"


CHAINED = [
    ("ogg", ["-c:a", "libvorbis"]),
    ("opus", ["-c:a", "libopus"]),
    ("ogg", ["-c:a", "flac"]),
    ("mp3", []),
    ("flac", []),
]


@pytest.mark.parametrize(("kind", "codec"), CHAINED, ids=["Vorbis", "Opus", "Ogg FLAC", "mp3", "FLAC"])
@pytest.mark.parametrize("other", [(RATE, 1), (32_000, 1), (RATE, 2), (16_000, 2)], ids=str)
def test_files_joined_bytewise_are_decoded_one_after_the_other(
    tmp_path: Path, kind: str, codec: list[str], other: tuple[int, int]
) -> None:
    """Parts of another rate or number of channels are converted to those of the first."""
    parts = []
    for number, (rate, channels) in enumerate([(RATE, 1), other, (RATE, 1)]):
        source, part = tmp_path / f"{number}.wav", tmp_path / f"{number}.{kind}"
        soundfile.write(source, melody(3, rate, number, channels), rate)
        ffmpeg("-i", source, *codec, part)
        parts.append(part)
    joined = tmp_path / f"joined.{kind}"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    found = decode(joined)
    alone = [decode(parts[0])]
    alone += [decode(part, sample_rate=alone[0].sample_rate) for part in parts[1:]]
    np.testing.assert_allclose(found.samples, np.concatenate([one.samples for one in alone]), atol=1e-5)
    assert (found.sample_rate, found.channels) == (alone[0].sample_rate, alone[0].channels)
    converted = other[1] == 2 or (kind != "opus" and other[0] != RATE)
    assert found.notes == ((JOINED, CONVERTED) if converted else (JOINED,))
    assert (alone[0].notes, alone[0].format) == ((), found.format)


def test_joined_adts_of_two_rates_is_converted_and_has_no_gaps(tmp_path: Path) -> None:
    parts = []
    for rate in (22_050, 44_100):
        soundfile.write(tmp_path / "a.wav", melody(5, rate), rate)
        ffmpeg("-i", tmp_path / "a.wav", tmp_path / f"{rate}.aac")
        parts.append((tmp_path / f"{rate}.aac").read_bytes())
    found = decode(b"".join(parts))
    assert found.seconds == pytest.approx(10, abs=0.2)
    assert found.notes == (CONVERTED,)


def test_mp3s_without_headers_are_joined_too(wav: Path, tmp_path: Path) -> None:
    run("lame", "--quiet", "-t", "-V2", wav, "-", to=tmp_path / "a.mp3")
    one = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "b.mp3").write_bytes(one * 3)
    assert decode(tmp_path / "b.mp3").seconds == pytest.approx(3 * decode(one).seconds, abs=0.1)


def test_a_joined_file_with_a_part_that_cannot_be_decoded_is_rejected_by_the_parts_number(
    wav: Path, tmp_path: Path
) -> None:
    ffmpeg("-i", wav, "-c:a", "libvorbis", tmp_path / "a.ogg")
    first = (tmp_path / "a.ogg").read_bytes()
    broken = bytearray(first)
    place = broken.index(b"\x01vorbis")
    broken[place : place + 7] = b"\x01sibrov"
    (tmp_path / "b.ogg").write_bytes(first + broken)
    assert "part 2 of 2" in str(rejected(tmp_path / "b.ogg"))


@pytest.mark.parametrize("kind", ["webm", "mkv", "mka", "mp4", "m4a", "mov", "ogg"])
@pytest.mark.parametrize("delay", [0.0, 5.0])
@pytest.mark.parametrize("gap", [0.0, 0.3, 4.0])
def test_late_starts_and_gaps_are_dropped_and_noted_when_they_exceed_a_second(
    wav: Path, tmp_path: Path, kind: str, delay: float, gap: float
) -> None:
    codec = {"webm": "libopus", "ogg": "libvorbis"}.get(kind, "aac")
    ffmpeg("-i", wav, "-c:a", codec, tmp_path / f"whole.{kind}")
    whole = decode(tmp_path / f"whole.{kind}")
    found = decode(without(tmp_path / f"whole.{kind}", tmp_path / f"b.{kind}", 8, 8 + gap, delay))
    assert found.seconds == pytest.approx(whole.seconds - gap, abs=3 * 1_024 / RATE + 0.01)
    noted = gap > 1 or (delay > 1 and kind != "ogg")  # streams in Ogg begin anywhere
    assert found.notes == ((GAPS,) if noted else ())


@pytest.mark.parametrize("kind", ["webm", "mkv", "mp4"])
def test_an_offset_by_ffmpeg_is_a_late_start(wav: Path, tmp_path: Path, kind: str) -> None:
    codec = "libopus" if kind == "webm" else "aac"
    ffmpeg("-i", wav, "-c:a", codec, tmp_path / f"a.{kind}")
    ffmpeg("-itsoffset", "5", "-i", tmp_path / f"a.{kind}", "-c", "copy", tmp_path / f"b.{kind}")
    found = decode(tmp_path / f"b.{kind}")
    assert found.seconds == pytest.approx(SECONDS, abs=0.1)
    assert found.notes == (GAPS,)


@pytest.mark.parametrize("options", [[], ["-movflags", "+faststart"], ["-movflags", "+dash+global_sidx"]])
@pytest.mark.parametrize("kind", ["mp4", "m4a", "mov"])
def test_an_mp4_without_its_second_half_is_truncated(
    wav: Path, tmp_path: Path, options: list[str], kind: str
) -> None:
    path = tmp_path / f"a.{kind}"
    ffmpeg("-i", wav, "-c:a", "aac", *options, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert rejected(path).reason == "truncated"


def test_an_m4a_without_its_index_is_incomplete(wav: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    ffmpeg("-i", wav, "-c:a", "aac", path)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"moov") - 4])
    error = rejected(path)
    assert error.reason == "truncated"
    assert "is incomplete: its index (moov) is missing" in str(error)


@pytest.mark.parametrize("kind", ["webm", "mkv"])
def test_half_a_matroska_is_truncated_also_of_a_film(wav: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    codecs = ["-c:a", "libopus" if kind == "webm" else "aac", "-c:v", "libvpx" if kind == "webm" else "mpeg4"]
    ffmpeg("-i", wav, *["-f", "lavfi", "-i", "testsrc=d=20:s=64x64:r=5"], *codecs, path)
    assert decode(path).seconds == pytest.approx(SECONDS, abs=0.1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert rejected(path).reason == "truncated"


def test_a_live_recording_in_webm_declares_no_length(wav: Path, tmp_path: Path) -> None:
    ffmpeg("-i", wav, "-c:a", "libopus", "-f", "webm", "-live", "1", "pipe:1", to=tmp_path / "live.webm")
    assert decode(tmp_path / "live.webm").seconds == pytest.approx(SECONDS, abs=0.1)


def with_sizes(wav: Path, to: Path, riff: int, data: int) -> Path:
    content = bytearray(wav.read_bytes())
    at = content.index(b"data") + 4
    content[4:8], content[at : at + 4] = struct.pack("<I", riff), struct.pack("<I", data)
    to.write_bytes(content)
    return to


@pytest.mark.parametrize("riff", [0, 36, 0xFFFF_FFFF])
def test_a_wav_whose_data_chunk_claims_no_bytes_is_whole(
    wav: Path, samples: Samples, tmp_path: Path, riff: int
) -> None:
    found = decode(with_sizes(wav, tmp_path / "b.wav", riff, 0))
    np.testing.assert_array_equal(found.samples, samples)


def test_a_wav_without_samples_but_with_other_chunks_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.zeros(0, np.float32), RATE)
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 14) + b"INFOICMT\x02\0\0\0ab")
    assert rejected(path).reason == "empty"


@pytest.mark.parametrize("kind", ["wav", "w64", "aiff", "au", "caf"])
def test_uncompressed_audio_through_ffmpegs_pipe_is_whole(
    wav: Path, samples: Samples, tmp_path: Path, kind: str
) -> None:
    ffmpeg("-i", wav, "-f", kind, "pipe:1", to=tmp_path / f"song.{kind}")
    np.testing.assert_array_equal(decode(tmp_path / f"song.{kind}").samples, samples)


@pytest.mark.parametrize("kind", ["wav", "aiff", "aifc", "au"])  # sox's W64 and CAF hold their header twice
def test_uncompressed_audio_through_soxs_pipe_is_whole(
    wav: Path, samples: Samples, tmp_path: Path, kind: str
) -> None:
    run("sox", wav, "-t", kind, "-", to=tmp_path / f"song.{kind}")
    np.testing.assert_array_equal(decode(tmp_path / f"song.{kind}").samples, samples)


def test_an_au_without_a_length_is_whole(wav: Path, samples: Samples, tmp_path: Path) -> None:
    path = tmp_path / "song.au"
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[8:12] = bytes(4)
    np.testing.assert_array_equal(decode(bytes(content)).samples, samples)


def test_an_au_of_an_encoding_that_ffmpeg_does_not_implement_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "song.au"
    soundfile.write(tmp_path / "song.mp3", melody(1.0, RATE), RATE)
    # 13 is the music kit's DSP commands; the frames of an mp3 behind it make the reader probe the file
    header = struct.pack(">4s5I", b".snd", 24, 0xFFFFFFFF, 13, 8_000, 1)
    path.write_bytes(header + (tmp_path / "song.mp3").read_bytes())
    assert rejected(path).reason == "not-audio"


def test_rf64_through_a_pipe_is_whole(wav: Path, samples: Samples, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    ffmpeg("-i", wav, "-rf64", "always", "-f", "wav", "pipe:1", to=path)
    np.testing.assert_array_equal(decode(path).samples, samples)
    content = bytearray(path.read_bytes())
    place = content.index(b"ds64") + 8
    content[place : place + 24] = b"\xff" * 24
    np.testing.assert_array_equal(decode(bytes(content)).samples, samples)


@pytest.mark.parametrize("kind", ["rf64", "w64"])
def test_half_of_a_file_with_64_bit_sizes_is_truncated(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, melody(2, RATE), RATE, format=kind.upper())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert rejected(path).reason == "truncated"


@pytest.mark.parametrize(
    ("kind", "magic"),
    [("WavPack", b"wvpk"), ("True Audio", b"TTA1"), ("DTS", b"\x7f\xfe\x80\x01"), ("Monkey's", b"MAC ")],
)
def test_formats_that_are_not_decoded_are_named_with_what_to_do(
    tmp_path: Path, kind: str, magic: bytes
) -> None:
    (tmp_path / "song").write_bytes(magic + bytes(500))
    error = rejected(tmp_path / "song")
    assert kind in str(error)
    assert "convert it to flac" in str(error)


def test_text_is_text_whatever_it_begins_with(tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_text("MAC address of the recorder: unknown, and so is the song.")
    assert "is text, not audio" in str(rejected(tmp_path / "song.wav"))


@pytest.mark.parametrize(("kind", "codec"), [("wv", "wavpack"), ("tta", "tta"), ("dts", "dca")])
def test_what_ffmpeg_writes_of_them_is_recognised(wav: Path, tmp_path: Path, kind: str, codec: str) -> None:
    ffmpeg("-i", wav, "-c:a", codec, "-strict", "-2", tmp_path / f"song.{kind}")
    assert "convert it to flac" in str(rejected(tmp_path / f"song.{kind}"))


def test_a_header_without_audio_is_of_no_format(tmp_path: Path) -> None:
    """PyAV's error of a file that ends early is no OSError; found by fuzzing."""
    path = tmp_path / "header.w64"
    soundfile.write(path, np.zeros(8000), 8000, format="W64", subtype="PCM_16")
    path.write_bytes(path.read_bytes().partition(b"data")[0])
    with path.open("rb") as file:
        assert reader.probe(file) is None
        assert reader.metadata(file) == {}
