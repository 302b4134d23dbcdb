"""A clip resampled, cut into windows and represented: the same in extraction, evaluation and serving."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genreflow.audio import SKIPPED_REST_SHARE, cut_windows, resample
from genreflow.core.documents import InputSpec
from genreflow.core.errors import AudioError, SettingsError
from genreflow.features import REPRESENTATIONS, represent, window_inputs


def input_spec(
    representation: str, sample_rate: int = 16_000, window_seconds: float = 1.0, **changes: object
) -> InputSpec:
    given: dict[str, object] = {
        "sample_rate": sample_rate,
        "window_seconds": window_seconds,
        "hop_seconds": window_seconds,
        "extend": "repeat",
        "representation": representation,
    }
    return InputSpec.model_validate(given | changes)


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


SPECS = {
    "waveform": (input_spec("waveform"), (16_000,)),
    "whisper_log_mel": (input_spec("whisper_log_mel", window_seconds=2.0, extend="silence"), (80, 200)),
    "ast_fbank": (
        input_spec(
            "ast_fbank",
            window_seconds=1.28,
            parameters={"n_mels": 32, "max_length": 128, "mean": -4.2, "std": 4.5},
        ),
        (128, 32),
    ),
    "mfcc_five_channel": (input_spec("mfcc_five_channel", 22_050, 3.0), (5, 40, 130)),
    "musicnn_log_mel": (input_spec("musicnn_log_mel", 16_000, 2.992, extend="silence"), (187, 96)),
    "descriptors": (input_spec("descriptors", 22_050, 2.0), (57,)),
    "scaled_mel": (
        input_spec("scaled_mel", 22_050, 4.0, extend="silence", parameters={"hop": 410, "bands": 144}),
        (1, 216, 144),
    ),
}


def test_every_representation_is_tested_here() -> None:
    assert set(SPECS) == set(REPRESENTATIONS)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("seconds", "rate"), [(0.2, 16_000), (6.5, 22_050), (4.0, 44_100)])
def test_any_clip_becomes_windows_of_the_models_shape(name: str, seconds: float, rate: int) -> None:
    how, shape = SPECS[name]
    inputs, starts = window_inputs(how, tone(seconds, rate), rate)
    assert inputs.shape == (len(starts), *shape)
    assert inputs.dtype == np.float32
    assert np.isfinite(inputs).all()
    assert starts[0] == 0
    if seconds > how.window_seconds:
        assert starts[-1] == pytest.approx(seconds - how.window_seconds, abs=1e-3)


@pytest.mark.parametrize("name", SPECS)
def test_a_windows_representation_does_not_depend_on_its_neighbours(name: str) -> None:
    how, _ = SPECS[name]
    generator = np.random.default_rng(5)
    clip = np.concatenate([tone(4.0, how.sample_rate), generator.uniform(-1, 1, 4 * how.sample_rate)]).astype(
        np.float32
    )
    windows, _ = cut_windows(clip, how.window_samples, how.hop_samples, how.extend)
    together = represent(how, windows)
    alone = np.concatenate([represent(how, window[None]) for window in windows])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


def test_windows_are_normalised_one_by_one_after_cutting() -> None:
    clip = np.concatenate([0.01 * tone(1.0, 16_000), tone(1.0, 16_000)])
    inputs, _ = window_inputs(input_spec("waveform"), clip, 16_000)
    np.testing.assert_allclose(inputs.std(axis=1), 1, atol=1e-2)


def test_a_short_clip_is_repeated_for_hubert_and_followed_by_silence_for_whisper() -> None:
    clip = tone(0.4, 16_000)
    plain = {"parameters": {"normalise": False}}
    repeated, _ = window_inputs(input_spec("waveform", extend="repeat", **plain), clip, 16_000)
    silent, _ = window_inputs(input_spec("waveform", extend="silence", **plain), clip, 16_000)
    np.testing.assert_array_equal(repeated[0, :6400], clip)
    np.testing.assert_array_equal(repeated[0, 6400:12_800], clip)
    np.testing.assert_array_equal(silent[0, :6400], clip)
    assert not silent[0, 6400:].any()


def test_another_sample_rate_of_the_same_sound_is_predicted_nearly_alike() -> None:
    how = input_spec("waveform")
    slow, _ = window_inputs(how, tone(1.0, 16_000), 16_000)
    fast, _ = window_inputs(how, tone(1.0, 44_100), 44_100)
    middle = slice(500, -500)  # a resampler's filter rings at the ends
    np.testing.assert_allclose(slow[0, middle], fast[0, middle], atol=0.01)


@settings(max_examples=60, deadline=None)
@given(seconds=st.floats(0.01, 12.0), hop=st.floats(0.05, 3.0), rate=st.sampled_from([8_000, 11_025, 16_000]))
def test_another_hop_moves_the_windows_and_leaves_only_a_small_rest_of_the_clip_out(
    seconds: float, hop: float, rate: int
) -> None:
    clip = tone(seconds, rate)
    how = input_spec("waveform", 8_000)
    inputs, starts = window_inputs(how, clip, rate, hop_seconds=hop)
    length = len(resample(clip, rate, 8_000)) / 8_000
    assert len(inputs) == len(starts)
    assert starts[0] == 0
    assert (np.diff(starts) <= round(hop * 8_000) / 8_000 + 1e-9).all()
    rest = length - (starts[-1] + how.window_seconds)
    assert rest <= SKIPPED_REST_SHARE * how.window_seconds + 1e-9
    assert len(starts) == 1 or rest >= -1e-9


def test_an_unknown_representation_is_refused_with_what_there_is() -> None:
    with pytest.raises(SettingsError, match="no representation 'wavelet'; there are waveform"):
        window_inputs(input_spec("wavelet"), tone(1.0, 16_000), 16_000)


def test_no_samples_are_refused_with_an_error_message() -> None:
    with pytest.raises(AudioError, match="no sample"):
        window_inputs(input_spec("waveform"), np.zeros(0, dtype=np.float32), 16_000)
