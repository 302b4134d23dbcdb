"""Training settings: the engine's defaults, changed by the family, changed by the user; and who is told."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from genreflow import objects
from genreflow.artifacts import Frozen
from genreflow.errors import ObjectStoreError, SettingsError
from genreflow.families.base import Family

OnLog = Callable[[int, dict[str, float]], None]
"""Called with the optimiser step and the figures of a point of the curves."""


class TrainingSettings(Frozen):
    """How a model learns (what `--set training.…` reaches)."""

    epochs: int = Field(default=10, ge=1)
    """Passes over all training rows with everything trained; fewer where early stopping ends it."""
    probe_epochs: int = Field(default=0, ge=0)
    """Passes before those in which only the head is trained (Kumar et al. 2022, LP-FT)."""
    batch_size: int = Field(default=8, ge=1)
    """Windows a step of all processes together, times `gradient_accumulation`."""
    gradient_accumulation: int = Field(default=1, ge=1)
    """Batches whose gradients are added up for one step."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """`adamw` takes weight decay apart from the gradient, `adam` adds it to it."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """The highest of the schedule."""
    head_learning_rate: float | None = Field(default=None, gt=0)
    """Of the new layers; `learning_rate` where None."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor on the learning rate from each layer to the one below."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of the weights; an encoder's biases and norms have none."""
    max_gradient_norm: float = Field(default=1.0, ge=0)
    """Gradients are clipped to this norm; 0 leaves them."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls to zero after the warm-up; `constant` does not fall."""
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of all steps in which the learning rate rises from zero."""
    patience: int = Field(default=5, ge=0)
    """Epochs without a better validation result before training ends; 0 never ends it early."""
    class_weights: bool = False
    """Weigh genres by the inverse of their number of training clips."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each label that is spread over all genres."""
    mixup: float = Field(default=0.0, ge=0)
    """α of the Beta distribution that pairs of rows are mixed with (Zhang et al. 2018); 0 mixes none."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 autocast where the processor has it (CUDA, AVX-512 bf16, AMX), else fp32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `resources.device` where that alone is set."""
    threads: int | None = Field(default=None, ge=1)
    """Of PyTorch inside one operation on the CPU; all cores where None. 1 suits a model whose operations take
    less than a millisecond."""
    seed: int = Field(default=42, ge=0)
    """Of new weights, the order of rows, dropout and mixup."""
    checkpoint_uri: str | None = None
    """Folder (path or file://) under which checkpoints lie, or s3://BUCKET/PREFIX, to which they are mirrored
    from the state folder's `checkpoints`; those alone where None."""
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    """A checkpoint is written at the end of an epoch when this long has passed since the last."""
    resume: bool = True
    """Go on from the last checkpoint of the same inputs, where there is one."""

    @field_validator("checkpoint_uri")
    @classmethod
    def _is_a_place(cls, uri: str | None) -> str | None:
        scheme, mark, _ = (uri or "").partition("://")
        if mark and scheme not in ("file", "s3"):
            raise ValueError("checkpoints go to a folder, file:// or s3://BUCKET/PREFIX")
        if scheme == "s3" and mark:
            try:
                objects.parts(uri or "")
            except ObjectStoreError as error:
                raise ValueError(str(error)) from error
        return uri


def training_settings(
    family: Family | str, family_settings: Any, given: Mapping[str, Any]
) -> TrainingSettings:
    """The engine's defaults, changed by the family's, changed by what is given.

    Raises:
        SettingsError: a key does not exist (the nearest is named) or a value does not fit.
    """
    if isinstance(family, str):
        from genreflow.families import family as family_named

        family = family_named(family)
    known = TrainingSettings.model_fields
    for key in given:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)
            raise SettingsError(f"There is no training setting {key!r}; the nearest is {nearest[0]!r}.")
    try:
        return TrainingSettings.model_validate({**family.training_defaults(family_settings), **given})
    except ValidationError as error:
        problems = "; ".join(
            f"training.{'.'.join(map(str, problem['loc']))} = {problem['input']!r}: {problem['msg']}"
            for problem in error.errors()
        )
        raise SettingsError(f"Training settings do not fit: {problems}.") from error
