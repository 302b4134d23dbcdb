"""The `vgg` family: its published configuration, what it learns, its files and its runtimes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fitted import (
    check_classifies_a_short_clip,
    check_learned_and_served_by_openvino,
    check_openvino_predicts_as,
    package_fitted,
)
from torch import nn

from genreflow.core.documents import PackagedDocument
from genreflow.core.errors import ModelError, SettingsError
from genreflow.core.genres import GENRES
from genreflow.families.vgg import Vgg, VggSettings
from genreflow.families.vgg.network import Network
from genreflow.features import represent
from genreflow.fitting import training_settings

VGG = Vgg()
PUBLISHED_BYTES = 554e6
VGG_16: dict[str, Any] = {
    "channels": [64, 128, 256, 512, 512],
    "convolutions": [2, 2, 3, 3, 3],
    "batch_norm": False,
    "grid": [7, 7],
    "dense": [4096, 4096],
}
"""Simonyan and Zisserman 2015, configuration D, of one input channel."""
SMALL: dict[str, Any] = {
    "window_seconds": 4,
    "channels": [8, 16, 32],
    "convolutions": [1, 1, 1],
    "grid": [4, 2],
    "dense": [32],
    "dropout": 0.1,
    "block_dropout": 0.0,
    "masks": 0,
}


def built(**settings: Any) -> Network:
    module = VGG.build(VggSettings.model_validate(settings), GENRES, "inputs", seed=0)
    assert isinstance(module, Network)
    return module


def parameters(genres: int = len(GENRES), **settings: Any) -> int:
    with torch.device("meta"):
        module = Network(genres, VggSettings.model_validate(settings))
    return sum(parameter.numel() for parameter in module.parameters())


def spectrograms(n: int = 4, frames: int = 87, seed: int = 0) -> torch.Tensor:
    """Of `SMALL`'s windows."""
    return torch.from_numpy(np.random.default_rng(seed).random((n, 1, frames, 128), dtype=np.float32))


def test_thirty_seconds_become_one_spectrogram_and_ten_logits() -> None:
    spec = VGG.input_spec(VggSettings())
    assert (spec.window_seconds, spec.hop_seconds, spec.extend) == (30, 30, "repeat")
    assert VGG.input_spec(VggSettings(hop_seconds=10)).hop_seconds == 10
    inputs = represent(spec, np.zeros((1, spec.window_samples), np.float32))
    assert inputs.shape == (1, 1, 646, 128)
    with torch.device("meta"):
        for settings in ({}, VGG_16):
            module = Network(len(GENRES), VggSettings.model_validate(settings)).eval()
            assert module(torch.empty(2, *inputs.shape[1:])).logits.shape == (2, 10)


def test_the_layers_are_a_vggs_in_their_order() -> None:
    with torch.device("meta"):
        module = Network(len(GENRES), VggSettings.model_validate(VGG_16))
    block = [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Dropout2d]
    assert [type(layer) for layer in module.body[:6]] == block
    assert [type(layer) for layer in module.body[-2:]] == [nn.AdaptiveAvgPool2d, nn.Flatten]
    dense = [nn.Linear, nn.ReLU, nn.Dropout]
    assert [type(layer) for layer in module.head] == [*dense, *dense, nn.Linear]
    convolutions = [layer for layer in module.body if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 13
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}


def test_vgg_16_has_the_published_size_and_the_default_less_than_a_tenth() -> None:
    # of three input channels and a thousand classes it has 138,357,544
    colours = 2 * 64 * 3 * 3
    assert parameters(1000, **VGG_16) + colours == 138_357_544
    assert 4 * parameters(1000, **VGG_16) == pytest.approx(PUBLISHED_BYTES, rel=0.01)
    assert 4 * parameters() < PUBLISHED_BYTES / 10


