"""The `vit` family: its published configuration, what it learns, its files and its runtimes."""

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

from genreflow.core.errors import ModelError, SettingsError
from genreflow.core.genres import GENRES
from genreflow.families.vit import Vit, VitSettings
from genreflow.families.vit.network import Attention, DropPath, Network
from genreflow.features import represent
from genreflow.fitting import training_settings

VIT = Vit()
PUBLISHED_PARAMETERS = 25_356_810
SMALL: dict[str, Any] = {
    "patch": 24,
    "width": 48,
    "blocks": 2,
    "heads": 4,
    "feed_forward": 96,
    "dropout": 0.0,
    "drop_path": 0.0,
    "masks": 0,
}


def built(**settings: Any) -> Network:
    chosen = VitSettings.model_validate(settings)
    module = VIT.build(chosen, GENRES, "inputs", seed=0)
    assert isinstance(module, Network)
    return module


def parameters(**settings: Any) -> int:
    with torch.device("meta"):
        module = Network(len(GENRES), VitSettings.model_validate(settings))
    return sum(parameter.numel() for parameter in module.parameters())


def spectrograms(n: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((n, 1, 216, 144), dtype=np.float32))


def test_four_seconds_become_216_frames_of_144_bands_and_these_118_tokens_of_512_values() -> None:
    spec = VIT.input_spec(VitSettings())
    assert (spec.window_seconds, spec.hop_seconds, spec.extend) == (4, 2, "silence")
    windows = np.random.default_rng(0).normal(0, 0.1, (2, spec.window_samples)).astype(np.float32)
    inputs = represent(spec, windows)
    assert inputs.shape == (2, 1, 216, 144)
    assert (inputs.min(), inputs.max()) >= (0, 1)
    with torch.device("meta"):
        module = Network(len(GENRES), VitSettings())
        shapes = torch.empty(inputs.shape)
        assert module.patches(shapes).shape == (2, 512, 13, 9)
        assert module.tokens(shapes).shape == (2, 118, 512)
        assert module.eval()(shapes).logits.shape == (2, 10)


def test_the_blocks_are_the_published_ones_in_their_order() -> None:
    with torch.device("meta"):
        module = Network(len(GENRES), VitSettings())
    assert len(module.blocks) == 12
    block = module.blocks[0]
    assert [type(layer) for layer in block.attention] == [nn.LayerNorm, Attention, nn.Dropout, DropPath]
    assert block.attention[1].heads == 8
    assert [type(layer) for layer in block.feed_forward] == [
        nn.LayerNorm,
        nn.Linear,
        nn.GELU,
        nn.Dropout,
        nn.Linear,
        nn.Dropout,
        DropPath,
    ]
    rates = [block.attention[3].rate for block in module.blocks]
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (0, VitSettings().drop_path)
    assert module.time_positions.shape == (1, 13, 1, 512)
    assert module.frequency_positions.shape == (1, 1, 9, 512)


def test_its_parameters_are_the_published_number_with_eight_wider_blocks_and_near_it_with_twelve() -> None:
    assert parameters(blocks=8, feed_forward=2048) == PUBLISHED_PARAMETERS
    assert parameters() == pytest.approx(PUBLISHED_PARAMETERS, rel=4e-4)


def test_one_step_of_the_published_configuration_lowers_the_loss() -> None:
    module, settings = built(), training_settings(VIT, VitSettings(), {})
    groups = VIT.parameter_groups(module, VitSettings(), settings)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
    inputs, labels = spectrograms(2), torch.arange(2)
    with torch.inference_mode():
        before = module.eval()(inputs, labels=labels).loss
    torch.manual_seed(0)
    module.train()(inputs, labels=labels).loss.backward()
    optimizer.step()
    with torch.inference_mode():
        after = module.eval()(inputs, labels=labels).loss
    assert float(after) < float(before) < 2 * np.log(len(GENRES))


