"""The head that makes logits of an encoder's hidden states.

Published beside models whose head transformers does not have (`export.py`), where it runs without genreflow:
it imports torch and `pooling`
alone, and reads settings by their names.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from genreflow.backbones.transformers.pooling import VARIANCE_FLOOR, chosen_layers, pool_states


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

    def __init__(self, config: Any, summary_tokens: int, settings: Any, genres: int) -> None:
        """A new head.

        Args:
            config: the encoder's transformers configuration.
            summary_tokens: before the frames that sum the window up (AST's two).
            settings: the fields of `EncoderSettings` for the head.
        """
        super().__init__()
        self.settings = settings
        self.summary_tokens = summary_tokens
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
        if own_ast_head(summary_tokens, settings):
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
        return pool_states(states, self.settings, self.summary_tokens)

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


def own_ast_head(summary_tokens: int, settings: Any) -> bool:
    """Whether the head is that of transformers' `ASTForAudioClassification`."""
    return (
        bool(summary_tokens)
        and settings.layers == "last"
        and settings.pooling == "mean"
        and not isinstance(settings.projection, int)
    )


def of_window(logits: torch.Tensor) -> torch.Tensor:
    """Logits (batch, segments, genres) to (batch, genres): of several segments, the mean log-probability."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return functional.log_softmax(logits, dim=-1).mean(dim=1)
