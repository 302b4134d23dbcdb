"""The training settings of torch families."""

from typing import Literal

from pydantic import Field

from genreflow.core.documents import Frozen
from genreflow.training.checkpoint_uri import CheckpointUri


class TrainingSettings(Frozen):
    """How a torch model is trained (what `--set training.…` reaches)."""

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
    checkpoint_uri: CheckpointUri = None
    """Folder (path or file://) under which checkpoints lie, or s3://BUCKET/PREFIX, to which they are mirrored
    from the state folder's `checkpoints`; those alone where None."""
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    """A checkpoint is written at the end of an epoch when this long has passed since the last, in the middle
    of one after ten times as long (never, where 0), and on SIGTERM."""
    resume: bool = True
    """Go on from the last checkpoint of the same inputs, where there is one."""