def test_weights_alone_decay_and_the_head_has_its_own_rate() -> None:
    module = built(**SMALL)
    settings = training_settings(VIT, VitSettings(), {"head_learning_rate": 1e-2})
    groups = VIT.parameter_groups(module, VitSettings(), settings)
    assert sum(len(group["params"]) for group in groups) == len(list(module.parameters()))
    found = {id(parameter): group for group in groups for parameter in group["params"]}
    assert found[id(module.head.weight)]["lr"] == 1e-2
    assert found[id(module.projection.weight)]["lr"] == settings.learning_rate
    assert found[id(module.projection.weight)]["weight_decay"] == settings.weight_decay == 0.1
    for undecayed in (module.class_token, module.norm.weight, module.head.bias):
        assert found[id(undecayed)]["weight_decay"] == 0


def test_branches_are_dropped_in_training_alone_and_on_average_weigh_as_much() -> None:
    drop = DropPath(0.25)
    branch = torch.ones(4000, 2, 3)
    torch.manual_seed(0)
    found = drop(branch)
    assert set(found.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    assert (found.amax(dim=(1, 2)) == found.amin(dim=(1, 2))).all()
    assert float(found.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(branch), branch)


def test_masks_and_dropout_affect_training_and_never_predictions() -> None:
    module = built(**SMALL | {"masks": 2, "time_mask": 0.5})
    inputs = spectrograms()
    assert not torch.equal(module.train()(inputs).logits, module(inputs).logits)
    module.eval()
    assert torch.equal(module(inputs).logits, module(inputs).logits)


def test_bands_are_standardised_with_statistics_of_the_training_rows() -> None:
    module, rows = built(**SMALL), spectrograms(6)
    rows[..., 7] = 0.5  # a band that never changes
    VIT.fit_inputs(module, iter(rows.split(4)))
    standard = (rows - module.mean) / module.deviation
    assert standard.mean(dim=(0, 1, 2)).abs().max() < 1e-5
    deviations = standard.std(dim=(0, 1, 2), correction=0)
    assert float(deviations[7]) == 0
    assert deviations[8:].numpy() == pytest.approx(np.ones(136), abs=1e-4)


def test_a_model_comes_back_from_its_files_as_it_was(tmp_path: Path) -> None:
    module, settings = built(**SMALL).eval(), VitSettings.model_validate(SMALL)
    VIT.fit_inputs(module, [spectrograms()])
    VIT.save(module, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    again = VIT.load_module(tmp_path, settings, GENRES)
    assert torch.equal(again(spectrograms()).logits, module(spectrograms()).logits)
    with pytest.raises(ModelError, match="do not fit vit with 3 genres"):
        VIT.load_module(tmp_path, settings, GENRES[:3])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 100}, "width 100 is no multiple of heads 8"),
        ({"window_seconds": 0.2}, "holds no patch of 16 by 16: lengthen window_seconds, or lower patch"),
        ({"bands": 8}, "holds no patch"),
        ({"dropout": 1.5}, "model.dropout"),
    ],
)
def test_settings_that_do_not_go_together_give_error_messages(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        VIT.settings(values)


@pytest.mark.numeric
def test_openvino_predicts_as_pytorch_in_batches_of_any_size(tmp_path: Path) -> None:
    check_openvino_predicts_as(built(**SMALL).eval(), spectrograms(5), tmp_path / "model.xml")


def test_a_small_one_learns_the_synthetic_corpus_and_openvino_serves_it(
    synthetic: Path, tmp_path: Path
) -> None:
    training = {"epochs": 25, "batch_size": 4, "learning_rate": 2e-3, "patience": 25}
    packaged = package_fitted("vit", synthetic, tmp_path, SMALL, training)
    check_learned_and_served_by_openvino(packaged, synthetic)


def test_clips_shorter_than_a_window_and_a_genre_with_one_training_clip_are_fitted_and_classified(
    short: Path, tmp_path: Path
) -> None:
    training = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3}
    packaged = package_fitted("vit", short, tmp_path, SMALL, training)
    check_classifies_a_short_clip(packaged, short)
