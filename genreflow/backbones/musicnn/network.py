"""musicnn as a PyTorch module, in the form that OpenVINO computes fastest.

The architecture is that of Pons and Serra 2019, "musicnn: pre-trained convolutional neural networks for music
audio tagging". In evaluation mode batch normalisation is a scale and an offset per channel, so it needs no
statistics here.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from genreflow.backbones.musicnn.weights import NORMALISATIONS, Variables

FRAMES = 187
BANDS = 96
POOLED = 1506
EMBEDDING = 200
BATCH_NORM_EPSILON = 1e-3

TIMBRAL = ("conv2d", "conv2d_1")
TEMPORAL = ("conv2d_2", "conv2d_3", "conv2d_4")
MIDDLE = ("conv2d_5", "conv2d_6", "conv2d_7")

TAGS = (
    "rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s",
    "alternative rock", "jazz", "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul",
    "indie rock", "Mellow", "electronica", "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies",
    "blues", "hard rock", "ambient", "acoustic", "experimental", "female vocalist", "guitar", "Hip-Hop",
    "70s", "party", "country", "easy listening", "sexy", "catchy", "funk", "electro", "heavy metal",
    "Progressive rock", "60s", "rnb", "indie pop", "sad", "House", "happy",
)  # fmt: skip
"""What the outputs of `Musicnn.tags` stand for, as the wheel's `configuration.py` lists them."""


class Musicnn(nn.Module):
    """musicnn from log-mel spectrograms to embeddings.

    Args:
        variables: by their TensorFlow names, of the shapes in `weights.SHAPES`.
    """

    def __init__(self, variables: Variables) -> None:
        super().__init__()
        self.input_norm = _BatchNorm(variables, NORMALISATIONS[0])
        timbral = zip(TIMBRAL, NORMALISATIONS[1:3], strict=True)
        self.timbral = nn.ModuleList(_TimbralBlock(variables, *names) for names in timbral)
        temporal = zip(TEMPORAL, NORMALISATIONS[3:6], strict=True)
        self.temporal = nn.ModuleList(_TemporalBlock(variables, *names) for names in temporal)
        middle = zip(MIDDLE, NORMALISATIONS[6:9], strict=True)
        self.middle = nn.ModuleList(_MiddleBlock(variables, *names) for names in middle)
        self.pooled_norm = _BatchNorm(variables, NORMALISATIONS[9])
        self.dense = _linear(variables, "dense")
        self.embedding_norm = _BatchNorm(variables, NORMALISATIONS[10])
        self.tagger = _linear(variables, "dense_1")
        self.requires_grad_(False)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Embeddings (batch, 200) of log-mel spectrograms (batch, 187, 96)."""
        return self.embed(self.pooled(log_mel))

    def pooled(self, log_mel: Tensor) -> Tensor:
        """Maximum and mean over time of every feature, interleaved and normalised: (batch, 1506)."""
        front = self.front_end(log_mel)
        first, second, third = self.middle
        one = first(front)
        two = second(one) + one
        three = third(two) + two
        features = torch.cat([front, one, two, three], dim=2)
        both = torch.stack([features.amax(dim=1), features.mean(dim=1)], dim=2)
        pooled: Tensor = self.pooled_norm(both.flatten(1))
        return pooled

    def front_end(self, log_mel: Tensor) -> Tensor:
        """Timbral and temporal features (batch, 187, 561), their maxima over frequency taken."""
        # the input has one channel: the same scale and offset for every band
        normalised = self.input_norm(log_mel)
        return torch.cat([block(normalised) for block in (*self.timbral, *self.temporal)], dim=2)

    def embed(self, pooled: Tensor) -> Tensor:
        """Embeddings (batch, 200) of what `pooled` returned."""
        embedding: Tensor = self.embedding_norm(functional.relu(self.dense(pooled)))
        return embedding

    def tags(self, embedding: Tensor) -> Tensor:
        """Probabilities (batch, 50) of `TAGS` for embeddings."""
        return torch.sigmoid(self.tagger(embedding))


def _scale_and_offset(variables: Variables, name: str) -> tuple[Tensor, Tensor]:
    """A batch normalisation in evaluation mode."""
    gamma, beta, mean, variance = (
        torch.from_numpy(variables[f"{name}/{part}"].copy())
        for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = gamma / torch.sqrt(variance + BATCH_NORM_EPSILON)
    return scale, beta - mean * scale


class _BatchNorm(nn.Module):
    """A batch normalisation in evaluation mode, over the last dimension."""

    scale: Tensor
    offset: Tensor

    def __init__(self, variables: Variables, name: str) -> None:
        super().__init__()
        scale, offset = _scale_and_offset(variables, name)
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)

    def forward(self, values: Tensor) -> Tensor:
        return values * self.scale + self.offset


class _FrontBlock(nn.Module):
    """Convolution, ReLU, batch normalisation, maximum over frequency.

    From (batch, time, bands) to (batch, time, filters).

    Everything but the convolution is done after the maximum, on a fraction of the values. That is exact:
    bias, ReLU and a positive scale keep the order of values. A filter whose scale is negative needs the
    minimum: its weights are negated here and its maximum negated back.
    """

    scale: Tensor
    offset: Tensor
    sign: Tensor
    bias: Tensor
    weight: Tensor

    def __init__(self, variables: Variables, convolution: str, normalisation: str) -> None:
        super().__init__()
        kernel = torch.from_numpy(variables[f"{convolution}/kernel"].copy())  # (time, bands, 1, filters)
        scale, offset = _scale_and_offset(variables, normalisation)
        sign = torch.where(scale < 0, -1.0, 1.0)
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)
        self.register_buffer("sign", sign)
        self.register_buffer("bias", torch.from_numpy(variables[f"{convolution}/bias"].copy()))
        self.taps, self.bands = kernel.shape[:2]
        # TensorFlow's "same": an even kernel has one more zero behind than before
        self.padding = (0, 0, (self.taps - 1) // 2, self.taps // 2)
        self.register_buffer("weight", self.arrange((kernel * sign)[:, :, 0]))

    def forward(self, values: Tensor) -> Tensor:
        maximum = self.maximum(functional.pad(values, self.padding))
        return functional.relu(maximum * self.sign + self.bias) * self.scale + self.offset

    def arrange(self, kernel: Tensor) -> Tensor:
        """The kernel (time, bands, filters) as `maximum` needs it."""
        raise NotImplementedError

    def maximum(self, padded: Tensor) -> Tensor:
        """The convolution's maximum over frequency, (batch, time, filters), of values padded in time."""
        raise NotImplementedError


