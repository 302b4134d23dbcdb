"""What the training engine needs of a family: PyTorch modules, built, grouped and saved."""

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genreflow.core.documents import Frozen
from genreflow.fitting.contract import Family
from genreflow.training.settings import TrainingSettings

if TYPE_CHECKING:
    import torch
    from torch import nn


class ModuleFamily(Family):
    """A family whose model is a module, trained by gradient descent.

    A module made by such a family has `forward(inputs, labels=None, class_weights=None)` and returns a
    `transformers.modeling_outputs.SequenceClassifierOutput` with `loss` (scalar, None without labels) and
    `logits` (batch, genres) float. `inputs` is what extraction stored: raw ones (stage `inputs`) or
    the output of the frozen part; a module made with `stage="inputs"` takes raw representations.
    """

    training_type: ClassVar[type[Frozen]] = TrainingSettings

    @abstractmethod
    def build(self, settings: Any, genres: tuple[str, ...], stage: str, seed: int) -> "nn.Module":
        """A module ready to train on rows of `stage`; weights from the backbone or else from `seed`."""

    def fit_inputs(self, module: "nn.Module", batches: "Iterable[torch.Tensor]") -> None:
        """Set what the module derives from its training rows before training (input statistics).

        `batches` yields all training rows once, (batch, *window shape) in the stored dtype.
        """

    @abstractmethod
    def parameter_groups(self, module: "nn.Module", settings: Any, training: Any) -> list[dict[str, Any]]:
        """Optimiser groups (`params`, `lr`, `weight_decay`) over the trainable parameters.

        What lies under the module's `head` is what `training.probe_epochs` trains alone.
        """

    @abstractmethod
    def save(self, module: "nn.Module", folder: Path) -> None:
        """Write the whole model's native files, frozen part included: safetensors, JSON, no pickle."""

    @abstractmethod
    def load_module(self, folder: Path, settings: Any, genres: tuple[str, ...]) -> "nn.Module":
        """The whole model from `save`'s files, in eval mode, on raw representations (stage `inputs`).

        Raises:
            ModelError: files are missing or do not fit.
        """


def cross_entropy(
    logits: "torch.Tensor",
    labels: "torch.Tensor | None",
    class_weights: "torch.Tensor | None" = None,
) -> "torch.Tensor | None":
    """Mean cross-entropy in float32; None without labels: (batch,) ids or (batch, genres) shares."""
    if labels is None:
        return None
    from torch.nn import functional

    return functional.cross_entropy(logits.float(), labels, weight=class_weights)
