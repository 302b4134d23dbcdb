"""The `vit` family: a Vision Transformer over mel spectrograms of four seconds."""

from typing import TYPE_CHECKING, Any, ClassVar

from genreflow.core.documents import Representation
from genreflow.families.vit.settings import VitSettings
from genreflow.fitting.contract import FamilySettings
from genreflow.training.family import ScratchFamily
from genreflow.training.mel_spectrogram import mel_representation

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch import nn

__all__ = ["FAMILY", "Vit", "VitSettings"]

SMALLEST_DEVIATION = 1e-3
"""About the rounding of what is stored."""


class Vit(ScratchFamily):
    """Trained from scratch on mel spectrograms; a clip's prediction is the mean over its windows."""

    name: ClassVar[str] = "vit"
    title: ClassVar[str] = "a Vision Transformer on mel spectrograms, from scratch"
    settings_type: ClassVar[type[FamilySettings]] = VitSettings
    architecture: ClassVar[str] = "vit/1"

    def representation(self, settings: VitSettings) -> Representation:
        return mel_representation(settings, "silence")

    def training_defaults(self, settings: VitSettings) -> dict[str, Any]:
        return {
            "epochs": 150,
            "batch_size": 64,
            "learning_rate": 1e-4,
            "weight_decay": 0.1,
            "schedule": "cosine",
            "warmup_fraction": 0.05,
            "patience": 10,
        }

    def network(self, genres: int, settings: VitSettings) -> "nn.Module":
        from genreflow.families.vit.network import Network

        return Network(genres, settings)

    def fit_inputs(self, module: "nn.Module", batches: "Iterable[torch.Tensor]") -> None:
        """Mean and deviation of each band over all training windows."""
        from genreflow.families.vit.network import Network
        from genreflow.training.statistics import mean_and_deviation

        assert isinstance(module, Network)
        mean, deviation = mean_and_deviation(batches, (0, 1, 2), SMALLEST_DEVIATION)
        module.mean.copy_(mean.flatten())
        module.deviation.copy_(deviation.flatten())


FAMILY = Vit()
