"""The `mfcc_cnn` family: a small convolutional network over the five-channel picture of three seconds."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from genreflow.artifacts import Hearing
from genreflow.errors import ModelError
from genreflow.families.base import Family, FamilySettings, FrozenPart, cross_entropy
from genreflow.features.five_channel import CHANNELS, ROWS, SAMPLE_RATE, WINDOW_SECONDS

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
ARCHITECTURE = "mfcc_cnn/1"
"""Changes whenever older weights no longer fit."""


class MfccCnnSettings(FamilySettings):
    """Settings of `mfcc_cnn`."""

    hop_seconds: float = Field(default=WINDOW_SECONDS, gt=0)
    """From one window of three seconds to the next."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """After each convolutional block and before the last layer."""
    noise: float = Field(default=0.0, ge=0)
    """Standard deviation of Gaussian noise on the standardised picture, in training."""
    time_mask: int = Field(default=0, ge=0)
    """Most frames (of 130) hidden in one stretch of each picture, in training."""


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
        picture = (inputs - self.mean) / self.deviation
        if self.training:
            picture = self.disturb(picture)
        logits = torch.log_softmax(self.head(self.body(picture)).float(), dim=-1)
        return SequenceClassifierOutput(loss=cross_entropy(logits, labels, class_weights), logits=logits)

    def disturb(self, picture: torch.Tensor) -> torch.Tensor:
        """Noise and a hidden stretch of time, drawn anew for each picture."""
        if self.noise:
            picture = picture + self.noise * torch.randn_like(picture)
        if self.time_mask:
            batch, frames = picture.shape[0], picture.shape[-1]
            length = torch.randint(0, self.time_mask + 1, (batch, 1), device=picture.device)
            start = (torch.rand(batch, 1, device=picture.device) * (frames - length + 1)).long()
            frame = torch.arange(frames, device=picture.device)
            hidden = (frame >= start) & (frame < start + length)
            picture = picture.masked_fill(hidden[:, None, None, :], 0.0)
        return picture


class MfccCnn(Family):
    """Trained from scratch on pictures of three seconds; a clip's answer comes from its windows."""

    name: ClassVar[str] = "mfcc_cnn"
    settings_type: ClassVar[type[FamilySettings]] = MfccCnnSettings

    def hearing(self, settings: MfccCnnSettings) -> Hearing:
        return Hearing(
            sample_rate=SAMPLE_RATE,
            window_seconds=WINDOW_SECONDS,
            hop_seconds=settings.hop_seconds,
            extend="repeat",
            representation="mfcc_five_channel",
        )

    def training_defaults(self, settings: MfccCnnSettings) -> dict[str, Any]:
        return {
            "epochs": 60,
            "batch_size": 32,
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "weight_decay": 1e-4,
            "schedule": "cosine",
            "warmup_fraction": 0.0,
            "patience": 15,
        }

    def frozen_part(self, settings: MfccCnnSettings, device: str) -> FrozenPart | None:
        return None

    def build(self, settings: MfccCnnSettings, genres: tuple[str, ...], stage: str, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Network(len(genres), settings)

    def fit_inputs(self, module: nn.Module, batches: Iterable[torch.Tensor]) -> None:
        """Mean and deviation of each channel's rows over all training windows."""
        assert isinstance(module, Network)
        count = 0
        total: NDArray[np.float64] = np.zeros((len(CHANNELS), ROWS))
        squares: NDArray[np.float64] = np.zeros((len(CHANNELS), ROWS))
        for batch in batches:
            values = batch.double()
            count += values.shape[0] * values.shape[3]
            total += values.sum(dim=(0, 3)).numpy()
            squares += values.square().sum(dim=(0, 3)).numpy()
        mean = total / count
        with np.errstate(invalid="ignore"):
            deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
        # a row that never changes stays 0
        deviation[deviation < 1e-6] = 1
        module.mean.copy_(torch.from_numpy(mean)[..., None])
        module.deviation.copy_(torch.from_numpy(deviation)[..., None])

    def parameter_groups(
        self, module: nn.Module, settings: MfccCnnSettings, training: Any
    ) -> list[dict[str, Any]]:
        assert isinstance(module, Network)
        decay = training.weight_decay
        head_rate = training.head_learning_rate or training.learning_rate
        return [
            {
                "params": list(module.body.parameters()),
                "lr": training.learning_rate,
                "weight_decay": decay,
            },
            {
                "params": list(module.head.parameters()),
                "lr": head_rate,
                "weight_decay": decay,
            },
        ]

    def save(self, module: nn.Module, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
        save_file(tensors, str(folder / WEIGHTS_FILE), metadata={"format": "pt"})
        config = {"architecture": ARCHITECTURE, "channels": CHANNELS, "rows": ROWS}
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")

    def load(self, folder: Path, settings: MfccCnnSettings, genres: tuple[str, ...]) -> nn.Module:
        try:
            architecture = json.loads((folder / CONFIG_FILE).read_text())["architecture"]
            tensors = load_file(str(folder / WEIGHTS_FILE))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelError(
                f"{folder} holds no readable mfcc_cnn model ({CONFIG_FILE}, {WEIGHTS_FILE}): {error}"
            ) from error
        if architecture != ARCHITECTURE:
            raise ModelError(
                f"{folder} holds {architecture}, and this version reads {ARCHITECTURE}: train it anew."
            )
        module = Network(len(genres), settings)
        try:
            module.load_state_dict(tensors)
        except RuntimeError as error:
            raise ModelError(
                f"The weights in {folder} do not fit mfcc_cnn with {len(genres)} genres: {error}"
            ) from error
        return module.eval()
