"""From an encoder's hidden states to pooled embeddings of a window.

Published beside models whose head transformers does not have: it imports torch alone, and reads settings by
their names.
"""

import itertools
from typing import Any

import torch
from torch import nn
from torch.nn import functional

VARIANCE_FLOOR = 1e-8


class PooledEncoder(nn.Module):
    """An encoder with its hidden states pooled.

    Args:
        encoder: a transformers `PreTrainedModel`.
        settings: as `BackboneSettings` describes them.
        summary_tokens: before the frames that sum the window up (AST's two).
    """

    def __init__(self, encoder: Any, settings: Any, summary_tokens: int) -> None:
        super().__init__()
        self.encoder, self.settings, self.summary_tokens = encoder, settings, summary_tokens

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs (batch, *input shape) to float32 (batch, segments, states, pooled width)."""
        outputs = self.encoder(inputs, output_hidden_states=self.settings.layers != "last")
        states = [state.float() for state in states_of(outputs, self.settings)]
        return pool_states(states, self.settings, self.summary_tokens)


def chosen_layers(settings: Any, layers: int) -> list[int]:
    """Numbers of the hidden states that are pooled, of an encoder with so many transformer layers."""
    if settings.layers == "last":
        return [layers]
    if settings.layers == "weighted":
        return list(range(layers + 1))
    if settings.layers == "inner":
        return list(range(1, layers)) or [layers]
    return list(settings.layers)


def states_of(outputs: Any, settings: Any) -> list[torch.Tensor]:
    """Of an encoder's outputs the hidden states that are pooled, each (batch, frames, width)."""
    if settings.layers == "last":
        states = [outputs.last_hidden_state]
    else:
        numbers = chosen_layers(settings, len(outputs.hidden_states) - 1)
        states = [outputs.hidden_states[number] for number in numbers]
    if settings.normalise_layers:
        states = [functional.layer_norm(state, state.shape[-1:]) for state in states]
    return states


def pool_states(states: list[torch.Tensor], settings: Any, summary_tokens: int) -> torch.Tensor:
    """Hidden states, each (batch, frames, width), to (batch, segments, states, pooled width).

    Args:
        settings: with `pooling` and `segments`, as `BackboneSettings` describes them.
        summary_tokens: before the frames that sum the window up (AST's two).
    """
    if settings.pooling == "mean" and summary_tokens:
        states = [state[:, :summary_tokens] for state in states]
    frames, segments = states[0].shape[1], settings.segments
    bounds = [frames * segment // segments for segment in range(segments + 1)]
    rows = [
        torch.stack([_pool(state[:, begin:end], settings.pooling) for state in states], dim=1)
        for begin, end in itertools.pairwise(bounds)
    ]
    return torch.stack(rows, dim=1)


def _pool(frames: torch.Tensor, pooling: str) -> torch.Tensor:
    if pooling == "mean":
        return frames.mean(dim=1)
    deviation = (frames.var(dim=1, unbiased=False) + VARIANCE_FLOOR).sqrt()
    return torch.cat((frames.mean(dim=1), deviation), dim=-1)
