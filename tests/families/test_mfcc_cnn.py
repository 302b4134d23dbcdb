"""The `mfcc_cnn` family: its architecture, its statistics, its files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from genreflow.core.errors import ModelError
from genreflow.core.genres import GENRES
from genreflow.families.mfcc_cnn import MfccCnn, MfccCnnSettings
from genreflow.families.mfcc_cnn.network import Network
from genreflow.features import represent
from genreflow.fitting import training_settings

CNN = MfccCnn()
SETTINGS = MfccCnnSettings()


def built(settings: MfccCnnSettings = SETTINGS) -> Network:
    module = CNN.build(settings, GENRES, "inputs", seed=0)
    assert isinstance(module, Network)
    return module


def feature_maps(n: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(3, 20, (n, 5, 40, 130)).astype(np.float32))


def test_the_layers_are_the_published_ones_in_their_order() -> None:
    module = built()
    kinds = [type(layer) for layer in module.body]
    block = [nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.MaxPool2d, nn.Dropout]
    assert kinds == [*block, *block, nn.AdaptiveAvgPool2d, nn.Flatten]
    assert [type(layer) for layer in module.head] == [
        nn.Linear,
        nn.ReLU,
        nn.BatchNorm1d,
        nn.Dropout,
        nn.Linear,
    ]
    shapes = {name: tuple(tensor.shape) for name, tensor in module.named_parameters()}
    assert shapes["body.0.weight"] == (32, 5, 3, 3)
    assert shapes["body.5.weight"] == (64, 32, 3, 3)
    assert shapes["head.0.weight"] == (128, 64)
    assert shapes["head.4.weight"] == (10, 128)


def test_it_learns_with_adam_and_a_weight_decay_of_1e_4() -> None:
    settings = training_settings(CNN, SETTINGS, {})
    assert (settings.optimizer, settings.weight_decay, settings.precision) == ("adam", 1e-4, "auto")
    groups = CNN.parameter_groups(built(), SETTINGS, settings)
    assert {group["weight_decay"] for group in groups} == {1e-4}
    assert sum(len(group["params"]) for group in groups) == len(list(built().parameters()))


def test_its_answers_are_log_probabilities_and_its_loss_their_cross_entropy() -> None:
    module = built().eval()
    labels = torch.arange(8)
    with torch.no_grad():
        output = module(feature_maps(), labels=labels)
    assert output.logits.exp().sum(dim=1).numpy() == pytest.approx(np.ones(8), abs=1e-5)
    assert float(output.loss) == pytest.approx(-float(output.logits[labels, labels].mean()), abs=1e-5)
    assert module(feature_maps()).loss is None


def test_its_input_specification_fits_its_input_shape() -> None:
    spec = CNN.input_spec(SETTINGS)
    windows = np.random.default_rng(0).normal(0, 0.1, (2, spec.window_samples)).astype(np.float32)
    inputs = represent(spec, windows)
    assert built().eval()(torch.from_numpy(inputs)).logits.shape == (2, 10)
    assert CNN.input_spec(MfccCnnSettings(hop_seconds=1.5)).hop_seconds == 1.5


def test_feature_maps_are_standardised_with_statistics_of_the_training_rows() -> None:
    module, rows = built(), feature_maps(32)
    rows[:, 2, 5] = 7.0  # a row that never changes
    CNN.fit_inputs(module, iter(rows.split(10)))
    standard = (rows - module.mean) / module.deviation
    assert standard.mean(dim=(0, 3)).abs().max() < 1e-3
    deviations = standard.std(dim=(0, 3), correction=0)
    assert deviations[2, 5] == 0
    deviations[2, 5] = 1
    assert deviations.numpy() == pytest.approx(np.ones((5, 40)), abs=1e-3)


def test_noise_and_hidden_spans_affect_training_and_never_predictions() -> None:
    module = built(MfccCnnSettings(noise=0.1, time_mask=40))
    rows = torch.ones(16, 5, 40, 130)
    disturbed = module.disturb(rows)
    hidden = (disturbed == 0).all(dim=(1, 2)).sum(dim=1)
    assert 0 < hidden.max() <= 40
    assert len(set(hidden.tolist())) > 3
    module.eval()
    assert torch.equal(module(rows).logits, module(rows).logits)


def test_a_model_comes_back_from_its_files_as_it_was(tmp_path: Path) -> None:
    module = built()
    CNN.fit_inputs(module, [feature_maps()])
    module(feature_maps())  # moves the running statistics
    CNN.save(module.eval(), tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    again = CNN.load_module(tmp_path, SETTINGS, GENRES)
    assert not again.training
    assert torch.equal(again(feature_maps()).logits, module(feature_maps()).logits)


def test_files_that_are_missing_broken_or_of_other_genres_give_error_messages(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no readable mfcc_cnn model"):
        CNN.load_module(tmp_path, SETTINGS, GENRES)
    CNN.save(built(), tmp_path)
    with pytest.raises(ModelError, match="do not fit mfcc_cnn with 3 genres"):
        CNN.load_module(tmp_path, SETTINGS, GENRES[:3])
    (tmp_path / "model.safetensors").write_bytes(b"<html>")
    with pytest.raises(ModelError, match="no readable mfcc_cnn model"):
        CNN.load_module(tmp_path, SETTINGS, GENRES)
    CNN.save(built(), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "mfcc_cnn/0"}))
    with pytest.raises(ModelError, match="mfcc_cnn/0"):
        CNN.load_module(tmp_path, SETTINGS, GENRES)


def test_building_from_a_seed_does_not_change_the_random_state() -> None:
    state = torch.get_rng_state()
    first = built().body[0].weight
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, built().body[0].weight)
