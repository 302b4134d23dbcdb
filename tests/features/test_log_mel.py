"""Whisper's log-mel spectrogram against transformers' extractor."""

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from genreflow.features.log_mel import whisper_log_mel


def _windows(samples: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    time = np.arange(samples) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * 440 * time)
    noise = rng.normal(0, 0.05, samples)
    faint = 1e-4 * np.sin(2 * np.pi * 1_000 * time)
    half = np.where(time < time[-1] / 2, tone, 0)
    return np.stack([tone, noise, faint, half, np.zeros(samples)]).astype(np.float32)


@pytest.mark.parametrize(("n_mels", "seconds"), [(80, 30), (128, 5)])
def test_it_is_what_transformers_extractor_gives(n_mels: int, seconds: int) -> None:
    windows = _windows(seconds * 16_000)
    extractor = WhisperFeatureExtractor(feature_size=n_mels, chunk_length=seconds)
    wanted = extractor(list(windows), sampling_rate=16_000, return_tensors="np")["input_features"]
    actual = whisper_log_mel(windows, sample_rate=16_000, n_mels=n_mels)
    assert actual.dtype == np.float32
    assert actual.shape == (5, n_mels, seconds * 100)
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=5e-5)


def test_a_window_is_predicted_alike_alone_and_in_a_batch() -> None:
    windows = _windows(16_000)
    among = whisper_log_mel(windows, sample_rate=16_000)
    for index in range(len(windows)):
        alone = whisper_log_mel(windows[index : index + 1], sample_rate=16_000)
        np.testing.assert_array_equal(alone[0], among[index])
