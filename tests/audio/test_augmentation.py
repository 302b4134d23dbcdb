"""Augmentation: what it keeps, whatever it is given, and that it changes something."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genreflow.audio.augmentation import augment


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 20_000),
    rate=st.sampled_from([8_000, 16_000, 22_050, 44_100, 192_000]),
    level=st.sampled_from([0.0, 1e-4, 0.1, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_any_waveform_keeps_its_length_and_its_range(count: int, rate: int, level: float, seed: int) -> None:
    samples = (level * np.random.default_rng(seed).uniform(-1, 1, count)).astype(np.float32)
    before = samples.copy()
    changed = augment(samples, rate, np.random.default_rng(seed))
    assert changed.shape == samples.shape
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    assert np.abs(changed).max() <= 1.0 + 1e-6
    np.testing.assert_array_equal(samples, before, err_msg="the clip itself is unchanged")


def _chord(seconds: float = 4.0, rate: int = 22_050) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.2 * sum(np.sin(2 * np.pi * hertz * time) for hertz in (220, 277.18, 329.63))).astype(np.float32)


def test_the_same_seed_gives_the_same_copy_and_another_seed_another() -> None:
    samples = _chord()
    first, again, other = (augment(samples, 22_050, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


@pytest.mark.parametrize("seed", range(8))
def test_the_music_is_preserved(seed: int) -> None:
    samples = _chord()
    changed = augment(samples, 22_050, np.random.default_rng(seed))
    power = np.abs(np.fft.rfft(changed * np.hanning(len(changed)))) ** 2
    hertz = np.fft.rfftfreq(len(changed), 1 / 22_050)
    # a semitone either way around the chord
    near = (hertz > 220 / 2 ** (1.2 / 12)) & (hertz < 329.63 * 2 ** (1.2 / 12))
    assert power[near].sum() / power.sum() > 0.8


def test_copies_differ_in_pitch_level_and_tone() -> None:
    samples = _chord()
    copies = [augment(samples, 22_050, np.random.default_rng(seed)) for seed in range(20)]
    levels = [float(np.sqrt(np.mean(copy**2))) for copy in copies]
    assert max(levels) / min(levels) > 1.5
    peaks = {int(np.abs(np.fft.rfft(copy)).argmax()) for copy in copies}
    assert len(peaks) > 5
