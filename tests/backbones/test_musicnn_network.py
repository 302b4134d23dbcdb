"""The network against the reference values of an independent implementation, and plain convolutions."""

import json
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from torch.nn import functional

from genreflow.audio import decode, resample
from genreflow.backbones.musicnn import network, weights
from genreflow.features.musicnn_mel import FRAMES, SAMPLE_RATE, WINDOW_SAMPLES, musicnn_log_mel

CLOSE = 1e-3
"""What the reference values are equal within; they are rounded to 1e-4."""
CLIPS = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")


def random_variables() -> weights.Variables:
    """Random weights of the network's size, some scales negative as in the trained network."""
    rng = np.random.default_rng(0)
    variables = {}
    for name, shape in weights.SHAPES.items():
        values = rng.normal(0, 1, shape)
        if name.endswith("variance"):
            values = np.abs(values) + 0.1
        elif name.endswith("kernel"):
            values /= np.sqrt(np.prod(shape[:-1]))
        variables[name] = values.astype(np.float32)
    return variables


def plain_front(variables: weights.Variables, log_mel: torch.Tensor) -> torch.Tensor:
    """The front end as musicnn's `models.py` has it: convolution, ReLU, batch normalisation, maximum."""

    def get(name: str) -> torch.Tensor:
        return torch.from_numpy(variables[name])

    def normalise(values: torch.Tensor, layer: int) -> torch.Tensor:
        name = f"batch_normalization{f'_{layer}' if layer else ''}"
        parts = [get(f"{name}/{part}") for part in ("moving_mean", "moving_variance", "gamma", "beta")]
        return functional.batch_norm(values, *parts, eps=1e-3)

    values = normalise(log_mel[:, None], 0)
    out = []
    for layer, (before, behind) in enumerate(((3, 3), (3, 3), (63, 64), (31, 32), (15, 16))):
        name = f"conv2d{f'_{layer}' if layer else ''}"
        padded = functional.pad(values, (0, 0, before, behind))
        response = functional.conv2d(padded, get(f"{name}/kernel").permute(3, 2, 0, 1), get(f"{name}/bias"))
        out.append(normalise(functional.relu(response), layer + 1).amax(dim=3))
    return torch.cat(out, dim=1).transpose(1, 2)


@pytest.mark.parametrize("batch", [1, 2])
def test_the_front_end_equals_plain_convolutions(batch: int) -> None:
    variables = random_variables()
    log_mel = torch.rand(batch, FRAMES, network.BANDS, generator=torch.Generator().manual_seed(0)) * 3
    expected = plain_front(variables, log_mel)
    torch.testing.assert_close(network.Musicnn(variables).front_end(log_mel), expected, rtol=0, atol=1e-4)


def test_shapes_and_names() -> None:
    module = network.Musicnn(random_variables())
    log_mel = torch.rand(3, FRAMES, network.BANDS)
    assert module.pooled(log_mel).shape == (3, network.POOLED)
    assert module(log_mel).shape == (3, network.EMBEDDING)
    assert module.tags(module(log_mel)).shape == (3, len(network.TAGS))
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_its_openvino_model_of_any_batch_gives_the_same_embeddings() -> None:
    module = network.Musicnn(random_variables()).eval()
    example = torch.rand(2, FRAMES, network.BANDS)
    model = openvino.convert_model(module, example_input=example, input=[(-1, FRAMES, network.BANDS)])
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", options)
    for batch in (1, 3):
        log_mel = torch.rand(batch, FRAMES, network.BANDS) * 3
        np.testing.assert_allclose(compiled(log_mel.numpy())[0], module(log_mel).numpy(), rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def pretrained(variables: weights.Variables) -> network.Musicnn:
    return network.Musicnn(variables).eval()


def _reference(shared: Path, genre: str) -> tuple[dict, np.ndarray]:
    """Reference values of one clip, and the clip at 16 kHz."""
    values = json.loads((shared / "reference" / "musicnn_reference.json").read_text())
    (name,) = [name for name in values if name.startswith(f"{genre}.")]
    audio = decode(shared / "gtzan-mini" / "genres" / genre / name)
    return values[name], resample(audio.samples, audio.sample_rate, SAMPLE_RATE)


@pytest.mark.parametrize("genre", CLIPS)
def test_reference_values_of_pretrained_weights(
    genre: str, shared: Path, pretrained: network.Musicnn
) -> None:
    expected, samples = _reference(shared, genre)
    window = musicnn_log_mel(samples[None, :WINDOW_SAMPLES], sample_rate=SAMPLE_RATE)
    pooled = pretrained.pooled(torch.from_numpy(window))
    embedding = pretrained.embed(pooled)
    for got, name in ((pooled, "pooled"), (embedding, "penultimate")):
        first = expected[f"{name}_first_window_first_8"]
        np.testing.assert_allclose(got[0, : len(first)].numpy(), first, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("genre", CLIPS[:3])
def test_reference_tags_of_a_whole_clips_spectrogram_cut_into_windows(
    genre: str, shared: Path, pretrained: network.Musicnn
) -> None:
    expected, samples = _reference(shared, genre)
    clip = musicnn_log_mel(samples[None], sample_rate=SAMPLE_RATE)[0]
    count = len(clip) // FRAMES
    windows = clip[: count * FRAMES].reshape(count, FRAMES, -1)
    assert count == expected["windows"]
    tags = pretrained.tags(pretrained(torch.from_numpy(windows))).mean(dim=0)
    got = {name: float(tags[network.TAGS.index(name)]) for name in expected["tags_mean"]}
    assert got == pytest.approx(expected["tags_mean"], abs=CLOSE)
