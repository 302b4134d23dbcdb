"""The 57 descriptors, against librosa and against the published table."""

import csv
from pathlib import Path

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genreflow.audio import decode
from genreflow.core.errors import AudioError
from genreflow.features.descriptors import (
    NAMES,
    QUICK_NAMES,
    SAMPLE_RATE,
    descriptors,
    quick_descriptors,
    running_median,
    separate,
    tempo,
    tuning,
)
from genreflow.features.spectral import power_spectrogram, stft

PUBLISHED_CLIPS = ("blues.00000", "country.00002", "hiphop.00004", "metal.00006", "rock.00009")
NEAR_ZERO = ("harmony_mean", "perceptr_mean")
"""Means of waveforms: nothing but rounding (FACTS), not comparable in relative terms."""


def music(seconds: float = 4.0, seed: int = 3) -> np.ndarray:
    """Chords detuned by a fifth of a semitone, under clicks at 100 beats a minute and a little noise."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    chord = sum(np.sin(2 * np.pi * hertz * 2 ** (0.2 / 12) * time) for hertz in (220.0, 277.18, 329.63))
    beat = np.exp(-40 * (time % 0.6)) * generator.standard_normal(len(time))
    return (0.1 * chord + 0.3 * beat + 0.001 * generator.standard_normal(len(time))).astype(np.float32)


def by_librosa(samples: np.ndarray) -> dict[str, float]:
    """The table's columns as its authors computed them."""
    harmony, percussion = librosa.effects.hpss(samples)
    curves = {
        "chroma_stft": librosa.feature.chroma_stft(y=samples, sr=SAMPLE_RATE),
        "rms": librosa.feature.rms(y=samples),
        "spectral_centroid": librosa.feature.spectral_centroid(y=samples, sr=SAMPLE_RATE),
        "spectral_bandwidth": librosa.feature.spectral_bandwidth(y=samples, sr=SAMPLE_RATE),
        "rolloff": librosa.feature.spectral_rolloff(y=samples, sr=SAMPLE_RATE),
        "zero_crossing_rate": librosa.feature.zero_crossing_rate(samples),
        "harmony": harmony,
        "perceptr": percussion,
    }
    cepstrum = librosa.feature.mfcc(y=samples, sr=SAMPLE_RATE)
    curves |= {f"mfcc{number}": row for number, row in enumerate(cepstrum, start=1)}
    found = {f"{name}_mean": float(np.mean(curve)) for name, curve in curves.items()}
    found |= {f"{name}_var": float(np.var(curve)) for name, curve in curves.items()}
    found["tempo"] = float(np.squeeze(librosa.beat.beat_track(y=samples, sr=SAMPLE_RATE)[0]))
    return found


def test_all_descriptors_are_librosas_and_named_as_in_the_published_table() -> None:
    samples = music()
    ours, theirs = descriptors(samples, SAMPLE_RATE), by_librosa(samples)
    assert tuple(ours) == NAMES
    assert set(ours) == set(theirs)
    for name in NAMES:
        tolerance = 1e-6 if name in NEAR_ZERO else 1e-3 * abs(theirs[name])
        assert ours[name] == pytest.approx(theirs[name], abs=tolerance), name


def test_real_clips_are_within_one_percent_of_the_published_table(shared: Path) -> None:
    with (shared / "reference/features_30_sec.csv").open(newline="") as file:
        table = {row["filename"].removesuffix(".wav"): row for row in csv.DictReader(file)}
    assert tuple(next(iter(table.values())))[2:-1] == NAMES
    for clip in PUBLISHED_CLIPS:
        audio = decode(shared / "gtzan-mini/genres" / clip.split(".")[0] / f"{clip}.wav")
        ours = descriptors(audio.samples, audio.sample_rate)
        for name in set(NAMES) - set(NEAR_ZERO):
            assert ours[name] == pytest.approx(float(table[clip][name]), rel=0.01), (clip, name)


def test_quick_descriptors_are_the_same_without_separation_and_tempo() -> None:
    samples = music(2.0)
    quick, all_of_them = quick_descriptors(samples, SAMPLE_RATE), descriptors(samples, SAMPLE_RATE)
    assert tuple(quick) == QUICK_NAMES
    assert len(NAMES) == 57
    assert quick == {name: all_of_them[name] for name in QUICK_NAMES}


def test_another_sample_rate_gives_the_same_descriptors() -> None:
    # Nothing near the upper end of the band, which every resampling takes away.
    narrow = librosa.resample(music(6.0), orig_sr=SAMPLE_RATE, target_sr=16_000)
    samples = librosa.resample(narrow, orig_sr=16_000, target_sr=SAMPLE_RATE)
    double = librosa.resample(samples, orig_sr=SAMPLE_RATE, target_sr=2 * SAMPLE_RATE)
    ours, theirs = quick_descriptors(double, 2 * SAMPLE_RATE), quick_descriptors(samples, SAMPLE_RATE)
    for name in ("rms_mean", "spectral_centroid_mean", "zero_crossing_rate_mean", "mfcc2_mean"):
        assert ours[name] == pytest.approx(theirs[name], rel=0.01), name


def test_harmonic_and_percussive_parts_add_up_to_the_clip() -> None:
    samples = music(2.0)
    harmony, percussion = separate(samples, stft(samples))
    assert np.abs(harmony + percussion - samples).max() < 1e-4
    assert np.var(harmony) > 0.5 * np.var(samples - percussion)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(1, 40), (40, 7), (70, 1025)])
def test_running_medians_are_scipys_to_the_last_bit(shape: tuple[int, int], axis: int) -> None:
    values = np.random.default_rng(1).random(shape).astype(np.float32)
    values[:, ::5] = values[0, 0]  # equal values, also in the middle of a window
    padding = [(0, 0), (0, 0)]
    padding[axis] = (15, 15)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, padding, mode="symmetric"), 31, axis)
    np.testing.assert_array_equal(running_median(values, axis), np.median(windows, axis=-1))


def test_the_tempo_of_clicks_is_found() -> None:
    assert tempo(power_spectrogram(music(12.0))) == pytest.approx(100, rel=0.03)


def test_the_tuning_is_found_to_a_few_hundredths_of_a_semitone() -> None:
    assert tuning(power_spectrogram(music(6.0))) == pytest.approx(0.2, abs=0.05)


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 5000), loudness=st.sampled_from([0.0, 1e-12, 1e-3, 1.0]))
def test_every_descriptor_of_any_short_or_silent_clip_is_a_number(length: int, loudness: float) -> None:
    samples = (loudness * np.random.default_rng(length).uniform(-1, 1, length)).astype(np.float32)
    assert np.isfinite(list(descriptors(samples, SAMPLE_RATE).values())).all()


def test_no_samples_are_refused_with_an_error_message() -> None:
    with pytest.raises(AudioError, match="no samples"):
        descriptors(np.zeros(0, dtype=np.float32), SAMPLE_RATE)
