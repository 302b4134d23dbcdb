"""Attention with dropout on a processor, a window at a time.

With dropout, PyTorch's attention on a CPU writes every intermediate of all windows and heads to memory, 24
million numbers each for eight windows of ten seconds: a third of a fine-tuning step. One window at a time
they stay in the cache: the same attention takes half the time in float32, a third in bfloat16.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

LEVELS = 1 << 16
"""Steps in which the fast mask's probability is exact."""


@contextmanager
def windowed_attention() -> Iterator[None]:
    """transformers' `sdpa` attention is this one where it can be: on a CPU, unmasked, with dropout."""
    ALL_ATTENTION_FUNCTIONS["sdpa"] = attend
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]


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


class Attention(torch.autograd.Function):
    """Softmax attention with dropout on the weights, one window after the other."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, dropout: float
    ) -> torch.Tensor:
        batch, heads, frames, _ = query.shape
        kept = _kept(torch.Size((batch, heads, frames, frames)), dropout, query.dtype)
        out = torch.empty(query.shape, dtype=query.dtype)
        weights = []
        with torch.autocast("cpu", enabled=False):
            for window in range(batch):
                scores = torch.bmm(query[window] * scale, key[window].transpose(1, 2))
                weights.append(torch.softmax(scores, dim=-1))
                torch.bmm(weights[-1] * kept[window], value[window], out=out[window])
            ctx.save_for_backward(query, key, value, kept, *weights)
            ctx.scale, ctx.factor = scale, 1 / (1 - dropout)
            return out.mul_(ctx.factor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, kept, *weights = ctx.saved_tensors
        gradient = gradients[0] * ctx.factor
        to_query, to_key, to_value = (torch.empty(query.shape, dtype=query.dtype) for _ in range(3))
        with torch.autocast("cpu", enabled=False):
            for window, weight in enumerate(weights):
                above = gradient[window].contiguous()
                torch.bmm((weight * kept[window]).transpose(1, 2), above, out=to_value[window])
                to_weight = torch.bmm(above, value[window].transpose(1, 2)).mul_(kept[window])
                to_score = torch._softmax_backward_data(to_weight, weight, -1, weight.dtype)
                torch.bmm(to_score, key[window], out=to_query[window])
                torch.bmm(to_score.transpose(1, 2), query[window], out=to_key[window])
        return to_query.mul_(ctx.scale), to_key.mul_(ctx.scale), to_value, None, None
