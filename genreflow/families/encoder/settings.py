"""The settings of the encoder family: what `--set model.…` reaches."""

from typing import Annotated, Any, Literal

from pydantic import Field

from genreflow.families.base import FamilySettings

Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Steps = Annotated[int, Field(ge=1)]


class EncoderSettings(FamilySettings):
    """A pretrained encoder with a classification head.

    The defaults are transformers' own classifier on DistilHuBERT with its convolutional front end frozen: the
    Hugging Face audio course's recipe on windows of ten seconds.
    """

    backbone: str = "ntu-spml/distilhubert"
    """A Hugging Face hub id or a folder of that layout: HuBERT, wav2vec2, WavLM, Whisper or AST."""
    from_scratch: dict[str, Any] | None = None
    """A configuration to train from scratch, in place of a backbone; `model_type` is hubert by default."""
    mel_front_end: bool = False
    """From scratch: the convolutional front end is set to a computed mel filterbank."""
    normalise: bool | None = None
    """Zero mean, unit variance for every window of waveform; None does as the backbone's extractor says."""
    window_seconds: Annotated[float, Field(gt=0.0)] | None = None
    """None is 10 s for waveforms, and what Whisper (30 s) and AST (10.24 s) were trained on."""
    hop_seconds: Annotated[float, Field(gt=0.0)] | None = None
    """From one window to the next; None is the window's length."""

    method: Literal["probe", "fine_tune", "probe_then_fine_tune"] = "fine_tune"
    """`probe` trains only the head, on hidden states that extraction computes and pools once."""
    freeze_front_end: bool = True
    """The convolutions before the transformer of HuBERT, wav2vec2 and WavLM stay as they are; extraction
    computes their output once."""
    frozen_layers: Annotated[int, Field(ge=0)] = 0
    """So many of the lowest transformer layers, with what lies below them, stay as they are. Every step
    computes them, since dropout, masking and layerdrop go on there: only the front end's output is cached."""

    layers: Literal["last", "weighted", "inner"] | tuple[int, ...] = "last"
    """The hidden states that the head hears: the last; all (`weighted`); all between the first layer's input
    and the last, which serves the encoder's own task more than music (`inner`); or those of these numbers (0
    is the input of the first transformer layer)."""
    combine: Literal["weighted", "concatenated"] = "weighted"
    """Several hidden states: one learned weight each, or side by side, more for a linear head to go by."""
    normalise_layers: bool = False
    """Layer norm, without parameters, of every hidden state before weighting: they differ in scale."""
    pooling: Literal["mean", "mean_std"] = "mean"
    """Over the frames of a window. AST's `mean` is that of its two summary tokens, as it was trained."""
    segments: Annotated[int, Field(ge=1)] = 1
    """So many equal stretches of a window are pooled and classified on their own; the window's logits are the
    mean of their log-probabilities. Makes more of few clips where windows are long (Whisper's 30 s)."""
    standardise: bool = False
    """Pooled states to zero mean and unit variance over the training rows: for probes."""
    projection: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto"
    """Width of a linear layer before the classifier; `auto` is the architecture's own, None goes without."""
    dropout: Probability = 0.0
    """Before the classifier."""

    mask_time_prob: Probability | None = None
    """SpecAugment in training: share of frames in masked spans; None does as the backbone's own says."""
    mask_time_length: Steps | None = None
    """Frames of a masked span."""
    mask_feature_prob: Probability | None = None
    """The same over features: of Whisper and AST, a spectrogram's bands."""
    mask_feature_length: Steps | None = None
    """Features of a masked span."""

    cache_precision: Literal["half", "float32"] = "half"
    """How extraction stores rows: bfloat16 for hidden activations, float16 for spectrograms; or float32."""
