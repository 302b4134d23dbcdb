"""AST's filter bank against transformers' extractor (its NumPy path: torchaudio is not installed)."""

import numpy as np
import pytest
from transformers import ASTFeatureExtractor

from genreflow.features.fbank import ast_fbank


def _windows(samples: int) -> np.ndarray:
    rng = np.random.default_rng(2)
    time = np.arange(samples) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.1
    return np.stack([tone, rng.normal(0, 0.1, samples), np.zeros(samples)]).astype(np.float32)


@pytest.mark.parametrize("settings", [{}, {"num_mel_bins": 64, "max_length": 300}, {"do_normalize": False}])
@pytest.mark.parametrize("samples", [16_000, 164_000])
def test_it_is_what_transformers_extractor_gives(settings: dict[str, int], samples: int) -> None:
    windows = _windows(samples)
    extractor = ASTFeatureExtractor(**settings)
    wanted = np.stack(extractor(list(windows), sampling_rate=16_000)["input_values"])
    actual = ast_fbank(
        windows,
        sample_rate=16_000,
        n_mels=extractor.num_mel_bins,
        max_length=extractor.max_length,
        mean=extractor.mean,
        std=extractor.std,
        normalise=extractor.do_normalize,
    )
    assert actual.dtype == np.float32
    assert actual.shape == wanted.shape
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=5e-4)
