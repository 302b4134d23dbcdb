"""Attention with dropout on a processor, a few windows at a time.

With dropout, PyTorch's attention on a CPU writes every intermediate of all windows and heads to memory, 24
million numbers each for eight windows of ten seconds: a third of a fine-tuning step. As many windows at a
time as a core's cache holds: the same attention takes half the time in float32, a third in bfloat16.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

LEVELS = 1 << 16
"""Steps in which the fast mask's probability is exact."""
WEIGHTS_AT_A_TIME = 1 << 17
"""Attention weights that stay in a core's cache with what is computed from them."""


@contextmanager
def windowed_attention() -> Iterator[None]:
    """transformers' `sdpa` attention is this one where it can be: on a CPU, unmasked, with dropout."""
    AttentionInterface.register("sdpa", attend)
    try:
        yield
    finally:
        AttentionInterface.register("sdpa", sdpa_attention_forward)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A function for transformers: (batch, heads, frames, width) to (batch, frames, heads, width)."""
    plain = (
        dropout > 0
        and attention_mask is None
        and query.device.type == "cpu"
        and query.shape == key.shape == value.shape
        and not (others.get("is_causal") or getattr(module, "is_causal", False))
        and others.get("position_bias") is None
    )
    if not plain:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return Attention.apply(query, key, value, scale, dropout).transpose(1, 2).contiguous(), None


def _kept(shape: torch.Size, dropout: float, dtype: torch.dtype) -> torch.Tensor:
    """Which attention weights stay.

    In float32 drawn as PyTorch draws them, so that one seed gives the losses that it gives elsewhere; in
    bfloat16 by sixteen random bits a weight, which takes a fraction of the time.
    """
    if dtype != torch.bfloat16:
        return torch.empty(shape, dtype=dtype).bernoulli_(1 - dropout).bool()
    draws = torch.empty((shape.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    bits = draws.view(torch.int16)[: shape.numel()].view(shape)
    return bits >= round(dropout * LEVELS) - LEVELS // 2


def _groups(shape: torch.Size) -> list[slice]:
    """Consecutive windows of a batch, of which at least one is taken at a time."""
    batch, heads, frames, _ = shape
    windows = max(1, WEIGHTS_AT_A_TIME // (heads * frames * frames))
    return [slice(first, first + windows) for first in range(0, batch, windows)]


class Attention(torch.autograd.Function):
    """Softmax attention with dropout on the weights, one group of windows after the other."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, dropout: float
    ) -> torch.Tensor:
        batch, heads, frames, _ = query.shape
        kept = _kept(torch.Size((batch, heads, frames, frames)), dropout, query.dtype)
        out = torch.empty(query.shape, dtype=query.dtype)
        weights = []
        with torch.autocast("cpu", enabled=False):
            for group in _groups(query.shape):
                scores = (query[group] * scale) @ key[group].transpose(2, 3)
                weights.append(torch.softmax(scores, dim=-1))
                out[group] = (weights[-1] * kept[group]) @ value[group]
            ctx.save_for_backward(query, key, value, kept, *weights)
            ctx.scale, ctx.factor = scale, 1 / (1 - dropout)
            return out.mul_(ctx.factor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, kept, *weights = ctx.saved_tensors
        gradient = gradients[0] * ctx.factor
        to_query, to_key, to_value = (torch.empty(query.shape, dtype=query.dtype) for _ in range(3))
        with torch.autocast("cpu", enabled=False):
            for group, weight in zip(_groups(query.shape), weights, strict=True):
                above = gradient[group]
                to_value[group] = (weight * kept[group]).transpose(2, 3) @ above
                to_weight = (above @ value[group].transpose(2, 3)).mul_(kept[group])
                # private (PyTorch 2.13); with public operations this line takes 1.6 times as long
                to_score = torch._softmax_backward_data(to_weight, weight, -1, weight.dtype)
                to_query[group] = to_score @ key[group]
                to_key[group] = to_score.transpose(2, 3) @ query[group]
        return to_query.mul_(ctx.scale), to_key.mul_(ctx.scale), to_value, None, None
