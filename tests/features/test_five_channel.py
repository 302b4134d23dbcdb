"""The five-channel feature map: librosa's values, and a tempo-synchronous channel of its own."""

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray

from genreflow.features import spectral
from genreflow.features.five_channel import (
    CHANNELS,
    SAMPLE_RATE,
    average_between,
    mfcc_five_channel,
    track_beats,
)

SAMPLES = 3 * SAMPLE_RATE
FRAME_RATE = SAMPLE_RATE / spectral.HOP


@pytest.fixture(scope="module")
def music() -> NDArray[np.float32]:
    """Two windows: chords with clicks at 120 beats a minute, and another chord with noise."""
    rng = np.random.default_rng(3)
    time = np.arange(SAMPLES) / SAMPLE_RATE
    chord = sum(np.sin(2 * np.pi * hertz * time) for hertz in (220.0, 277.2, 329.6))
    clicks = np.exp(-((time + 0.25) % 0.5) * 40) * rng.normal(0, 1, SAMPLES)
    other = sum(np.sin(2 * np.pi * hertz * time) for hertz in (261.6, 311.1, 392.0))
    windows = [0.1 * chord + 0.5 * clicks, 0.2 * other + 0.01 * rng.normal(0, 1, SAMPLES)]
    return np.stack(windows).astype(np.float32)


def test_three_seconds_become_five_channels_of_40_rows_and_130_frames(music: NDArray[np.float32]) -> None:
    feature_map = mfcc_five_channel(music)
    assert feature_map.shape == (2, 5, 40, 130)
    assert feature_map.dtype == np.float32
    assert len(CHANNELS) == 5


def test_mfcc_and_its_deltas_equal_librosas(music: NDArray[np.float32]) -> None:
    feature_map = mfcc_five_channel(music)
    for window, found in zip(music, feature_map, strict=True):
        mfcc = librosa.feature.mfcc(y=window, sr=SAMPLE_RATE, n_mfcc=40)
        np.testing.assert_allclose(found[0], mfcc, atol=1e-3)
        np.testing.assert_allclose(found[1], librosa.feature.delta(mfcc), atol=1e-3)
        np.testing.assert_allclose(found[2], librosa.feature.delta(mfcc, order=2), atol=1e-3)


@pytest.mark.parametrize("tuning", [0.0, 0.31, -0.4])
def test_chroma_equals_librosas(music: NDArray[np.float32], tuning: float) -> None:
    found = spectral.chroma(spectral.power_spectrogram(music), SAMPLE_RATE, tuning=tuning)
    for window, chroma in zip(music, found, strict=True):
        expected = librosa.feature.chroma_stft(y=window, sr=SAMPLE_RATE, tuning=tuning)
        np.testing.assert_allclose(chroma.T, expected, atol=1e-4)


def test_the_chroma_channel_stretches_twelve_pitch_classes_over_40_rows(music: NDArray[np.float32]) -> None:
    feature_map = mfcc_five_channel(music)[:, 4]
    chroma = spectral.chroma(spectral.power_spectrogram(music), SAMPLE_RATE)
    np.testing.assert_allclose(feature_map[:, 0], chroma[:, :, 0], atol=1e-6)
    np.testing.assert_allclose(feature_map[:, 39], chroma[:, :, 11], atol=1e-6)
    # a major third above A is C sharp, pitch class 1: row 39 / 11
    assert feature_map[0, 3:5].mean() > feature_map[0, 7:11].mean()


def test_onset_strength_equals_librosas(music: NDArray[np.float32]) -> None:
    mel = spectral.mel_decibels(spectral.power_spectrogram(music), SAMPLE_RATE)
    for window, found in zip(music, spectral.onset_strength(mel), strict=True):
        np.testing.assert_allclose(found, librosa.onset.onset_strength(y=window, sr=SAMPLE_RATE), atol=1e-3)


@pytest.mark.parametrize("bpm", [75, 90, 120, 150])
def test_beats_of_a_steady_pulse_are_found_where_they_are(bpm: int) -> None:
    period = 60 * FRAME_RATE / bpm
    onsets = np.zeros((1, 130), dtype=np.float32)
    true = np.round(np.arange(5, 130, period)).astype(int)
    onsets[0, true] = 1
    found = np.flatnonzero(track_beats(onsets, FRAME_RATE)[0])
    assert len(found) >= len(true) - 1
    assert all(np.abs(true - beat).min() <= 1 for beat in found)


def test_the_tempo_channel_is_the_mfcc_averaged_from_beat_to_beat() -> None:
    features = np.arange(6, dtype=np.float32).reshape(1, 6, 1)
    beats = np.array([[False, True, False, False, True, False]])
    np.testing.assert_allclose(average_between(features, beats)[0, :, 0], [0, 2, 2, 2, 4.5, 4.5])


def test_the_tempo_channel_is_constant_between_clicks(music: NDArray[np.float32]) -> None:
    changes = np.flatnonzero(np.abs(np.diff(mfcc_five_channel(music)[0, 3], axis=1)).max(axis=0) > 0)
    assert 3 <= len(changes) <= 7  # six clicks in three seconds
    assert np.diff(changes) == pytest.approx(FRAME_RATE / 2, abs=2)


def test_a_window_gives_the_same_feature_map_alone_and_in_a_batch(music: NDArray[np.float32]) -> None:
    many = np.concatenate([music] * 10)
    np.testing.assert_allclose(mfcc_five_channel(many)[-1:], mfcc_five_channel(music[1:]), atol=1e-4)


def test_silence_gives_a_finite_feature_map() -> None:
    feature_map = mfcc_five_channel(np.zeros((1, SAMPLES), dtype=np.float32))
    assert np.isfinite(feature_map).all()
    assert not feature_map[0, 4].any()


def test_no_windows_give_no_feature_maps() -> None:
    assert mfcc_five_channel(np.zeros((0, SAMPLES), dtype=np.float32)).shape == (0, 5, 40, 130)
