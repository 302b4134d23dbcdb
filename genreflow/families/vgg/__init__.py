"""The `vgg` family: a VGG-like convolutional network over the mel spectrogram of thirty seconds."""

from typing import TYPE_CHECKING, Any, ClassVar

from genreflow.core.documents import Representation
from genreflow.families.vgg.settings import VggSettings
from genreflow.fitting.contract import FamilySettings
from genreflow.training.family import ScratchFamily
from genreflow.training.mel_spectrogram import mel_representation

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FAMILY", "Vgg", "VggSettings"]


class Vgg(ScratchFamily):
    """Trained from scratch on the mel spectrogram of a whole clip."""

    name: ClassVar[str] = "vgg"
    title: ClassVar[str] = "a VGG-like convolutional network on the mel spectrogram of 30 s, from scratch"
    settings_type: ClassVar[type[FamilySettings]] = VggSettings
    architecture: ClassVar[str] = "vgg/1"

    def representation(self, settings: VggSettings) -> Representation:
        return mel_representation(settings, "repeat")

    def training_defaults(self, settings: VggSettings) -> dict[str, Any]:
        return {
            "epochs": 60,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "weight_decay": 1e-2,
            "schedule": "cosine",
            "warmup_fraction": 0.1,
            "patience": 15,
        }

    def network(self, genres: int, settings: VggSettings) -> "nn.Module":
        from genreflow.families.vgg.network import Network

        return Network(genres, settings)


FAMILY = Vgg()
