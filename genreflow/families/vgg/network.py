"""The network of `vgg`."""

import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from genreflow.families.vgg.settings import VggSettings
from genreflow.training.masking import spec_augment
from genreflow.training.modules import cross_entropy

LAST_DEVIATION = 0.01
"""Of the classifier's initial weights (Simonyan and Zisserman 2015): it begins with genres about equal."""


class Network(nn.Module):
    """Spectrograms (batch, 1, frames, bands) in [0, 1] in, logits out."""

    def __init__(self, genres: int, settings: VggSettings) -> None:
        super().__init__()
        self.settings = settings
        body: list[nn.Module] = []
        inside = 1
        for outside, convolutions in zip(settings.channels, settings.convolutions, strict=True):
            for _ in range(convolutions):
                body.append(nn.Conv2d(inside, outside, kernel_size=3, padding=1))
                if settings.batch_norm:
                    body.append(nn.BatchNorm2d(outside))
                body.append(nn.ReLU())
                inside = outside
            body += [nn.MaxPool2d(2), nn.Dropout2d(settings.block_dropout)]
        rows, columns = settings.grid
        self.body = nn.Sequential(*body, nn.AdaptiveAvgPool2d((rows, columns)), nn.Flatten())
        head: list[nn.Module] = []
        width = inside * rows * columns
        for dense in settings.dense:
            head += [nn.Linear(width, dense), nn.ReLU(), nn.Dropout(settings.dropout)]
            width = dense
        last = nn.Linear(width, genres)
        self.head = nn.Sequential(*head, last)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        nn.init.normal_(last.weight, std=LAST_DEVIATION)

    def forward(
        self,
        inputs: torch.Tensor,
        labels: torch.Tensor | None = None,
        class_weights: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits (batch, genres); the probabilities are their softmax."""
        if self.training:
            inputs = self.disturb(inputs)
        logits = self.head(self.body(inputs)).float()
        return SequenceClassifierOutput(loss=cross_entropy(logits, labels, class_weights), logits=logits)

    def disturb(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """Each spectrogram begun elsewhere, and parts of it hidden, as the settings say."""
        settings = self.settings
        if settings.time_shift:
            frames = spectrograms.shape[2]
            shift = torch.randint(frames, (len(spectrograms), 1), device=spectrograms.device)
            order = (torch.arange(frames, device=spectrograms.device) + shift) % frames
            rows = torch.arange(len(spectrograms), device=spectrograms.device)[:, None]
            spectrograms = spectrograms[rows, :, order].transpose(1, 2)
        if settings.masks:
            spectrograms = spec_augment(spectrograms, settings.masks, settings.time_mask, settings.band_mask)
        return spectrograms
