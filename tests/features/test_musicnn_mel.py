"""musicnn's log-mel spectrogram against librosa."""

import librosa
import numpy as np
import pytest

from genreflow.core.documents import InputSpec
from genreflow.features import represent
from genreflow.features.musicnn_mel import (
    BANDS,
    FRAMES,
    HOP,
    N_FFT,
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    musicnn_log_mel,
)

CLOSE = 1e-4


def _clips(samples: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    time = np.arange(samples) / SAMPLE_RATE
    tone = 0.3 * np.sin(2 * np.pi * 440 * time)
    noise = rng.normal(0, 0.05, samples)
    clicks = np.where(np.arange(samples) % 4_000 == 0, 1.0, 0.0)
    half = np.where(time < time[-1] / 2, tone, 0)
    return np.stack([tone, noise, 0.001 * tone, clicks, half, np.zeros(samples)]).astype(np.float32)


def _expected(clip: np.ndarray) -> np.ndarray:
    """As musicnn's `extractor.py` computes it, in float32."""
    mel = librosa.feature.melspectrogram(y=clip, sr=SAMPLE_RATE, hop_length=HOP, n_fft=N_FFT, n_mels=BANDS)
    return np.log10(10_000 * mel.T + 1)


def test_a_clip_is_what_librosa_gives_but_for_the_last_frame() -> None:
    for clip in _clips(10 * SAMPLE_RATE):
        got = musicnn_log_mel(clip[None], sample_rate=SAMPLE_RATE)[0]
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, _expected(clip)[:-1], rtol=0, atol=CLOSE)


def test_windows_without_overlap_are_the_clips_spectrogram_cut_but_for_their_first_frames() -> None:
    for clip in _clips(3 * WINDOW_SAMPLES):
        windows = musicnn_log_mel(clip.reshape(3, WINDOW_SAMPLES), sample_rate=SAMPLE_RATE)
        assert windows.shape == (3, FRAMES, BANDS)
        expected = _expected(clip)[:-1].reshape(3, FRAMES, BANDS)
        np.testing.assert_allclose(windows[0], expected[0], rtol=0, atol=CLOSE)
        np.testing.assert_allclose(windows[1:, 1:], expected[1:, 1:], rtol=0, atol=CLOSE)


def test_it_is_a_representation_by_its_name() -> None:
    spec = InputSpec(
        sample_rate=SAMPLE_RATE,
        window_seconds=WINDOW_SAMPLES / SAMPLE_RATE,
        hop_seconds=1.5,
        extend="repeat",
        representation="musicnn_log_mel",
    )
    assert spec.window_samples == WINDOW_SAMPLES
    windows = _clips(spec.window_samples)
    np.testing.assert_array_equal(represent(spec, windows), musicnn_log_mel(windows, sample_rate=SAMPLE_RATE))


@pytest.mark.parametrize("count", [0, 1, 6])
def test_a_window_has_the_same_values_alone_and_in_a_batch(count: int) -> None:
    windows = _clips(WINDOW_SAMPLES)[:count]
    together = musicnn_log_mel(windows, sample_rate=SAMPLE_RATE)
    assert together.shape == (count, FRAMES, BANDS)
    for index in range(count):
        alone = musicnn_log_mel(windows[index : index + 1], sample_rate=SAMPLE_RATE)
        np.testing.assert_array_equal(alone[0], together[index])
