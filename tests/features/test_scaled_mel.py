"""The scaled mel spectrogram of `vit` and `vgg` against librosa."""

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray

from genreflow.core.documents import InputSpec
from genreflow.features import represent
from genreflow.features.scaled_mel import scaled_mel

RATE = 22_050


def windows(samples: int) -> NDArray[np.float32]:
    """A tone, noise, clicks, a quiet tone, and a tone in the first half alone."""
    rng = np.random.default_rng(1)
    time = np.arange(samples) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 440 * time)
    noise = rng.normal(0, 0.05, samples)
    clicks = np.where(np.arange(samples) % 4_000 == 0, 1.0, 0.0)
    half = np.where(time < time[-1] / 2, tone, 0)
    return np.stack([tone, noise, clicks, 0.001 * tone + noise, half]).astype(np.float32)


@pytest.mark.parametrize(
    ("seconds", "hop", "bands", "shape"),
    [(4.0, 410, 144, (216, 144)), (5.0, 1024, 128, (108, 128)), (0.2, 410, 144, (11, 144))],
)
def test_it_is_librosas_mel_spectrogram_in_decibels_scaled(
    seconds: float, hop: int, bands: int, shape: tuple[int, int]
) -> None:
    found = scaled_mel(windows(round(seconds * RATE)), sample_rate=RATE, hop=hop, bands=bands)
    assert found.dtype == np.float32
    assert found.shape == (5, 1, *shape)
    for window, values in zip(windows(round(seconds * RATE)), found, strict=True):
        power = librosa.feature.melspectrogram(y=window, sr=RATE, n_fft=2048, hop_length=hop, n_mels=bands)
        expected = librosa.power_to_db(power, ref=np.max, top_db=80) / 80 + 1
        np.testing.assert_allclose(values[0], expected.T, rtol=0, atol=1e-4)


def test_it_lies_between_zero_and_one_whatever_the_level() -> None:
    loud = scaled_mel(windows(RATE), sample_rate=RATE)
    assert loud.min() >= 0
    assert loud.max() == 1
    quiet = scaled_mel(windows(RATE)[:1] / 8, sample_rate=RATE)
    np.testing.assert_allclose(quiet, loud[:1], atol=1e-4)


def test_silence_is_zero_also_beside_other_windows() -> None:
    silent_first = np.concatenate([np.zeros((1, RATE), np.float32), windows(RATE)])
    found = scaled_mel(silent_first, sample_rate=RATE)
    assert not found[0].any()
    np.testing.assert_array_equal(found[1:], scaled_mel(windows(RATE), sample_rate=RATE))
    padded = np.pad(windows(RATE)[:1], ((0, 0), (0, RATE)))
    assert not scaled_mel(padded, sample_rate=RATE)[0, 0, 50:].any()


def test_it_is_a_representation_by_its_name() -> None:
    spec = InputSpec(
        sample_rate=RATE,
        window_seconds=4.0,
        hop_seconds=2.0,
        extend="silence",
        representation="scaled_mel",
        parameters={"hop": 410, "bands": 144},
    )
    assert represent(spec, windows(spec.window_samples)).shape == (5, 1, 216, 144)
    assert represent(spec, np.zeros((0, spec.window_samples), np.float32)).shape == (0, 1, 216, 144)
