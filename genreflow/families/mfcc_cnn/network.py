"""The network of `mfcc_cnn`."""

import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from genreflow.families.mfcc_cnn.settings import MfccCnnSettings
from genreflow.features.five_channel import CHANNELS, ROWS
from genreflow.training.masking import random_span
from genreflow.training.modules import cross_entropy


class Network(nn.Module):
    """Five channels of 40 rows in, log-probabilities out.

    Inputs (batch, 5, 40, frames) are standardised with the mean and deviation of each channel's rows over the
    training windows, which are buffers and travel with the weights.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, genres: int, settings: MfccCnnSettings) -> None:
        super().__init__()
        self.noise, self.time_mask = settings.noise, settings.time_mask
        self.register_buffer("mean", torch.zeros(len(CHANNELS), ROWS, 1))
        self.register_buffer("deviation", torch.ones(len(CHANNELS), ROWS, 1))

        def block(inside: int, outside: int) -> list[nn.Module]:
            return [
                nn.Conv2d(inside, outside, kernel_size=3, padding=1),
                nn.ReLU(),
                nn.BatchNorm2d(outside),
                nn.MaxPool2d(2),
                nn.Dropout(settings.dropout),
            ]

        self.body = nn.Sequential(
            *block(len(CHANNELS), 32), *block(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Sequential(
            nn.Linear(64, 128),
            nn.ReLU(),
            nn.BatchNorm1d(128),
            nn.Dropout(settings.dropout),
            nn.Linear(128, genres),
        )

    def forward(
        self,
        inputs: torch.Tensor,
        labels: torch.Tensor | None = None,
        class_weights: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Log-probabilities (batch, genres) as `logits`: softmax leaves them as they are."""
        feature_map = (inputs - self.mean) / self.deviation
        if self.training:
            feature_map = self.disturb(feature_map)
        logits = torch.log_softmax(self.head(self.body(feature_map)).float(), dim=-1)
        return SequenceClassifierOutput(loss=cross_entropy(logits, labels, class_weights), logits=logits)

    def disturb(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Noise and a time mask, drawn for each feature map."""
        if self.noise:
            feature_map = feature_map + self.noise * torch.randn_like(feature_map)
        if self.time_mask:
            batch, frames = feature_map.shape[0], feature_map.shape[-1]
            hidden = random_span(batch, frames, self.time_mask, feature_map.device)
            feature_map = feature_map.masked_fill(hidden[:, None, None, :], 0.0)
        return feature_map
