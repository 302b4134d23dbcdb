"""The settings of `mfcc_cnn`."""

from pydantic import Field

from genreflow.features.five_channel import WINDOW_SECONDS
from genreflow.fitting.contract import FamilySettings


class MfccCnnSettings(FamilySettings):
    """Settings of `mfcc_cnn`."""

    hop_seconds: float = Field(default=WINDOW_SECONDS, gt=0)
    """From one window of three seconds to the next."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """After each convolutional block and before the last layer."""
    noise: float = Field(default=0.0, ge=0)
    """Standard deviation of Gaussian noise on the standardised feature map, in training."""
    time_mask: int = Field(default=0, ge=0)
    """Frames (of 130) of the one time mask of each feature map at most, in training."""
