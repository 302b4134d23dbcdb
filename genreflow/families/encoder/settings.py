"""The settings of the encoder family: what `--set model.…` reaches."""

from typing import Annotated, Literal

from pydantic import Field

from genreflow.backbones.transformers.settings import BackboneSettings
from genreflow.fitting.contract import FamilySettings

Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Steps = Annotated[int, Field(ge=1)]


class EncoderSettings(BackboneSettings, FamilySettings):
    """A pretrained encoder with a classification head.

    The defaults are transformers' own classifier on DistilHuBERT with its convolutional front end frozen: the
    Hugging Face audio course's recipe on windows of ten seconds.
    """

    method: Literal["probe", "fine_tune", "probe_then_fine_tune"] = "fine_tune"
    """`probe` trains only the head, on hidden states that extraction computes and pools once."""
    freeze_front_end: bool = True
    """The convolutions before the transformer of HuBERT, wav2vec2 and WavLM stay as they are; extraction
    computes their output once."""
    frozen_layers: Annotated[int, Field(ge=0)] = 0
    """So many of the lowest transformer layers, with what lies below them, stay as they are. Every step
    computes them, since dropout, masking and layerdrop go on there: only the front end's output is cached."""

    combine: Literal["weighted", "concatenated"] = "weighted"
    """Several hidden states: one learned weight each, or side by side, more for a linear head to go by."""
    standardise: bool = False
    """Pooled states to zero mean and unit variance over the training rows: for probes."""
    projection: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto"
    """Width of a linear layer before the classifier; `auto` is the architecture's own, None goes without."""
    dropout: Probability = 0.0
    """Before the classifier."""

    mask_time_prob: Probability | None = None
    """SpecAugment in training: share of frames in masked spans; None uses the backbone's own."""
    mask_time_length: Steps | None = None
    """Frames of a masked span."""
    mask_feature_prob: Probability | None = None
    """The same over features: of Whisper and AST, a spectrogram's bands."""
    mask_feature_length: Steps | None = None
    """Features of a masked span."""
