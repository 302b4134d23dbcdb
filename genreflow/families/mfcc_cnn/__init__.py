"""The `mfcc_cnn` family: a small convolutional network over five-channel feature maps of three seconds."""

from typing import TYPE_CHECKING, Any, ClassVar

from genreflow.core.documents import InputSpec, Representation
from genreflow.core.errors import SettingsError
from genreflow.families.mfcc_cnn.settings import MfccCnnSettings
from genreflow.features.five_channel import SAMPLE_RATE, WINDOW_SECONDS
from genreflow.fitting.contract import FamilySettings, FitContext, FitResult
from genreflow.training.family import ScratchFamily

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch import nn

__all__ = ["FAMILY", "MfccCnn", "MfccCnnSettings"]

SMALLEST_DEVIATION = 1e-6
"""Of a row that never changes only rounding is left."""


class MfccCnn(ScratchFamily):
    """Trained from scratch on feature maps of three seconds; a clip's is their mean."""

    name: ClassVar[str] = "mfcc_cnn"
    title: ClassVar[str] = "a small convolutional network on five-channel feature maps, from scratch"
    settings_type: ClassVar[type[FamilySettings]] = MfccCnnSettings
    architecture: ClassVar[str] = "mfcc_cnn/1"

    def representation(self, settings: MfccCnnSettings) -> Representation:
        spec = InputSpec(
            sample_rate=SAMPLE_RATE,
            window_seconds=WINDOW_SECONDS,
            hop_seconds=settings.hop_seconds,
            extend="repeat",
            representation="mfcc_five_channel",
        )
        return Representation(kind="none", input_spec=spec)

    def training_defaults(self, settings: MfccCnnSettings) -> dict[str, Any]:
        return {
            "epochs": 60,
            "batch_size": 32,
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "weight_decay": 1e-4,
            "schedule": "cosine",
            "warmup_fraction": 0.0,
            "patience": 15,
        }

    def fit(self, context: FitContext) -> FitResult:
        """As `TorchFamily.fit`.

        Raises:
            SettingsError: the batch is one window a process, over which nothing can be normalised.
            TrainingError: the loss is no longer a number.
        """
        from genreflow.training import launch

        processes = launch.processes_wanted(context.training.device)
        if context.training.batch_size <= processes:
            raise SettingsError(
                f"{self.name} normalises over the windows of a batch: training.batch_size is at least "
                f"{2 * processes}, not {context.training.batch_size}."
            )
        return super().fit(context)

    def network(self, genres: int, settings: MfccCnnSettings) -> "nn.Module":
        from genreflow.families.mfcc_cnn.network import Network

        return Network(genres, settings)

    def fit_inputs(self, module: "nn.Module", batches: "Iterable[torch.Tensor]") -> None:
        """Mean and deviation of each channel's rows over all training windows."""
        from genreflow.families.mfcc_cnn.network import Network
        from genreflow.training.statistics import mean_and_deviation

        assert isinstance(module, Network)
        mean, deviation = mean_and_deviation(batches, (0, 3), SMALLEST_DEVIATION)
        module.mean.copy_(mean[0])
        module.deviation.copy_(deviation[0])

    def parameter_groups(
        self, module: "nn.Module", settings: MfccCnnSettings, training: Any
    ) -> list[dict[str, Any]]:
        from genreflow.families.mfcc_cnn.network import Network

        assert isinstance(module, Network)
        decay = training.weight_decay
        head_rate = training.head_learning_rate or training.learning_rate
        return [
            {
                "params": list(module.body.parameters()),
                "lr": training.learning_rate,
                "weight_decay": decay,
            },
            {
                "params": list(module.head.parameters()),
                "lr": head_rate,
                "weight_decay": decay,
            },
        ]


FAMILY = MfccCnn()
