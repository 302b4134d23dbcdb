"""The representations: plain NumPy over waveforms, what training, evaluation and serving preprocess with."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from genreflow.audio import cut_windows, plan_windows, resample
from genreflow.core.documents import InputSpec
from genreflow.core.errors import SettingsError

BATCH_WINDOWS = 8
"""Windows represented and classified at once: bounds the memory of an hour of music."""
Representation = Callable[..., NDArray[np.float32]]
"""(windows, window_samples) float32, sample_rate=…, **parameters → (windows, *shape) float32."""


def _representations() -> dict[str, Representation]:
    from genreflow.features import (
        descriptors,
        fbank,
        five_channel,
        log_mel,
        musicnn_mel,
        scaled_mel,
        waveform,
    )

    return {
        "waveform": waveform.waveform,
        "whisper_log_mel": log_mel.whisper_log_mel,
        "ast_fbank": fbank.ast_fbank,
        "musicnn_log_mel": musicnn_mel.musicnn_log_mel,
        "descriptors": descriptors.descriptor_vectors,
        "mfcc_five_channel": five_channel.mfcc_five_channel,
        "scaled_mel": scaled_mel.scaled_mel,
    }


REPRESENTATIONS: dict[str, Representation] = _representations()


def represent(spec: InputSpec, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Represent `windows` (n, window_samples), cut at the specification's rate: (n, *shape) float32.

    Raises:
        SettingsError: the specification names an unknown representation.
    """
    if spec.representation not in REPRESENTATIONS:
        raise SettingsError(
            f"There is no representation {spec.representation!r}; there are {', '.join(REPRESENTATIONS)}."
        )
    function = REPRESENTATIONS[spec.representation]
    return function(windows, sample_rate=spec.sample_rate, **spec.parameters)


def iter_window_batches(
    spec: InputSpec,
    samples: NDArray[np.float32],
    sample_rate: int,
    hop_seconds: float | None = None,
    batch_windows: int = BATCH_WINDOWS,
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float64]]]:
    """Resample a clip, cut it into windows and represent them, in batches that bound the memory.

    Args:
        samples: (n,) float32 mono at `sample_rate` Hz.
        hop_seconds: another hop than the specification's, for timelines.
        batch_windows: windows of one batch at most.

    Yields:
        (windows, *shape) float32, and the windows' starts in seconds (windows,).

    Raises:
        AudioError: there is not one sample.
    """
    waveform = resample(samples, sample_rate, spec.sample_rate)
    window = spec.window_samples
    hop = spec.hop_samples if hop_seconds is None else max(1, round(hop_seconds * spec.sample_rate))
    if len(waveform) <= window:
        windows, starts = cut_windows(waveform, window, hop, spec.extend)
        yield represent(spec, windows), starts / spec.sample_rate
        return
    plan = plan_windows(len(waveform), window, hop)
    views = np.lib.stride_tricks.sliding_window_view(waveform, window)
    for first in range(0, len(plan), batch_windows):
        starts = plan[first : first + batch_windows]
        yield represent(spec, views[starts]), starts / spec.sample_rate


def window_inputs(
    spec: InputSpec, samples: NDArray[np.float32], sample_rate: int, hop_seconds: float | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """All windows of a clip at once: `iter_window_batches` joined."""
    batches = list(iter_window_batches(spec, samples, sample_rate, hop_seconds))
    if len(batches) == 1:
        return batches[0]
    return np.concatenate([inputs for inputs, _ in batches]), np.concatenate(
        [starts for _, starts in batches]
    )