class _TemporalBlock(_FrontBlock):
    """A kernel of one band, as a convolution."""

    def arrange(self, kernel: Tensor) -> Tensor:
        return kernel.permute(2, 0, 1).unsqueeze(1).contiguous()

    def maximum(self, padded: Tensor) -> Tensor:
        return functional.conv2d(padded.unsqueeze(1), self.weight).amax(dim=3).transpose(1, 2)


class _TimbralBlock(_FrontBlock):
    """A kernel of many bands, as one matrix product a position on the frequency axis.

    A convolution with one input channel is slow in PyTorch, and its result (89 positions, 204 filters, 187
    frames a window) is too large for the processor's cache. Here the maximum is taken position by position.
    """

    def arrange(self, kernel: Tensor) -> Tensor:
        return kernel.transpose(0, 1).flatten(0, 1).contiguous()  # a row a band and tap, taps fastest

    def maximum(self, padded: Tensor) -> Tensor:
        frames = padded.shape[1] - self.taps + 1
        shifted = torch.stack([padded[:, tap : tap + frames] for tap in range(self.taps)], dim=3)
        columns = shifted.flatten(2)  # (batch, time, bands · taps): the bands of a position lie side by side
        best: Tensor | None = None
        for band in range(padded.shape[2] - self.bands + 1):
            position = columns[:, :, band * self.taps : (band + self.bands) * self.taps] @ self.weight
            best = position if best is None else torch.maximum(best, position)
        assert best is not None  # no kernel has more bands than the input
        return best


class _MiddleBlock(nn.Module):
    """Convolution over time, ReLU, batch normalisation: (batch, time, channels) to (batch, time, 64)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, variables: Variables, convolution: str, normalisation: str) -> None:
        super().__init__()
        self.norm = _BatchNorm(variables, normalisation)
        kernel = torch.from_numpy(variables[f"{convolution}/kernel"].copy())  # (time, channels, 1, filters)
        self.taps = kernel.shape[0]
        self.register_buffer("weight", kernel[:, :, 0].permute(2, 1, 0).contiguous())
        self.register_buffer("bias", torch.from_numpy(variables[f"{convolution}/bias"].copy()))

    def forward(self, values: Tensor) -> Tensor:
        values = values.transpose(1, 2)
        response = functional.conv1d(values, self.weight, self.bias, padding=self.taps // 2)
        normalised: Tensor = self.norm(functional.relu(response).transpose(1, 2))
        return normalised


def _linear(variables: Variables, name: str) -> nn.Linear:
    kernel, bias = (torch.from_numpy(variables[f"{name}/{part}"].copy()) for part in ("kernel", "bias"))
    linear = nn.Linear(*kernel.shape)
    linear.weight = nn.Parameter(kernel.T.contiguous())
    linear.bias = nn.Parameter(bias)
    return linear
