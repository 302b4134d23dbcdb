"""The settings of `vgg`."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from genreflow.training.mel_spectrogram import MelSettings

Count = Annotated[int, Field(ge=1)]


class VggSettings(MelSettings):
    """A VGG-like convolutional network on the mel spectrogram of a clip."""

    window_seconds: float = Field(default=30.0, gt=0)
    """A clip that is shorter is repeated."""
    hop_seconds: float | None = Field(default=None, gt=0)
    """From one window to the next; None is the window's length."""
    frame_hop: int = Field(default=1024, ge=1)
    """Samples at 22,050 Hz from frame to frame."""
    bands: int = Field(default=128, ge=1)
    """Of the mel spectrogram."""
    channels: tuple[Count, ...] = Field(default=(16, 32, 64, 128, 128), min_length=1)
    """Of the convolutions in each block; every block ends with max pooling over 2 by 2."""
    convolutions: tuple[Count, ...] = (2, 2, 2, 2, 2)
    """How many of 3 by 3 there are in each block."""
    batch_norm: bool = True
    """Batch normalisation before each activation; the original VGG has none."""
    grid: tuple[Count, ...] = Field(default=(8, 4), min_length=2, max_length=2)
    """Over time and over frequency: the last block's output is averaged to it, then flattened."""
    dense: tuple[Count, ...] = (256,)
    """Widths of the dense layers between there and the classifier."""
    block_dropout: float = Field(default=0.1, ge=0, lt=1)
    """After each block, of whole channels."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """After each dense layer."""
    masks: int = Field(default=1, ge=0)
    """SpecAugment in training: time masks, and as many frequency masks; masked values are 0."""
    time_mask: float = Field(default=0.1, ge=0, le=1)
    """Share of a window's frames that a time mask covers at most."""
    band_mask: float = Field(default=0.1, ge=0, le=1)
    """Share of the bands that a frequency mask covers at most."""
    time_shift: bool = True
    """In training a window's end is carried to its front, by a random length."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.convolutions) != len(self.channels):
            raise ValueError(
                f"convolutions has {len(self.convolutions)} blocks and channels {len(self.channels)}: they "
                "need as many"
            )
        halvings = len(self.channels)
        if min(self.frames, self.bands) >> halvings == 0:
            raise ValueError(
                f"a window of {self.frames} frames and {self.bands} bands cannot be halved {halvings} times: "
                "lengthen window_seconds, or give fewer channels"
            )
        return self
