"""Stereo whose channels cancel each other out gives its loudest channel; other stereo gives the mean."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from media import ffmpeg, melody, run
from numpy.typing import NDArray
from sounds import write

from genreflow.audio import decode
from genreflow.audio.decode import OUT_OF_PHASE
from genreflow.audio.limits import Bounds
from genreflow.audio.sections import CANCELLED_SHARE, Sections

RATE = 22_050
Samples = NDArray[np.float32]


def decoded(path: Path, samples: Samples) -> tuple[Samples, tuple[str, ...]]:
    found = decode(write(path, samples, RATE, "FLOAT"))
    return found.samples, found.notes


@pytest.mark.parametrize("seconds", [0.5, 15.0])
def test_soxs_out_of_phase_remix_is_the_original(tmp_path: Path, seconds: float) -> None:
    source = tmp_path / "in.wav"
    soundfile.write(source, melody(seconds, RATE), RATE)
    run("sox", source, tmp_path / "out.wav", "remix", "1", "1i")
    found = decode(tmp_path / "out.wav")
    np.testing.assert_array_equal(found.samples, decode(source).samples)
    assert (found.channels, found.notes) == (2, (OUT_OF_PHASE,))


@pytest.mark.parametrize("codec", ["mp3", "ogg", "m4a", "opus", "flac"])
def test_compressed_audio_out_of_phase_is_not_silent(tmp_path: Path, codec: str) -> None:
    samples = melody(3, 48_000)
    source = tmp_path / "in.wav"
    soundfile.write(source, np.stack([0.9 * samples, -samples], axis=1), 48_000)
    ffmpeg("-i", source, tmp_path / f"song.{codec}")
    found = decode(tmp_path / f"song.{codec}")
    assert found.notes == (OUT_OF_PHASE,)
    assert np.std(found.samples) == pytest.approx(np.std(samples), rel=0.1)


def test_the_louder_channel_is_taken_whatever_its_offset(tmp_path: Path) -> None:
    samples = melody(1, RATE)
    louder = (samples * np.float32(0.8)).astype(np.float32)
    found, notes = decoded(tmp_path / "a.wav", np.stack([0.7 * samples + 0.5, -louder], axis=1))
    np.testing.assert_array_equal(found, -louder)
    assert notes == (OUT_OF_PHASE,)


def test_an_equal_offset_of_both_channels_does_not_hide_cancellation(tmp_path: Path) -> None:
    samples = melody(1, RATE)
    found, notes = decoded(tmp_path / "a.wav", np.stack([samples + 0.3, -samples + 0.3], axis=1))
    assert notes == (OUT_OF_PHASE,)
    assert np.std(found) == pytest.approx(np.std(samples), rel=1e-3)


def test_whether_channels_cancel_is_decided_over_the_whole_file(tmp_path: Path) -> None:
    """Half a minute in phase, and a shorter stretch out of phase, in blocks of their own."""
    samples = melody(45, RATE)
    second = samples.copy()
    second[-12 * RATE :] *= -1
    found, notes = decoded(tmp_path / "a.wav", np.stack([samples, second], axis=1))
    assert notes == ()
    np.testing.assert_allclose(found, (samples + second) / 2, atol=1e-6)


def test_each_part_of_a_joined_file_has_its_own_channels(tmp_path: Path) -> None:
    samples = melody(2, RATE)
    soundfile.write(tmp_path / "in.wav", np.stack([samples, samples], axis=1), RATE)
    run("sox", tmp_path / "in.wav", tmp_path / "out.wav", "remix", "1", "1i")
    for name in ("in", "out"):
        ffmpeg("-i", tmp_path / f"{name}.wav", tmp_path / f"{name}.flac")
    both = (tmp_path / "in.flac").read_bytes() + (tmp_path / "out.flac").read_bytes()
    found = decode(both)
    np.testing.assert_allclose(found.samples, np.concatenate([samples, samples]), atol=1e-4)
    assert OUT_OF_PHASE in found.notes


@given(
    share=st.floats(0, 1),
    delay=st.integers(0, 400),
    channels=st.integers(2, 8),
    uncorrelated=st.booleans(),
)
def test_panned_delayed_and_decorrelated_channels_are_averaged(
    share: float, delay: int, channels: int, uncorrelated: bool
) -> None:
    """Pan laws, spaced microphones, a voice in the middle of independent instruments, one channel of many."""
    one = melody(0.5, RATE, 1)
    columns = [one * np.cos(share * np.pi / 2), np.roll(one, delay) * np.sin(share * np.pi / 2)]
    for number in range(2, channels):
        columns.append(melody(0.5, RATE, number) if uncorrelated else np.zeros_like(one))
    assert not _sections(np.stack(columns, axis=1).astype(np.float32)).cancelled()


@given(gain=st.floats(0.6, 0.95), noise=st.floats(0, 0.1), seed=st.integers(0, 5))
def test_inverted_channels_cancel_also_at_other_levels_and_with_noise(
    gain: float, noise: float, seed: int
) -> None:
    one = melody(0.5, RATE, seed)
    other = -gain * one + noise * np.std(one) * np.random.default_rng(seed).normal(size=len(one))
    assert _sections(np.stack([one, other], axis=1).astype(np.float32)).cancelled() == {0: 0}


def test_music_in_stereo_lies_far_above_the_threshold(shared: Path) -> None:
    """GTZAN's clips, two and two as the instruments of a mix, in panoramas and with a decorrelated room."""
    rng = np.random.default_rng(0)
    clips = sorted((shared / "gtzan-mini" / "genres").glob("*/*0[0-3].wav"))
    music = [soundfile.read(path, dtype="float32", frames=5 * RATE)[0] for path in clips]
    shares = []
    for first, second in zip(music, music[1:] + music[:1], strict=True):
        left, right = rng.uniform(0, 1, 2)
        dry = np.stack([first * left + second * (1 - right), first * (1 - left) + second * right], axis=1)
        room = np.exp(-np.arange(2_000) / 400)[:, None] * rng.normal(0, 0.1, (2_000, 2))
        wet = np.stack([np.convolve(dry[:, side], room[:, side])[: len(dry)] for side in (0, 1)], axis=1)
        one_sided = np.stack([first, np.zeros_like(first)], axis=1)
        haas = np.stack([first, np.roll(first, 300)], axis=1)
        shares += [_share(mix) for mix in (dry, dry + wet, wet, one_sided, haas)]
    print(f"\nthe mean has {min(shares):.2f} to {max(shares):.2f} of the channels' energy")
    assert min(shares) > 2 * CANCELLED_SHARE / 2


def _share(mix: Samples) -> float:
    return float(np.var(mix.mean(axis=1)) / np.var(mix, axis=0).mean())


def _sections(block: Samples) -> Sections:
    sections = Sections("the audio", Bounds(60, None))
    for start in range(0, len(block), 3_000):
        sections.add(block[start : start + 3_000], RATE)
    return sections
