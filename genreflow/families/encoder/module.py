"""The network: an encoder in transformers' own code, and the head that makes logits of its states."""

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import SequenceClassifierOutput

from genreflow.families.base import cross_entropy
from genreflow.families.encoder.settings import EncoderSettings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from genreflow.families.encoder.backbone import Architecture

VARIANCE_FLOOR = 1e-8
MASK_LENGTH = 10
FIT_EVERY = 8


class CachedFrontEnd(nn.Module):
    """Stands where the convolutions were: keeps their weights under their names, hands their output on."""

    def __init__(self, front_end: nn.Module) -> None:
        super().__init__()
        self.conv_layers = front_end.conv_layers

    def forward(self, cached: torch.Tensor) -> torch.Tensor:
        """(batch, frames, channels) as cached, to (batch, channels, frames) as the convolutions give it."""
        return cached.transpose(1, 2)


class Standardise(nn.Module):
    """Zero mean and unit variance by the statistics of the training rows."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))

    def fit(self, batches: Iterable[torch.Tensor]) -> None:
        """Take the statistics of rows, (batch, features) each."""
        count = 0
        total, squares = torch.zeros((2, len(self.mean)), dtype=torch.float64)
        for rows in batches:
            rows = rows.detach().double().cpu()
            count += len(rows)
            total += rows.sum(dim=0)
            squares += rows.square().sum(dim=0)
        mean = total / count
        variance = (squares / count - mean**2).clamp(min=VARIANCE_FLOOR)
        self.mean.copy_(mean)
        self.deviation.copy_(variance.sqrt())

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows - self.mean) / self.deviation


class AstHead(nn.Module):
    """Layer norm and a dense layer: the head of transformers' `ASTForAudioClassification`."""

    def __init__(self, width: int, genres: int, eps: float) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(width, eps=eps)
        self.dense = nn.Linear(width, genres)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.dense(self.layernorm(pooled))


class Head(nn.Module):
    """From hidden states to logits: choose or weight layers, pool over time, project, classify."""

    def __init__(
        self,
        config: "PreTrainedConfig",
        architecture: "Architecture",
        settings: EncoderSettings,
        genres: int,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.summary_tokens = architecture.summary_tokens
        width = config.hidden_size * (2 if settings.pooling == "mean_std" else 1)
        states = len(chosen_layers(settings, config.num_hidden_layers))
        weighted = states > 1 and settings.combine == "weighted"
        self.layer_weights = nn.Parameter(torch.full((states,), 1 / states)) if weighted else None
        self.standard = Standardise(states * width) if settings.standardise else None
        projection = settings.projection
        if projection == "auto":
            projection = getattr(config, "classifier_proj_size", None)
        combined = width if weighted else states * width
        self.projector = nn.Linear(combined, projection) if projection else None
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier: nn.Module
        if own_ast_head(architecture, settings):
            self.classifier = AstHead(config.hidden_size, genres, config.layer_norm_eps)
        else:
            self.classifier = nn.Linear(projection or combined, genres)
        deviation = float(getattr(config, "initializer_range", 0) or getattr(config, "init_std", 0) or 0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=deviation)
                nn.init.zeros_(module.bias)

    def forward(self, states: list[torch.Tensor]) -> torch.Tensor:
        """Chosen hidden states, each (batch, frames, width), to logits (batch, segments, genres)."""
        settings = self.settings
        plain = settings.segments == 1 and (len(states) == 1 or settings.combine == "weighted")
        if plain and settings.pooling == "mean" and self.standard is None and not self.summary_tokens:
            # transformers' order of operations, so that losses equal its classifiers' to the last bit
            hidden = states[0]
            if self.layer_weights is not None:
                weights = functional.softmax(self.layer_weights, dim=-1)
                hidden = (torch.stack(states, dim=1) * weights.view(-1, 1, 1)).sum(dim=1)
            if self.projector is not None:
                hidden = self.projector(hidden)
            return self.classifier(self.dropout(hidden.mean(dim=1)))[:, None]
        return self.classify(self.pool(states))

    def pool(self, states: list[torch.Tensor]) -> torch.Tensor:
        """Chosen hidden states, each (batch, frames, width), to (batch, segments, states, pooled width)."""
        summarised = self.settings.pooling == "mean" and self.summary_tokens
        if summarised:
            states = [state[:, : self.summary_tokens] for state in states]
        frames, segments = states[0].shape[1], self.settings.segments
        bounds = [frames * segment // segments for segment in range(segments + 1)]
        rows = [
            torch.stack([self._pool(state[:, begin:end]) for state in states], dim=1)
            for begin, end in itertools.pairwise(bounds)
        ]
        return torch.stack(rows, dim=1)

    def _pool(self, frames: torch.Tensor) -> torch.Tensor:
        if self.settings.pooling == "mean":
            return frames.mean(dim=1)
        deviation = (frames.var(dim=1, unbiased=False) + VARIANCE_FLOOR).sqrt()
        return torch.cat((frames.mean(dim=1), deviation), dim=-1)

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        """Pooled states (batch, segments, states, pooled width) to logits (batch, segments, genres)."""
        if self.standard is not None:
            pooled = self.standard(pooled.flatten(2).flatten(0, 1)).view(pooled.shape)
        if self.layer_weights is None:
            hidden = pooled.flatten(2)
        else:
            hidden = (pooled * functional.softmax(self.layer_weights, dim=-1).view(-1, 1)).sum(dim=2)
        if self.projector is not None:
            hidden = self.projector(hidden)
        return self.classifier(self.dropout(hidden))


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
        if segments == 1:
            logits = logits[:, 0]
            return SequenceClassifierOutput(loss=cross_entropy(logits, labels, class_weights), logits=logits)
        every = None if labels is None else labels.repeat_interleave(segments, dim=0)
        loss = cross_entropy(logits.flatten(0, 1), every, class_weights)
        return SequenceClassifierOutput(loss=loss, logits=functional.log_softmax(logits, dim=-1).mean(dim=1))

    @property
    def head_dtype(self) -> torch.dtype:
        return next(self.head.parameters()).dtype

    def states(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """The hidden states that the head hears, each (batch, frames, width)."""
        if self.training and self.architecture.representation != "waveform":
            inputs = self._mask(inputs)
        last = self.settings.layers == "last"
        outputs = self.encoder(inputs, output_hidden_states=not last)
        if last:
            states = [outputs.last_hidden_state]
        else:
            numbers = chosen_layers(self.settings, len(outputs.hidden_states) - 1)
            states = [outputs.hidden_states[number] for number in numbers]
        if self.settings.normalise_layers:
            states = [functional.layer_norm(state, state.shape[-1:]) for state in states]
        return states

    def fit(self, batches: Iterable[torch.Tensor]) -> None:
        """Set the head's standardisation by rows of this stage.

        Where rows still have to go through the encoder, one in eight speaks for all.
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


def chosen_layers(settings: EncoderSettings, layers: int) -> list[int]:
    """Numbers of the hidden states that the head hears, of an encoder with so many transformer layers."""
    if settings.layers == "last":
        return [layers]
    if settings.layers == "weighted":
        return list(range(layers + 1))
    if settings.layers == "inner":
        return list(range(1, layers)) or [layers]
    return list(settings.layers)


def own_ast_head(architecture: "Architecture", settings: EncoderSettings) -> bool:
    """Whether the head is that of transformers' `ASTForAudioClassification`."""
    return (
        bool(architecture.summary_tokens)
        and settings.layers == "last"
        and settings.pooling == "mean"
        and not isinstance(settings.projection, int)
    )
