"""Logistic regression on frozen embeddings or descriptors: one folded layer, its files, its runtimes."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from checkpoints import tiny_checkpoint, window_seconds
from corpora import split_of, tones, write_corpus
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from genreflow.core.documents import ModelDocument
from genreflow.core.errors import ModelError, SettingsError
from genreflow.extraction import Features, extract
from genreflow.families import family
from genreflow.families.linear import Affine, LinearSettings
from genreflow.fitting import fine_tuning
from genreflow.inference.answers import softmax
from genreflow.inference.backends.openvino import compile_openvino

GENRES = ("blues", "disco", "metal")
LINEAR = family("linear")
SHORT = {"window_seconds": 1.0}


def corpus(folder: Path, genres: tuple[str, ...] = GENRES) -> Path:
    return write_corpus(folder / "corpus", tones(genres, per_genre=8), genres)


def fitted(folder: Path, model: dict[str, Any], training: dict[str, Any] | None = None) -> ModelDocument:
    """A linear model in `folder/model`, of the corpus in `folder/corpus`."""
    settings = LinearSettings.model_validate(model)
    extract(folder / "corpus", LINEAR.representation(settings), folder / "features", device="cpu")
    split = split_of(folder / "corpus")
    return fine_tuning.fine_tune(folder / "features", split, folder / "model", LINEAR, model, training or {})


def training_rows(folder: Path) -> tuple[NDArray[np.float32], pd.DataFrame]:
    from genreflow.corpus.splitting import Split

    features = Features.open(folder / "features")
    features.assign(Split.open(split_of(folder / "corpus")))
    rows = features.rows("train")
    return features.array(rows), features.index.iloc[rows].reset_index(drop=True)


def test_the_folded_layer_gives_the_probabilities_of_scikit_learns_pipeline(tmp_path: Path) -> None:
    corpus(tmp_path)
    document = fitted(tmp_path, {"backbone": "descriptors", **SHORT}, {"C": 0.5, "rows": "windows"})
    rows, index = training_rows(tmp_path)
    weights = 1 / index.groupby("clip_id")["clip_id"].transform("size").to_numpy()
    steps = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=3000))
    steps.fit(
        rows.astype(np.float64),
        index["label"],
        standardscaler__sample_weight=weights,
        logisticregression__sample_weight=weights,
    )
    predict = LINEAR.load(tmp_path / "model", LinearSettings.model_validate(document.settings), GENRES)
    expected = steps.predict_proba(rows.astype(np.float64))
    np.testing.assert_allclose(softmax(predict(rows)), expected, atol=2e-3)


def test_two_genres_have_the_probabilities_of_a_binary_regression(tmp_path: Path) -> None:
    corpus(tmp_path, GENRES[:2])
    fitted(tmp_path, {"backbone": "descriptors", **SHORT})
    rows, index = training_rows(tmp_path)
    predict = LINEAR.load(tmp_path / "model", LinearSettings(), GENRES[:2])
    right = predict(rows).argmax(axis=1) == index["label"].to_numpy()
    assert right.mean() > 0.9


def test_descriptors_are_extracted_fitted_loaded_and_exported_without_torch(tmp_path: Path) -> None:
    corpus(tmp_path)
    code = f"""
import sys
from pathlib import Path
import numpy as np
from genreflow.core.documents import ModelDocument
from genreflow.extraction import extract
from genreflow.families import family
from genreflow.fitting.fine_tuning import fine_tune
folder, linear = Path({str(tmp_path)!r}), family("linear")
settings = linear.settings_type(backbone="descriptors", window_seconds=1.0)
extract(folder / "corpus", linear.representation(settings), folder / "features", device="cpu")
document = fine_tune(folder / "features", folder / "corpus-split", folder / "model", linear,
    settings.model_dump(), {{}})
inputs = np.load(folder / "features" / "windows.npy")[:4]
np.save(folder / "logits.npy", linear.load(folder / "model", settings, document.genres)(inputs))
linear.export_openvino(folder / "model", document, inputs, folder / "model.xml")
sys.exit("torch was imported" if "torch" in sys.modules else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".safetensors", ".json"}
    inputs = np.load(tmp_path / "features" / "windows.npy")[:4]
    compiled = compile_openvino(tmp_path / "model.xml", "f32")
    np.testing.assert_allclose(compiled(inputs), np.load(tmp_path / "logits.npy"), rtol=1e-3, atol=1e-3)
    assert compiled(inputs[:1]).shape == (1, 3)


@pytest.mark.parametrize("layout", ["hubert", "whisper", "ast"])
def test_an_encoders_model_predicts_what_its_features_give_and_needs_the_backbone_no_longer(
    layout: str, tmp_path: Path
) -> None:
    corpus(tmp_path)
    tiny_checkpoint(layout, tmp_path / "backbone", seed=0)
    model = {
        "backbone": str(tmp_path / "backbone"),
        "window_seconds": window_seconds(layout),
        "segments": 2,
    }
    document = fitted(tmp_path, model)
    stored, index = training_rows(tmp_path)
    shutil.rmtree(tmp_path / "backbone")
    assert document.pretrained == str(tmp_path / "backbone")
    settings = LinearSettings.model_validate(document.settings)
    predict = LINEAR.load(tmp_path / "model", settings, GENRES)
    from safetensors.numpy import load_file

    tensors = load_file(tmp_path / "model" / "model.safetensors")
    embeddings = stored.reshape(len(stored), 2, -1)
    expected = Affine(tensors["weight"], tensors["bias"]).window_logits(embeddings)
    from genreflow.corpus.store import Corpus
    from genreflow.features import window_inputs

    store = Corpus.open(tmp_path / "corpus")
    row = int(np.flatnonzero(store.manifest["clip_id"] == index["clip_id"][0])[0])
    inputs, _ = window_inputs(document.input_spec, store.samples(row), store.sample_rate(row))
    np.testing.assert_allclose(predict(inputs), expected[: len(inputs)], atol=2e-3)
    pair = np.concatenate([inputs, inputs])[:2]
    LINEAR.export_openvino(tmp_path / "model", document, pair, tmp_path / "model.xml")
    np.testing.assert_allclose(
        compile_openvino(tmp_path / "model.xml", "f32")(inputs), predict(inputs), atol=2e-3
    )


def test_settings_that_a_backbone_does_not_read_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"model\.layers does not apply to the backbone descriptors"):
        LINEAR.representation(LinearSettings(backbone="descriptors", layers="last"))


def test_files_that_are_missing_or_of_other_genres_give_error_messages(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no readable linear model"):
        LINEAR.load(tmp_path, LinearSettings(), GENRES)
    corpus(tmp_path)
    fitted(tmp_path, {"backbone": "descriptors", **SHORT})
    with pytest.raises(ModelError, match="of 3 genres, and its document has 2"):
        LINEAR.load(tmp_path / "model", LinearSettings(), GENRES[:2])