def test_one_step_of_vgg_16_lowers_the_loss_and_reaches_every_weight() -> None:
    settings = VggSettings.model_validate({**VGG_16, "window_seconds": 2, "masks": 0})
    module = built(**settings.model_dump()).train()
    groups = VGG.parameter_groups(module, settings, training_settings(VGG, settings, {}))
    # without the two moments of each weight that Adam keeps: a gigabyte
    optimizer = torch.optim.SGD(groups)
    inputs, labels = spectrograms(2, frames=44), torch.tensor([1, 2])
    torch.manual_seed(0)
    before = module(inputs, labels=labels).loss
    before.backward()
    assert all(bool(parameter.grad.any()) for parameter in module.parameters())
    optimizer.step()
    torch.manual_seed(0)  # the same dropout
    with torch.inference_mode():
        after = module(inputs, labels=labels).loss
    assert float(after) < float(before.detach())


def test_a_spectrogram_begins_elsewhere_in_training_and_keeps_its_frames() -> None:
    module, inputs = built(**SMALL), spectrograms(8)
    torch.manual_seed(0)
    shifted = module.disturb(inputs)
    assert shifted.shape == inputs.shape
    starts = []
    for before, after in zip(inputs[:, 0], shifted[:, 0], strict=True):
        start = int((before == after[0]).all(dim=1).nonzero())
        assert torch.equal(before.roll(-start, dims=0), after)
        starts.append(start)
    assert len(set(starts)) > 4
    assert torch.equal(built(**SMALL | {"time_shift": False}).disturb(inputs), inputs)


def test_masks_and_dropout_affect_training_and_never_predictions() -> None:
    module = built(**SMALL | {"masks": 2, "time_mask": 0.5, "dropout": 0.5})
    inputs = spectrograms()
    assert not torch.equal(module.train()(inputs).logits, module(inputs).logits)
    module.eval()
    assert torch.equal(module(inputs).logits, module(inputs).logits)


def test_a_model_comes_back_from_its_files_as_it_was(tmp_path: Path) -> None:
    module = built(**SMALL)
    module(spectrograms())  # moves the running statistics
    VGG.save(module.eval(), tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    settings = VggSettings.model_validate(SMALL)
    again = VGG.load_module(tmp_path, settings, GENRES)
    assert torch.equal(again(spectrograms()).logits, module(spectrograms()).logits)
    with pytest.raises(ModelError, match="do not fit vgg with 3 genres"):
        VGG.load_module(tmp_path, settings, GENRES[:3])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channels": [16, 32]}, "convolutions has 5 blocks and channels 2: they need as many"),
        ({"window_seconds": 1}, "cannot be halved 5 times: lengthen window_seconds, or give fewer channels"),
        ({"grid": [4]}, "model.grid"),
        ({"channels": []}, "model.channels"),
    ],
)
def test_settings_that_do_not_go_together_give_error_messages(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        VGG.settings(values)


@pytest.mark.numeric
def test_openvino_predicts_as_pytorch_in_batches_of_any_size(tmp_path: Path) -> None:
    check_openvino_predicts_as(built(**SMALL).eval(), spectrograms(5), tmp_path / "model.xml")


def test_a_small_one_learns_the_synthetic_corpus_and_openvino_serves_it(
    synthetic: Path, tmp_path: Path
) -> None:
    training = {"epochs": 20, "batch_size": 4, "learning_rate": 2e-3, "patience": 20}
    packaged = package_fitted("vgg", synthetic, tmp_path, SMALL, training)
    check_learned_and_served_by_openvino(packaged, synthetic)


def test_clips_shorter_than_a_window_and_a_genre_with_one_training_clip_are_fitted_and_classified(
    short: Path, tmp_path: Path
) -> None:
    training = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3}
    model = {name: value for name, value in SMALL.items() if name != "window_seconds"}
    packaged = package_fitted("vgg", short, tmp_path, model, training)
    assert PackagedDocument.read(packaged).model.input_spec.window_seconds == 30
    check_classifies_a_short_clip(packaged, short)
