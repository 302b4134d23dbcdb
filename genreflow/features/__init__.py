"""The representations: plain NumPy over waveforms, what training, evaluation and serving preprocess with."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from genreflow.artifacts import Hearing
from genreflow.audio import cut_windows, resample
from genreflow.errors import SettingsError

Representation = Callable[..., NDArray[np.float32]]
"""(windows, window_samples) float32, sample_rate=…, **parameters → (windows, *shape) float32."""


def _representations() -> dict[str, Representation]:
    from genreflow.features import fbank, five_channel, log_mel, waveform

    return {
        "waveform": waveform.waveform,
        "whisper_log_mel": log_mel.whisper_log_mel,
        "ast_fbank": fbank.ast_fbank,
        "mfcc_five_channel": five_channel.mfcc_five_channel,
    }


REPRESENTATIONS: dict[str, Representation] = _representations()


def represent(hearing: Hearing, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the model takes for `windows` (n, window_samples) at the hearing's rate: (n, *shape) float32.

    Raises:
        SettingsError: the hearing names an unknown representation.
    """
    if hearing.representation not in REPRESENTATIONS:
        raise SettingsError(
            f"There is no representation {hearing.representation!r}; there are {', '.join(REPRESENTATIONS)}."
        )
    function = REPRESENTATIONS[hearing.representation]
    return function(windows, sample_rate=hearing.sample_rate, **hearing.parameters)


def hear(
    hearing: Hearing, samples: NDArray[np.float32], sample_rate: int, hop_seconds: float | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Resample, cut and represent a whole clip.

    Args:
        samples: (n,) float32 mono at `sample_rate` Hz.
        hop_seconds: another hop than the hearing's, for timelines.

    Returns:
        (windows, *shape) float32, and the windows' starts in seconds (windows,).
    """
    waveform = resample(samples, sample_rate, hearing.sample_rate)
    hop = hearing.hop_samples if hop_seconds is None else max(1, round(hop_seconds * hearing.sample_rate))
    windows, starts = cut_windows(waveform, hearing.window_samples, hop, hearing.extend)
    return represent(hearing, windows), starts / hearing.sample_rate
