"""A front end that needs no training: the first layers of a small encoder set to a mel filterbank.

Trained from scratch on a few hundred clips, convolutions over waveforms learn little. So they begin, as in
SincNet (Ravanelli and Bengio 2018) and LEAF (Zeghidour et al. 2021), as the filterbank that they would have
to find: in HuBERT's layout, every weight computed here. Frozen, they are a fixed representation.

The front end's group norm evens out every channel of its first layer, which would wipe the spectrum's shape
away were that layer the filterbank. Instead:

1. the first layer deals the samples out to its channels as they are, one with either sign for each place in
   the stride: since gelu(x) - gelu(-x) = x, the next layer gets the normalised waveform untouched;
2. the second holds tones under Gaussian windows, cosine and sine, with either sign;
3. the third adds up a band's four channels, since gelu(x) + gelu(-x) is about |x|, and smooths: the envelope;
4. the following smooth and thin out the envelopes;
5. the last two, one frame wide, take something like the logarithm: the first holds, for each of several
   levels, how far the envelope stays below it, as a share; the second subtracts these shares from a constant.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genreflow.core.errors import SettingsError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

LOWEST_HZ = 40.0
HIGHEST_SHARE = 0.95
"""Of half the sampling rate: the top of the highest band."""
SIGNS = 2
QUADRATURE = 2
"""Channels a band for cosine and sine, each with either sign: 2 × 2."""
TILT = 0.5
"""Exponent by which higher bands are louder than at PIVOT_HZ: music falls off towards the top."""
PIVOT_HZ = 500.0
GAIN = 100.0
"""Puts envelopes where gelu rectifies rather than squares."""
LOWEST_LEVEL = 0.5
LEVEL_RATIO = 2.6
"""From one level of an envelope to the next: 8.3 dB."""
SHARPNESS = 4.0
"""Of the corner where an envelope reaches a level."""
FLOOR = 2.0
"""What silence comes to: gelu leaves it and all above it nearly as they are."""
LEAST_LAYERS = 5


def begin_as_mel_filterbank(encoder: "PreTrainedModel", sample_rate: int) -> None:
    """Set the weights of `encoder.feature_extractor` (HuBERT's layout, group norm) to a mel filterbank.

    Raises:
        SettingsError: the layers do not have the shapes that it takes.
    """
    import torch

    config = encoder.config
    _check(config)
    front_end: Any = encoder.feature_extractor
    stride, bands = config.conv_stride[0], config.conv_dim[-1]
    layers: list[nn.Conv1d] = [layer.conv for layer in front_end.conv_layers]
    weights = [np.zeros(tuple(layer.weight.shape), np.float32) for layer in layers]
    biases = [np.zeros(len(weight), np.float32) for weight in weights]

    dealt = np.arange(stride)
    weights[0][SIGNS * dealt, 0, dealt] = 1
    weights[0][SIGNS * dealt + 1, 0, dealt] = -1

    tones = _tones(bands, config.conv_kernel[1] * stride, sample_rate)
    # (band, cosine or sine, sample) to (band, cosine or sine, place in the stride, tap)
    dealt_tones = tones.reshape(bands, QUADRATURE, config.conv_kernel[1], stride).swapaxes(2, 3)
    channels = weights[1].reshape(bands, QUADRATURE, SIGNS, stride, SIGNS, -1)
    for out_sign, out in ((0, 1), (1, -1)):
        for in_sign, into in ((0, 1), (1, -1)):
            channels[:, :, out_sign, :, in_sign] = out * into * dealt_tones

    same = np.arange(bands)
    for channel in range(SIGNS * QUADRATURE):
        weights[2][same, SIGNS * QUADRATURE * same + channel] = _window(config.conv_kernel[2])
    for weight, kernel in zip(weights[3:-2], config.conv_kernel[3:-2], strict=True):
        weight[same, same] = _window(kernel)

    levels = config.conv_dim[-2] // bands
    for number, level in enumerate(LOWEST_LEVEL * LEVEL_RATIO ** np.arange(levels)):
        weights[-2][number * bands + same, same, 0] = -SHARPNESS / level
        weights[-1][same, number * bands + same, 0] = -1 / SHARPNESS
    biases[-2][:] = SHARPNESS
    biases[-1][:] = levels + FLOOR

    with torch.no_grad():
        for layer, weight, bias in zip(layers, weights, biases, strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
            if layer.bias is not None:
                layer.bias.copy_(torch.from_numpy(bias))


def _check(config: Any) -> None:
    """Raise SettingsError where the convolutions do not have the shapes of a filterbank."""
    stride, bands, depth = config.conv_stride[0], config.conv_dim[-1], len(config.conv_dim)
    levels = max(1, config.conv_dim[-2] // bands) if depth > 1 else 1
    middle = [bands] * max(1, depth - 4)
    wanted = [SIGNS * stride, SIGNS * QUADRATURE * bands, *middle, levels * bands, bands]
    one_frame = [*config.conv_kernel[-2:], *config.conv_stride[-2:]] == [1, 1, 1, 1]
    if (
        config.feat_extract_norm != "group"
        or not config.conv_bias
        or config.conv_kernel[0] != stride
        or not one_frame
        or list(config.conv_dim) != wanted
    ):
        raise SettingsError(
            "mel_front_end needs, in from_scratch, feat_extract_norm 'group', conv_bias true, a first "
            f"conv_kernel as long as the first conv_stride ({stride}), the last two of both 1, "
            f"{LEAST_LAYERS} layers or more, and for {bands} bands conv_dim {wanted}; "
            f"it is {list(config.conv_dim)}."
        )


def mel_centres(bands: int, sample_rate: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres and widths (Hz) of triangular mel bands (HTK's scale), each (bands,)."""
    top = HIGHEST_SHARE * sample_rate / 2
    lowest, highest = 2595 * np.log10(1 + np.array([LOWEST_HZ, top]) / 700)
    mels = np.linspace(lowest, highest, bands + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    return edges[1:-1], edges[2:] - edges[:-2]


def _tones(bands: int, samples: int, sample_rate: int) -> NDArray[np.float32]:
    """Cosine and sine under a Gaussian window as wide as the band is narrow: (bands, 2, samples)."""
    centres, widths = mel_centres(bands, sample_rate)
    time = (np.arange(samples) - samples / 2 + 0.5) / sample_rate
    deviation = np.minimum(0.9 / widths, samples / sample_rate / 5)
    window = np.exp(-0.5 * (time / deviation[:, None]) ** 2)
    turn = 2 * np.pi * centres[:, None] * time
    tones = np.stack([window * np.cos(turn), window * np.sin(turn)], axis=1)
    tones -= window[:, None] * (tones.sum(-1) / window.sum(-1)[:, None])[..., None]  # deaf to a constant
    tones /= np.sqrt((tones**2).sum(-1, keepdims=True))
    return (GAIN * (centres / PIVOT_HZ)[:, None, None] ** TILT * tones).astype(np.float32)


def _window(kernel: int) -> NDArray[np.float32]:
    """Hann's window of `kernel` samples without its zeros, summing to one."""
    window = np.hanning(kernel + 2)[1:-1]
    return (window / window.sum()).astype(np.float32)
