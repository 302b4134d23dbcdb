"""The settings that decide what a Hugging Face encoder makes of a window."""

from typing import Annotated, Any, Literal

from pydantic import Field

from genreflow.core.documents import Frozen


class BackboneSettings(Frozen):
    """A pretrained encoder, its window, and which of its hidden states are pooled."""

    backbone: str = "ntu-spml/distilhubert"
    """A Hugging Face hub id or a folder of that layout: HuBERT, wav2vec2, WavLM, Whisper or AST."""
    revision: str | None = None
    """Commit, branch or tag of a hub id; the main branch where None. Its commit is looked up once and
    loaded in every step."""
    from_scratch: dict[str, Any] | None = None
    """A configuration to train from scratch, in place of a backbone; `model_type` is hubert by default."""
    mel_front_end: bool = False
    """From scratch: the convolutional front end is set to a computed mel filterbank."""
    normalise: bool | None = None
    """Zero mean, unit variance for every window of waveform; None uses the backbone's extractor setting."""
    window_seconds: Annotated[float, Field(gt=0.0)] | None = None
    """None is 10 s for waveforms, and what Whisper (30 s) and AST (10.24 s) were trained on."""
    hop_seconds: Annotated[float, Field(gt=0.0)] | None = None
    """From one window to the next; None is the window's length."""

    layers: Literal["last", "weighted", "inner"] | tuple[int, ...] = "last"
    """The hidden states that are pooled: the last; all (`weighted`); all between the first layer's input and
    the last, which serves the encoder's own task more than music (`inner`); or those of these numbers (0 is
    the input of the first transformer layer)."""
    normalise_layers: bool = False
    """Layer norm, without parameters, of every hidden state before pooling: they differ in scale."""
    pooling: Literal["mean", "mean_std"] = "mean"
    """Over the frames of a window. AST's `mean` is that of its two summary tokens, as it was trained."""
    segments: Annotated[int, Field(ge=1)] = 1
    """The number of equal segments of a window that are pooled and classified on their own; the window's
    logits are the mean of their log-probabilities. Suits few clips and long windows (Whisper's)."""

    cache_precision: Literal["half", "float32"] = "half"
    """How extraction stores rows: bfloat16 for hidden activations, float16 for spectrograms; or float32."""
