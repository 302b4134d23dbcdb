"""What every model family offers to extraction, training, packaging and the PyTorch runtime."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genreflow.artifacts import Frozen, Hearing, ModelDocument

if TYPE_CHECKING:
    import torch
    from torch import nn


TransformersForm = Literal["stock", "own_code"]
"""Whether transformers loads a model with its own code, or with code beside it that has to be trusted."""


class FamilySettings(Frozen):
    """A family's own settings (what `--set model.…` reaches), all with defaults."""

    views: int = Field(default=0, ge=0)
    """Augmented copies of each training clip made once in extraction, besides the clean one."""


@dataclass(frozen=True)
class FrozenPart:
    """The part of a model that training does not change, computed once a window in `extract_features`."""

    stage: str
    dtype: Literal["float32", "float16", "bfloat16"]
    compute: Callable[[NDArray[np.float32]], NDArray[Any]]
    """(batch, *input shape) float32 → (batch, *window shape); bfloat16 as uint16 bit patterns."""


class Family(ABC):
    """One kind of model. Stateless: settings come in with every call.

    A module made by a family takes `forward(inputs, labels=None, class_weights=None)` and returns a
    `transformers.modeling_outputs.SequenceClassifierOutput` with `loss` (scalar, None without labels) and
    `logits` (batch, genres) float. `inputs` is what extraction stored: raw ones (stage `inputs`) or
    the output of the frozen part; a module made with `stage="inputs"` takes raw representations.
    """

    name: ClassVar[str]
    settings_type: ClassVar[type[FamilySettings]]

    @abstractmethod
    def hearing(self, settings: Any) -> Hearing:
        """How this model hears; reads the backbone's configuration where there is one (no weights)."""

    @abstractmethod
    def training_defaults(self, settings: Any) -> dict[str, Any]:
        """What this family wants changed from `TrainingSettings`' own defaults."""

    @abstractmethod
    def frozen_part(self, settings: Any, device: str) -> FrozenPart | None:
        """The frozen, expensive part on `cpu` or `cuda`; None where rows are the plain representation."""

    @abstractmethod
    def build(self, settings: Any, genres: tuple[str, ...], stage: str, seed: int) -> "nn.Module":
        """A module ready to train on rows of `stage`; weights from the backbone or else from `seed`."""

    def fit_inputs(  # noqa: B027 — most families need nothing here
        self, module: "nn.Module", batches: "Iterable[torch.Tensor]"
    ) -> None:
        """Set what the module takes from its training rows before it learns (input statistics); here nothing.

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
    def load(self, folder: Path, settings: Any, genres: tuple[str, ...]) -> "nn.Module":
        """The whole model from `save`'s files, in eval mode, taking raw representations (stage `inputs`).

        Raises:
            ModelError: files are missing or do not fit.
        """

    def export_transformers(self, model: Path, document: ModelDocument, out: Path) -> TransformersForm | None:
        """Write what `transformers.pipeline("audio-classification")` loads; None where there is no such form.

        Its answer for one window is the classifier's, temperature included.

        Args:
            model: a folder with `save`'s files.
        """
        return None

    def pretrained(self, settings: Any) -> str | None:
        """The backbone it begins from; None from scratch."""
        return None

    def backbone(self, settings: Any) -> str | None:
        """What identifies the content behind that name: other weights, another text. None from scratch."""
        return None


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
