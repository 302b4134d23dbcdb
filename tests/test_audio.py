"""Decoding any file, refusing what is none, resampling, and planning windows."""

import io
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from sounds import tone, write, write_silent_film

from genreflow import audio
from genreflow.audio import SKIPPED_REST_SHARE, cut_windows, decode, plan_windows, resample
from genreflow.core.errors import AudioError

LOSSLESS = ("wav", "au", "flac", "aiff")
LOSSY = ("mp3", "ogg", "opus", "m4a", "mp4", "webm", "aac")


def refusal(source: Path | bytes, **options: float) -> AudioError:
    with pytest.raises(AudioError) as caught:
        decode(source, **options)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_lossless_file_comes_back_sample_for_sample(tmp_path: Path, kind: str) -> None:
    samples = tone()
    actual = decode(write(tmp_path / f"tone.{kind}", samples))
    assert (actual.sample_rate, actual.channels, len(actual.samples)) == (22_050, 1, len(samples))
    assert actual.samples.dtype == np.float32
    assert np.abs(actual.samples - samples).max() < 1 / 32_000


@pytest.mark.parametrize("kind", LOSSY)
def test_a_lossy_file_comes_back_as_the_same_tone(tmp_path: Path, kind: str) -> None:
    actual = decode(write(tmp_path / f"tone.{kind}", tone(rate=48_000, pitch=1000), 48_000))
    assert actual.sample_rate == 48_000
    assert actual.seconds == pytest.approx(2.0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(actual.samples))
    assert np.argmax(spectrum) / actual.seconds == pytest.approx(1000, abs=2)
    assert np.sqrt(np.mean(actual.samples**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("kind", ["wav", "mp3", "m4a", "webm"])
def test_what_a_file_is_shows_in_its_content_not_its_name(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"tone.{kind}", tone(rate=48_000), 48_000)
    for name in ("song.raw", "song.flac", "song"):
        assert decode(path.rename(path.with_name(name))).seconds == pytest.approx(2.0, abs=0.1)
        path = path.with_name(name)


@pytest.mark.parametrize("kind", ["flac", "mp3", "m4a", "webm"])
def test_bytes_and_open_files_decode_as_the_path_does(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"tone.{kind}", tone(rate=48_000), 48_000)
    expected = decode(path).samples
    np.testing.assert_array_equal(decode(path.read_bytes()).samples, expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(decode(file).samples, expected)
        assert not file.closed


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_sample_width_of_wav_is_read(tmp_path: Path, subtype: str) -> None:
    actual = decode(write(tmp_path / "tone.wav", tone(), subtype=subtype))
    assert np.abs(actual.samples - tone()).max() < (0.02 if subtype == "PCM_U8" else 1e-4)


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged_at_any_rate(tmp_path: Path, rate: int, channels: int) -> None:
    voices = np.stack([tone(0.5, rate, 300 + 50 * channel) for channel in range(channels)], axis=1)
    actual = decode(write(tmp_path / "many.wav", voices, rate, "FLOAT"))
    assert (actual.sample_rate, actual.channels) == (rate, channels)
    np.testing.assert_allclose(actual.samples, voices.mean(axis=1), atol=1e-6)


def test_a_wav_in_an_unknown_encoding_is_refused_with_an_error_message() -> None:
    chunk = struct.pack("<4sIHHIIHH", b"fmt ", 16, 0x7777, 1, 8_000, 16_000, 2, 16)
    body = b"WAVE" + chunk + b"data" + struct.pack("<I", 16_000) + bytes(16_000)
    assert "encoding is unknown" in str(refusal(b"RIFF" + struct.pack("<I", len(body)) + body))


def test_a_thousand_channels_are_decoded_in_blocks_of_the_same_memory(tmp_path: Path) -> None:
    path = tmp_path / "wide.wav"
    soundfile.write(path, np.zeros((30_000, 1_000), np.int16), 8_000)
    tracemalloc.start()
    actual = audio.decode(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert actual.channels == 1_000
    assert len(actual.samples) == 30_000
    assert peak < 20e6, "all channels at once would be 120 MB"


@pytest.mark.parametrize("kind", ["flac", "m4a"])
def test_decoding_that_takes_too_long_is_given_up_with_an_error_message(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"song.{kind}", tone(2.0))
    with pytest.raises(AudioError, match="takes too long to decode") as caught:
        audio.decode(path, timeout=0.0)
    assert caught.value.reason == "too-slow"


def test_a_file_longer_than_a_block_is_whole(tmp_path: Path) -> None:
    samples = tone(audio.BLOCK_SAMPLES * 2.5 / 22_050)
    assert len(decode(write(tmp_path / "long.flac", samples)).samples) == len(samples)


def test_artist_and_title_are_read_from_the_tags(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "tagged.mp3", "w", 22_050, 1) as file:
        file.artist, file.title = "Björk", "Jóga"
        file.write(tone())
    actual = decode(tmp_path / "tagged.mp3")
    assert (actual.artist, actual.title) == ("Björk", "Jóga")


def test_a_file_without_bytes_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    error = refusal(tmp_path / "empty.wav")
    assert error.reason == "empty"
    assert "empty.wav" in str(error)


def test_a_header_without_samples_is_empty(tmp_path: Path) -> None:
    assert refusal(write(tmp_path / "none.wav", np.zeros(0, np.float32))).reason == "empty"


def test_an_error_page_saved_as_wav_is_named_as_text() -> None:
    error = refusal(b"<!DOCTYPE html>\n<html><body>404</body></html>")
    assert error.reason == "not-audio"
    assert "<!DOCTYPE html>" in str(error)


@pytest.mark.parametrize(
    "content",
    [
        bytes(50_000),
        np.random.default_rng(0).bytes(50_000),
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        b"RIFF",
        b"ID3\x04",
    ],
    ids=["zeros", "noise", "png", "four bytes of wav", "four bytes of mp3"],
)
def test_what_is_not_audio_is_refused(content: bytes) -> None:
    assert refusal(content).reason == "not-audio"


def test_a_header_that_sends_the_reader_before_the_beginning_is_no_audio(tmp_path: Path) -> None:
    content = io.BytesIO()
    soundfile.write(content, tone(0.1, 8_000), 8_000, format="W64")
    damaged = content.getvalue()[:40] + content.getvalue()[41:]
    (tmp_path / "back.w64").write_bytes(damaged)
    assert refusal(damaged).reason == refusal(tmp_path / "back.w64").reason == "not-audio"


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    song = write(tmp_path / "song.m4a", tone())
    list_ = tmp_path / "list.wav"
    list_.write_bytes(b"#EXTM3U\n#EXTINF:2,\xff\n" + os.fsencode(song) + b"\n#EXT-X-ENDLIST\n")
    assert refusal(list_).reason == "not-audio"


def test_a_film_without_sound_is_refused(tmp_path: Path) -> None:
    assert refusal(write_silent_film(tmp_path / "film.mp4")).reason == "no-sound"


@pytest.mark.parametrize("kind", ["wav", "au", "aiff", "flac", "mp3", "webm", "aac"])
def test_half_a_file_is_truncated(tmp_path: Path, kind: str) -> None:
    whole = write(tmp_path / f"tone.{kind}", tone(20, rate=48_000), 48_000).read_bytes()
    assert refusal(whole[: len(whole) // 2]).reason == "truncated"


def test_half_an_m4a_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "tone.m4a", tone()).read_bytes()
    assert refusal(whole[: len(whole) // 2]).reason in ("truncated", "not-audio")


def test_a_wav_written_to_a_pipe_has_no_length_and_is_read(tmp_path: Path) -> None:
    whole = bytearray(write(tmp_path / "tone.wav", tone()).read_bytes())
    at = whole.index(b"data") + 4
    whole[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    assert len(decode(bytes(whole)).samples) == len(tone())


def test_a_header_that_claims_ten_times_the_samples_is_a_truncated_file(tmp_path: Path) -> None:
    whole = bytearray(write(tmp_path / "tone.wav", tone()).read_bytes())
    at = whole.index(b"data") + 4
    whole[at : at + 4] = struct.pack("<I", 10 * (len(whole) - at - 4))
    error = refusal(bytes(whole))
    assert error.reason == "truncated"
    assert "claims" in str(error)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    samples = tone()
    samples[1000] = bad
    assert refusal(write(tmp_path / "bad.wav", samples, subtype="FLOAT")).reason == "not-finite"


@pytest.mark.parametrize("kind", ["wav", "mp3", "m4a", "webm"])
def test_what_is_too_long_is_refused(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"long.{kind}", tone(3, rate=48_000), 48_000)
    assert refusal(path, max_seconds=1).reason == "too-long"
    assert decode(path, max_seconds=4).seconds == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("kind", ["flac", "m4a"])
def test_what_is_too_long_by_its_header_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A service puts long songs aside by it: decoding ten minutes of each first made short clips wait."""
    path = write(tmp_path / f"long.{kind}", tone(3, rate=48_000), 48_000)

    def decoded(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(audio.libsndfile, "read", decoded)
    monkeypatch.setattr(audio.ffmpeg, "_decode", decoded)
    assert refusal(path, max_seconds=1).reason == "too-long"


@pytest.mark.parametrize("rate", [1, 1_000, 2_000_000])
def test_a_rate_that_no_recorder_writes_is_refused(tmp_path: Path, rate: int) -> None:
    assert refusal(write(tmp_path / "odd.wav", tone(), rate)).reason == "sample-rate"


def test_a_missing_file_and_a_folder_are_unreadable(tmp_path: Path) -> None:
    assert refusal(tmp_path / "missing.wav").reason == "unreadable"
    assert refusal(tmp_path).reason == "unreadable"


@given(
    st.binary(min_size=1, max_size=300),
    st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"fLaC", b"OggS", b".snd"]),
)
def test_no_bytes_end_in_anything_but_audio_or_an_audio_error(content: bytes, head: bytes) -> None:
    try:
        actual = decode(head + content)
    except AudioError:
        return
    assert len(actual.samples) > 0
    assert np.isfinite(actual.samples).all()


@given(st.integers(1, 5_000), st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000, 192_000]))
def test_resampling_gives_the_rounded_length(samples: int, rate: int) -> None:
    assert len(resample(np.ones(samples, np.float32), rate, 16_000)) == round(samples * 16_000 / rate)


def test_resampling_keeps_a_tone_and_its_level() -> None:
    there = resample(tone(rate=44_100, pitch=1000), 44_100, 16_000)
    assert np.argmax(np.abs(np.fft.rfft(there))) / 2.0 == pytest.approx(1000, abs=1)
    assert np.sqrt(np.mean(there**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.01)


def test_equal_rates_return_the_array_unchanged() -> None:
    samples = tone()
    assert resample(samples, 22_050, 22_050) is samples


@given(st.integers(0, 20_000), st.integers(1, 3_000), st.integers(1, 3_000))
def test_windows_start_at_zero_every_hop_and_the_last_ends_with_the_clip_but_for_a_small_rest(
    n: int, window: int, hop: int
) -> None:
    starts = plan_windows(n, window, hop)
    assert starts[0] == 0
    if n <= window:
        assert len(starts) == 1
        return
    rest = (n - window) % hop
    if 0 < rest <= SKIPPED_REST_SHARE * window:
        assert starts[-1] == n - window - rest
    else:
        assert starts[-1] == n - window
    assert (np.diff(starts) >= 1).all()
    assert (np.diff(starts)[:-1] == hop).all()


@given(st.integers(1, 800), st.integers(1, 100), st.data())
def test_windows_cover_every_sample_but_a_small_rest_where_the_hop_is_no_longer_than_the_window(
    n: int, window: int, data: st.DataObject
) -> None:
    hop = data.draw(st.integers(1, window))
    windows, starts = cut_windows(np.arange(n, dtype=np.float32), window, hop, "silence")
    assert windows.shape == (len(starts), window)
    assert set(range(n - int(SKIPPED_REST_SHARE * window))) <= set(windows.astype(int).ravel())
    for cut, start in zip(windows, starts, strict=True):
        assert cut[0] == start


def test_a_gtzan_clip_of_a_little_over_thirty_seconds_is_one_window_of_thirty() -> None:
    assert plan_windows(round(30.65 * 16_000), 30 * 16_000, 30 * 16_000).tolist() == [0]
    assert len(plan_windows(round(30.65 * 16_000), 10 * 16_000, 10 * 16_000)) == 4
    assert len(plan_windows(round(30.02 * 16_000), 10 * 16_000, 10 * 16_000)) == 3


@given(st.integers(1, 99))
def test_a_short_clip_is_repeated_or_followed_by_silence(n: int) -> None:
    samples = np.arange(1, n + 1, dtype=np.float32)
    repeated, _ = cut_windows(samples, 100, 50, "repeat")
    padded, _ = cut_windows(samples, 100, 50, "silence")
    np.testing.assert_array_equal(repeated[0], samples[np.arange(100) % n])
    np.testing.assert_array_equal(padded[0], np.concatenate([samples, np.zeros(100 - n)]))
    assert repeated.dtype == padded.dtype == np.float32


def test_no_samples_make_no_window() -> None:
    with pytest.raises(AudioError):
        cut_windows(np.zeros(0, np.float32), 10, 10, "repeat")


@pytest.mark.parametrize(("window", "hop"), [(0, 1), (1, 0), (-1, 1)])
def test_a_plan_without_length_is_an_error(window: int, hop: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        plan_windows(10, window, hop)


def test_an_in_memory_file_with_a_raw_name_is_read_by_content(tmp_path: Path) -> None:
    file = io.BytesIO(write(tmp_path / "tone.m4a", tone()).read_bytes())
    file.name = "song.raw"
    assert decode(file).seconds == pytest.approx(2.0, abs=0.1)


def test_a_header_that_points_before_the_file_is_refused_without_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tone.caf"
    soundfile.write(path, tone(), 22_050, format="CAF", subtype="PCM_16")
    damaged = bytearray(path.read_bytes())
    damaged[58], damaged[68] = 233, 13  # the sizes of two chunks
    path.write_bytes(damaged)
    for source in (path, bytes(damaged)):
        assert refusal(source).reason == "not-audio"
    assert capfd.readouterr().err == ""
