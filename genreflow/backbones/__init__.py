"""Backbones: what turns windows into embeddings or activations, apart from the heads fitted on them.

A backbone is a package here, named as `Representation.kind`, whose module `stage` has three functions: `load`
for extraction; `save` and `load_module` for models that contain the frozen stage.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genreflow.core.documents import Representation
from genreflow.core.errors import SettingsError

if TYPE_CHECKING:
    from torch import nn

KINDS: tuple[str, ...] = ("none", "transformers", "musicnn")
"""Values of `Representation.kind`."""


@dataclass(frozen=True)
class FrozenStage:
    """The part of a model that training does not change, computed once a window by extraction."""

    name: str
    dtype: str
    """`float32`, `float16` or `bfloat16`."""
    compute: Callable[[NDArray[np.float32]], NDArray[Any]]
    """(batch, *input shape) float32 → (batch, *window shape); bfloat16 as uint16 bit patterns."""


def load_stage(representation: Representation, device: str) -> FrozenStage:
    """The frozen stage of a representation on `cpu` or `cuda`; where there is none, the inputs themselves.

    Raises:
        ModelError: its weights cannot be loaded.
        SettingsError: there is no such kind of backbone.
    """
    if representation.stage == "inputs":
        dtype = np.dtype(representation.dtype)
        return FrozenStage("inputs", representation.dtype, lambda rows: rows.astype(dtype, copy=False))
    found: FrozenStage = _stage(representation.kind).load(representation, device)
    return found


def save_stage(representation: Representation, folder: Path) -> None:
    """Write the weights of a frozen stage into `folder`, for `load_module`: safetensors and JSON.

    Raises:
        ModelError: its weights cannot be loaded.
    """
    _stage(representation.kind).save(representation, folder)


def load_module(kind: str, parameters: dict[str, Any], folder: Path) -> "nn.Module":
    """The frozen stage in `folder` as a torch module: (batch, *input shape) float32 → (batch, *window shape).

    Args:
        kind: one of `KINDS` with weights.
        parameters: those of the representation.
        folder: what `save_stage` wrote.

    Raises:
        ModelError: files are missing or do not fit.
    """
    module: nn.Module = _stage(kind).load_module(parameters, folder)
    return module


def _stage(kind: str) -> ModuleType:
    if kind in KINDS[1:]:
        return importlib.import_module(f"{__name__}.{kind}.stage")
    raise SettingsError(f"There is no kind of backbone {kind!r}; there are {', '.join(KINDS)}.")
