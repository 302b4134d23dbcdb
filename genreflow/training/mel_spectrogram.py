"""What torch families on mel spectrograms share: their settings of it, and the representation."""

from typing import Literal

from genreflow.core.documents import InputSpec, Representation
from genreflow.fitting.contract import FamilySettings

SAMPLE_RATE = 22_050
N_FFT = 2048


class MelSettings(FamilySettings):
    """Base of the settings of a family on mel spectrograms, which gives each of these its default."""

    window_seconds: float
    hop_seconds: float | None
    """None is the window's length."""
    frame_hop: int
    """Samples from frame to frame."""
    bands: int

    @property
    def frames(self) -> int:
        """Of a window's spectrogram."""
        return 1 + round(self.window_seconds * SAMPLE_RATE) // self.frame_hop


def mel_representation(settings: MelSettings, extend: Literal["repeat", "silence"]) -> Representation:
    """Windows as scaled mel spectrograms, (1, frames, bands).

    Args:
        extend: how a clip that is shorter than a window is extended.
    """
    spec = InputSpec(
        sample_rate=SAMPLE_RATE,
        window_seconds=settings.window_seconds,
        hop_seconds=settings.hop_seconds or settings.window_seconds,
        extend=extend,
        representation="scaled_mel",
        parameters={"n_fft": N_FFT, "hop": settings.frame_hop, "bands": settings.bands},
    )
    # halves the file; the rounding is below a fortieth of a decibel
    return Representation(kind="none", input_spec=spec, dtype="float16")
