"""The settings of `vit`."""

from typing import Self

from pydantic import Field, model_validator

from genreflow.training.mel_spectrogram import MelSettings


class VitSettings(MelSettings):
    """A Vision Transformer on mel spectrograms; the defaults are the published sizes."""

    window_seconds: float = Field(default=4.0, gt=0)
    """A clip that is shorter is padded with silence."""
    hop_seconds: float = Field(default=2.0, gt=0)
    """From one window to the next."""
    frame_hop: int = Field(default=410, ge=1)
    """Samples at 22,050 Hz from frame to frame: 410 make 216 frames of 4 s."""
    bands: int = Field(default=144, ge=1)
    """Of the mel spectrogram."""
    patch: int = Field(default=16, ge=1)
    """Frames, and bands, of a patch: 216 frames and 144 bands make 13 by 9 patches of 16 by 16."""
    width: int = Field(default=512, ge=1)
    """Values of a token."""
    blocks: int = Field(default=12, ge=1)
    """Transformer blocks."""
    heads: int = Field(default=8, ge=1)
    """Of the attention in each block; they divide `width`."""
    feed_forward: int = Field(default=1024, ge=1)
    """Width of the hidden layer in each block."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """On the tokens, after each attention and in each feed-forward network."""
    drop_path: float = Field(default=0.2, ge=0, lt=1)
    """Stochastic depth: how often the last block is skipped for a window in training; earlier ones less."""
    masks: int = Field(default=2, ge=0)
    """SpecAugment in training: time masks, and as many frequency masks; masked values are 0."""
    time_mask: float = Field(default=0.15, ge=0, le=1)
    """Share of a window's frames that a time mask covers at most."""
    band_mask: float = Field(default=0.15, ge=0, le=1)
    """Share of the bands that a frequency mask covers at most."""

    @property
    def grid(self) -> tuple[int, int]:
        """Patches over time and over frequency; a rest that fills no patch is left out."""
        return self.frames // self.patch, self.bands // self.patch

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        if not all(self.grid):
            raise ValueError(
                f"a window of {self.frames} frames and {self.bands} bands holds no patch of {self.patch} by "
                f"{self.patch}: lengthen window_seconds, or lower patch"
            )
        return self
