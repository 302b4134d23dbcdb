"""The network of `vit`."""

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import SequenceClassifierOutput

from genreflow.families.vit.settings import VitSettings
from genreflow.training.masking import spec_augment
from genreflow.training.modules import cross_entropy

INITIAL_DEVIATION = 0.02
"""Of positions, class token and classifier, which begins with genres about equal."""


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): in training a window's branch is left out at random."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.rate:
            return branch
        kept = torch.empty(len(branch), 1, 1, dtype=branch.dtype, device=branch.device)
        return branch * kept.bernoulli_(1 - self.rate).div_(1 - self.rate)


class Attention(nn.Module):
    """Multi-head self-attention: tokens (batch, tokens, width) to the same shape."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inward = nn.Linear(width, 3 * width, bias=False)
        self.outward = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        batch, count, width = tokens.shape
        parts = self.inward(tokens).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        found = functional.scaled_dot_product_attention(query, key, value)
        mixed: torch.Tensor = self.outward(found.transpose(1, 2).reshape(batch, count, width))
        return mixed


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, settings: VitSettings, drop_path: float) -> None:
        super().__init__()
        width, hidden = settings.width, settings.feed_forward
        self.attention = nn.Sequential(
            nn.LayerNorm(width),
            Attention(width, settings.heads),
            nn.Dropout(settings.dropout),
            DropPath(drop_path),
        )
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(hidden, width),
            nn.Dropout(settings.dropout),
            DropPath(drop_path),
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.attention(tokens)
        return tokens + self.feed_forward(tokens)


class Network(nn.Module):
    """Spectrograms (batch, 1, frames, bands) in [0, 1] in, logits out.

    Each band is standardised with its mean and deviation over the training windows, which are buffers and
    travel with the weights.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, genres: int, settings: VitSettings) -> None:
        super().__init__()
        self.settings = settings
        width, (rows, columns) = settings.width, settings.grid
        self.register_buffer("mean", torch.zeros(settings.bands))
        self.register_buffer("deviation", torch.ones(settings.bands))
        self.projection = nn.Conv2d(1, width, kernel_size=settings.patch, stride=settings.patch)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.class_position = nn.Parameter(torch.empty(1, 1, width))
        self.time_positions = nn.Parameter(torch.empty(1, rows, 1, width))
        self.frequency_positions = nn.Parameter(torch.empty(1, 1, columns, width))
        self.dropout = nn.Dropout(settings.dropout)
        last = max(1, settings.blocks - 1)
        rates = [settings.drop_path * index / last for index in range(settings.blocks)]
        self.blocks = nn.Sequential(*(Block(settings, rate) for rate in rates))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, genres)
        self._initialise()

    def _initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        tokens = (self.class_token, self.class_position, self.time_positions, self.frequency_positions)
        for tensor in (*tokens, self.head.weight):
            nn.init.trunc_normal_(tensor, std=INITIAL_DEVIATION)

    def patches(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """The convolutional projection: (batch, width, patches over time, patches over frequency)."""
        projected: torch.Tensor = self.projection(spectrograms)
        return projected

    def tokens(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """Class token and patches with their positions: (batch, 1 + patches, width)."""
        patches = self.patches(spectrograms).permute(0, 2, 3, 1)
        patches = (patches + self.time_positions + self.frequency_positions).flatten(1, 2)
        # not len(patches): tracing takes that for a constant
        first = (self.class_token + self.class_position).expand(patches.shape[0], -1, -1)
        return torch.cat([first, patches], dim=1)

    def forward(
        self,
        inputs: torch.Tensor,
        labels: torch.Tensor | None = None,
        class_weights: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits (batch, genres) of the mean token."""
        settings = self.settings
        inputs = (inputs - self.mean) / self.deviation
        if self.training and settings.masks:
            inputs = spec_augment(inputs, settings.masks, settings.time_mask, settings.band_mask)
        tokens = self.blocks(self.dropout(self.tokens(inputs)))
        logits = self.head(self.norm(tokens).mean(dim=1)).float()
        return SequenceClassifierOutput(loss=cross_entropy(logits, labels, class_weights), logits=logits)
