"""The waveform representation against transformers' extractor."""

import numpy as np
import pytest
from transformers import Wav2Vec2FeatureExtractor

from genreflow.features.waveform import waveform


def _windows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(0.1, 0.2, (3, 16_000)) * [[1.0], [0.01], [5.0]]).astype(np.float32)


@pytest.mark.parametrize("normalise", [True, False])
def test_it_is_what_transformers_extractor_gives(normalise: bool) -> None:
    windows = _windows()
    extractor = Wav2Vec2FeatureExtractor(do_normalize=normalise)
    wanted = np.stack(extractor(list(windows), sampling_rate=16_000)["input_values"])
    actual = waveform(windows, sample_rate=16_000, normalise=normalise)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-6)


def test_silence_stays_silence() -> None:
    assert not waveform(np.zeros((1, 1_000), np.float32), sample_rate=16_000).any()


def test_a_windows_features_do_not_depend_on_its_level() -> None:
    windows = _windows()
    np.testing.assert_allclose(
        waveform(windows, sample_rate=16_000)[0], waveform(windows * 3, sample_rate=16_000)[0], atol=1e-4
    )
