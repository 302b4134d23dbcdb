"""musicnn as a frozen stage, and `linear` on it as the default for real music."""

from pathlib import Path

import numpy as np
import pytest
import torch
from corpora import split_of, tones, write_corpus

from genreflow.backbones import load_module, load_stage, save_stage
from genreflow.backbones.musicnn import weights
from genreflow.backbones.musicnn.stage import PRETRAINING, represent
from genreflow.core.errors import ModelError, SettingsError
from genreflow.extraction import extract
from genreflow.families import family
from genreflow.families.linear import LinearSettings
from genreflow.fitting.fine_tuning import fine_tune
from genreflow.inference.backends.openvino import compile_openvino
from pipelines import checks
from pipelines.settings import settings

GENRES = ("blues", "jazz")


@pytest.fixture
def here(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are on this machine."""
    monkeypatch.setenv(weights.VARIABLE, str(wheel.parent))


@pytest.mark.usefixtures("here")
def test_the_stage_gives_what_the_module_gives_that_a_model_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    representation = represent()
    log_mel = np.random.default_rng(0).random((3, 187, 96), dtype=np.float32) * 3
    computed = load_stage(representation, "cpu").compute(log_mel)
    save_stage(representation, tmp_path / "backbone")
    monkeypatch.delenv(weights.VARIABLE)
    module = load_module("musicnn", representation.parameters, tmp_path / "backbone")
    with torch.inference_mode():
        kept = module(torch.from_numpy(log_mel)).numpy()
    np.testing.assert_allclose(computed, kept, atol=1e-3)
    assert "Permission to use, copy" in (tmp_path / "backbone" / "LICENSE.md").read_text()


@pytest.mark.usefixtures("here")
def test_linear_on_musicnn_is_fitted_loaded_and_exported_as_one_model(tmp_path: Path) -> None:
    linear = family("linear")
    corpus = write_corpus(tmp_path / "corpus", tones(GENRES, per_genre=4, seconds=4.0), GENRES)
    extract(corpus, linear.representation(LinearSettings()), tmp_path / "features", device="cpu")
    document = fine_tune(tmp_path / "features", split_of(corpus), tmp_path / "model", linear, {}, {})
    assert (document.pretrained, document.pretraining) == ("musicnn", PRETRAINING)
    assert document.training["rows"] == "clips"
    inputs = np.random.default_rng(0).random((3, 187, 96), dtype=np.float32) * 3
    expected = linear.load(tmp_path / "model", LinearSettings(), GENRES)(inputs)
    assert expected.shape == (3, 2)
    linear.export_openvino(tmp_path / "model", document, inputs, tmp_path / "model.xml")
    compiled = compile_openvino(tmp_path / "model.xml", "f32")
    np.testing.assert_allclose(compiled(inputs), expected, atol=2e-3)
    np.testing.assert_allclose(compiled(inputs[:1]), expected[:1], atol=2e-3)


def test_a_run_on_real_music_that_names_no_family_is_linear_on_musicnn(tmp_path: Path) -> None:
    chosen = settings(source=str(tmp_path))
    assert (chosen.profile, chosen.family, chosen.backbone) == ("music", "linear", "musicnn")
    assert settings().family == "encoder"
    assert settings(source="synthetic?clips=4&seconds=5&seed=0").profile == "quickstart"
    assert settings(source=str(tmp_path), family_name="mfcc_cnn").profile == "quickstart"
    assert settings(assignments=[f"source={tmp_path}"]).family == "linear"
    descriptors = settings(source=str(tmp_path), family_name="linear", backbone="descriptors")
    assert (descriptors.model["backbone"], descriptors.backbone) == ("descriptors", None)


@pytest.mark.usefixtures("no_index")
def test_without_weights_the_run_stops_with_three_solutions(tmp_path: Path) -> None:
    from genreflow.corpus.synthetic import synthesise

    synthesise(tmp_path / "music", 2, 1.0, 0)
    with pytest.raises(ModelError, match=r"three ways on: .*weights fetch.*GENREFLOW_WEIGHTS.*descriptors"):
        checks.before_run(settings(source=str(tmp_path / "music")))


@pytest.mark.usefixtures("no_index")
def test_a_step_never_downloads_weights() -> None:
    with pytest.raises(ModelError, match="are not available"):
        family("linear").representation(LinearSettings())


@pytest.mark.usefixtures("here")
def test_settings_of_other_backbones_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"model\.segments does not apply to the backbone musicnn"):
        family("linear").representation(LinearSettings(segments=2))
    with pytest.raises(SettingsError, match="writes no checkpoints"):
        settings(family_name="linear", checkpoint_uri="s3://bucket/runs", source="/music")
