"""The network: an encoder in transformers' own code with a head, on rows of any stage."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from genreflow.backbones.transformers.pooling import states_of
from genreflow.families.encoder.head import Head, of_window
from genreflow.training.modules import cross_entropy

if TYPE_CHECKING:
    from genreflow.backbones.transformers.checkpoint import Architecture

MASK_LENGTH = 10
FIT_EVERY = 8


class CachedFrontEnd(nn.Module):
    """Replaces the convolutions: keeps their weights under their names, returns their cached output."""

    def __init__(self, front_end: nn.Module) -> None:
        super().__init__()
        self.conv_layers = front_end.conv_layers

    def forward(self, cached: torch.Tensor) -> torch.Tensor:
        """(batch, frames, channels) as cached, to (batch, channels, frames) as the convolutions give it."""
        return cached.transpose(1, 2)


class EncoderClassifier(nn.Module):
    """An encoder with a head, on rows of one stage.

    Stages: `inputs` are raw representations, `front_end` the output of the frozen convolutions (batch,
    frames, channels), `pooled` the head's own input (batch, segments, states, pooled width), for which the
    encoder is kept aside: neither moved, trained nor part of the state.
    """

    encoder: Any
    """A transformers `PreTrainedModel`."""

    def __init__(
        self,
        encoder: Any,
        head: Head,
        architecture: "Architecture",
        extractor: dict[str, Any],
        stage: str,
    ) -> None:
        super().__init__()
        self.head = head
        self.architecture = architecture
        self.extractor = extractor
        self.stage = stage
        self.settings = head.settings
        if stage == "pooled":
            object.__setattr__(self, "encoder", encoder.requires_grad_(False).eval())
        else:
            self.encoder = encoder
        if stage == "front_end":
            encoder.feature_extractor = CachedFrontEnd(encoder.feature_extractor)

    def forward(
        self,
        inputs: torch.Tensor,
        labels: torch.Tensor | None = None,
        class_weights: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        inputs = inputs.to(self.head_dtype)
        logits = self.head.classify(inputs) if self.stage == "pooled" else self.head(self.states(inputs))
        segments = logits.shape[1]
        every = labels if labels is None or segments == 1 else labels.repeat_interleave(segments, dim=0)
        loss = cross_entropy(logits.flatten(0, 1), every, class_weights)
        return SequenceClassifierOutput(loss=loss, logits=of_window(logits))

    @property
    def head_dtype(self) -> torch.dtype:
        return next(self.head.parameters()).dtype

    def states(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """The hidden states that the head gets, each (batch, frames, width)."""
        if self.training and self.architecture.representation != "waveform":
            inputs = self._mask(inputs)
        outputs = self.encoder(inputs, output_hidden_states=self.settings.layers != "last")
        return states_of(outputs, self.settings)

    def fit(self, batches: Iterable[torch.Tensor]) -> None:
        """Set the head's standardisation by rows of this stage.

        Where rows still have to go through the encoder, one in eight is taken as a sample.
        """
        if self.head.standard is None:
            return
        if self.stage == "pooled":
            self.head.standard.fit(rows.flatten(2).flatten(0, 1) for rows in batches)
            return
        training = self.training
        self.eval()
        with torch.inference_mode():
            self.head.standard.fit(
                self.head.pool(self.states(rows[::FIT_EVERY].to(self.head_dtype))).flatten(2).flatten(0, 1)
                for rows in batches
            )
        self.train(training)

    def _mask(self, spectrogram: torch.Tensor) -> torch.Tensor:
        """SpecAugment on a spectrogram, for the architectures whose encoder does not do it itself."""
        # transformers (5.23) has SpecAugment's spans in private functions alone, one copy a model.
        from transformers.models.whisper.modeling_whisper import _compute_mask_indices

        config, settings = self.encoder.config, self.settings
        masks = bool(getattr(config, "apply_spec_augment", False))
        time_axis, band_axis = (2, 1) if self.architecture.representation == "whisper_log_mel" else (1, 2)
        for axis, name in ((time_axis, "mask_time"), (band_axis, "mask_feature")):
            given = getattr(settings, f"{name}_prob")
            share = given if given is not None else (getattr(config, f"{name}_prob", 0.0) if masks else 0.0)
            if share <= 0:
                continue
            steps = spectrogram.shape[axis]
            length = getattr(settings, f"{name}_length") or getattr(config, f"{name}_length", MASK_LENGTH)
            spans = _compute_mask_indices((len(spectrogram), steps), share, min(length, steps))
            mask = torch.from_numpy(spans).to(spectrogram.device)
            spectrogram = spectrogram.masked_fill(mask[:, None, :] if axis == 2 else mask[:, :, None], 0.0)
        return spectrogram
