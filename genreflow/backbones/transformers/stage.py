"""The frozen stages of a Hugging Face encoder: its convolutional front end, or its pooled hidden states."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genreflow.backbones import FrozenStage
from genreflow.backbones.transformers import checkpoint
from genreflow.backbones.transformers.settings import BackboneSettings
from genreflow.core.documents import Representation
from genreflow.core.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

WINDOWS_AT_A_TIME = 4
"""On a CPU: HuBERT's first convolution holds 65 MB a window of ten seconds; eight at a time take 650 MB more
and 4 % less time."""
STAGE_SETTINGS = {
    "front_end": ("window_seconds",),
    "pooled": ("window_seconds", "layers", "normalise_layers", "pooling", "segments"),
}
"""The settings that decide what a stage computes, beside the weights."""


def represent(settings: BackboneSettings, stage: str) -> Representation:
    """The canonical representation of a stage under these settings.

    Args:
        stage: `inputs`, `front_end` or `pooled`.

    Raises:
        ModelError, SettingsError: the backbone cannot be read, or does not fit the settings.
    """
    from genreflow.backbones.transformers.input_spec import input_spec_of

    described = checkpoint.describe(settings)
    spec = input_spec_of(described, settings)
    half = settings.cache_precision == "half"
    if stage == "inputs":
        spectrogram = spec.representation != "waveform"
        dtype = "float16" if spectrogram and half else "float32"
        return Representation(kind="none", input_spec=spec, stage=stage, dtype=dtype)
    parameters = settings.model_dump(mode="json", include=set(STAGE_SETTINGS[stage]))
    if described.commit is not None:
        parameters["revision"] = described.commit
    if described.source is None:
        parameters["from_scratch"] = checkpoint.front_end_configuration(settings)
    return Representation(
        kind="transformers",
        input_spec=spec,
        stage=stage,
        dtype="bfloat16" if stage == "front_end" and half else "float32",
        backbone=described.source,
        digest=checkpoint.identity(described),
        parameters=parameters,
    )


def load(representation: Representation, device: str) -> FrozenStage:
    """See `genreflow.backbones.load_stage`.

    Raises:
        ModelError: the weights behind the backbone's name are no longer the ones that were resolved.
    """
    described, settings = _resolved(representation)
    make = _front_end if representation.stage == "front_end" else _pooled
    return make(described, settings, representation, device)


def save(representation: Representation, folder: Path) -> None:
    """Write the encoder of a pooled stage in Hugging Face's layout. See `genreflow.backbones.save_stage`."""
    described, settings = _resolved(representation)
    encoder = checkpoint.load_encoder(described, settings, ("any",), seed=0)
    checkpoint.save_encoder(encoder, described, folder)


def load_module(parameters: dict[str, Any], folder: Path) -> "nn.Module":
    """The encoder of a pooled stage with its pooling. See `genreflow.backbones.load_module`."""
    from genreflow.backbones.transformers.pooling import PooledEncoder

    settings = BackboneSettings.model_validate(parameters)
    described = checkpoint.describe_checkpoint(folder)
    encoder = checkpoint.read_encoder(described, folder)
    return PooledEncoder(encoder, settings, described.architecture.summary_tokens).eval()


def _resolved(representation: Representation) -> tuple[checkpoint.Backbone, BackboneSettings]:
    """The backbone of a representation, checked to be the one that was resolved."""
    parameters = dict(representation.parameters)
    scratch = parameters.pop("from_scratch", None)
    if scratch is not None:
        settings = BackboneSettings.model_validate(parameters | scratch)
    else:
        settings = BackboneSettings.model_validate(parameters | {"backbone": representation.backbone})
    described = checkpoint.describe(settings)
    if checkpoint.identity(described) != representation.digest:
        raise ModelError(
            f"The backbone {representation.backbone} has changed since it was resolved: run again."
        )
    return described, settings


def _front_end(
    described: checkpoint.Backbone, settings: BackboneSettings, representation: Representation, device: str
) -> FrozenStage:
    import torch

    place = torch.device(device)
    if described.source is None:
        front_end = checkpoint.scratch_front_end(settings)
    else:
        front_end = checkpoint.load_encoder(described, settings, ("any",), seed=0).feature_extractor
    front_end = front_end.to(place).eval()
    half = representation.dtype == "bfloat16"

    def compute(rows: NDArray[np.float32]) -> NDArray[Any]:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=place.type == "cuda"):
            frames = torch.cat(
                [front_end(part.to(place)).transpose(1, 2).cpu() for part in _parts(rows, place)]
            )
        if half:
            return frames.to(torch.bfloat16).contiguous().view(torch.int16).numpy().view(np.uint16)
        return frames.float().contiguous().numpy()

    return FrozenStage("front_end", representation.dtype, compute)


def _pooled(
    described: checkpoint.Backbone, settings: BackboneSettings, representation: Representation, device: str
) -> FrozenStage:
    import torch

    from genreflow.backbones.transformers.pooling import PooledEncoder

    place = torch.device(device)
    encoder = checkpoint.load_encoder(described, settings, ("any",), seed=0)
    module = PooledEncoder(encoder, settings, described.architecture.summary_tokens).to(place).eval()

    def compute(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=place.type == "cuda"):
            return torch.cat([module(part.to(place)).cpu() for part in _parts(rows, place)]).numpy()

    return FrozenStage("pooled", "float32", compute)


def _parts(rows: NDArray[np.float32], device: "torch.device") -> "tuple[torch.Tensor, ...]":
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(rows))
    return torch.split(tensor, WINDOWS_AT_A_TIME if device.type == "cpu" else len(tensor))
