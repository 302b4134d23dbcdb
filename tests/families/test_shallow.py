"""Shallow classifiers on descriptors: search, files, export, packaging; what is refused in a sentence."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import split_of, tones, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from genreflow import packaging
from genreflow.core.documents import ModelDocument, PackagedDocument
from genreflow.core.errors import ModelError, SettingsError, TrainingError
from genreflow.evaluation import gate
from genreflow.extraction import extract
from genreflow.families import family
from genreflow.families.shallow import ShallowSettings, estimators, files, onnx_export, training_rows
from genreflow.families.shallow.search import (
    ABSENT_LOGIT,
    Rows,
    check_neighbours,
    clip_score,
    fit,
    folds_of,
    search,
)
from genreflow.fitting import fine_tuning
from genreflow.inference.backends.onnxruntime import load_onnx
from genreflow.inference.loading import load_checked_classifier, load_classifier, load_trained

GENRES = ("blues", "disco", "metal")
SHALLOW = family("shallow")
FEATURES = 8


def rows(clips: int = 18, chunks: int = 3, seed: int = 0, spread: float = 1.5) -> Rows:
    """Clips of three genres as clouds of chunks; two clips are of one artist."""
    generator = np.random.default_rng(seed)
    labels = np.arange(clips) % len(GENRES)
    centres = 2 * np.eye(len(GENRES), FEATURES)[labels] + spread * generator.standard_normal(
        (clips, FEATURES)
    )
    features = np.repeat(centres, chunks, axis=0) + 0.3 * generator.standard_normal(
        (clips * chunks, FEATURES)
    )
    scale = np.logspace(0, 6, FEATURES)  # as descriptors, of many sizes
    number = np.repeat(np.arange(clips), chunks)
    groups = number % len(GENRES) + len(GENRES) * (number // (2 * len(GENRES)))
    return Rows((features * scale).astype(np.float32), np.repeat(labels, chunks), number, groups)


@pytest.mark.parametrize("name", estimators.NAMES)
def test_every_classifier_gives_the_same_logits_in_its_files_and_in_onnx(name: str, tmp_path: Path) -> None:
    given_rows = rows()
    without_last = given_rows.take(given_rows.labels != 1)  # one genre has no row to learn from
    for taught, classes in ((given_rows, [0, 1, 2]), (without_last, [0, 2])):
        folder = tmp_path / str(len(classes))
        folder.mkdir()
        fitted = fit(name, {}, taught, seed=1)
        expected = fitted.logits(given_rows.features, 3)
        files.save(name, fitted, FEATURES, folder)
        read, config = files.load(folder, GENRES)
        assert config["classes"] == classes
        np.testing.assert_allclose(read.logits(given_rows.features, 3), expected, atol=1e-6)
        onnx_export.export(fitted, name, FEATURES, 3, folder / "model.onnx")
        np.testing.assert_allclose(load_onnx(folder / "model.onnx")(given_rows.features), expected, atol=2e-3)
        assert (expected[:, [label for label in range(3) if label not in classes]] == ABSENT_LOGIT).all()
        assert not [path for path in folder.iterdir() if path.suffix in (".pkl", ".joblib")]


@settings(max_examples=30, deadline=None)
@given(clips=st.integers(3, 30), chunks=st.integers(1, 4), folds=st.integers(2, 6), seed=st.integers(0, 9))
def test_nothing_of_a_group_is_on_both_sides_of_a_fold(
    clips: int, chunks: int, folds: int, seed: int
) -> None:
    given_rows = rows(clips, chunks, seed)
    fold = folds_of(given_rows, folds, seed)
    for group in np.unique(given_rows.groups):
        assert len(set(fold[given_rows.groups == group].tolist()) - {-1}) <= 1
    for number in range(int(fold.max(initial=-1)) + 1):
        held_out = np.unique(given_rows.labels[fold == number])
        assert np.isin(held_out, given_rows.labels[fold != number]).all()


def test_a_genre_of_one_artist_is_trained_on_in_every_fold() -> None:
    given_rows = rows()
    groups = np.where(given_rows.labels == 2, 99, given_rows.groups)
    fold = folds_of(Rows(given_rows.features, given_rows.labels, given_rows.clips, groups), 3, 0)
    assert (fold[given_rows.labels == 2] == -1).all()
    assert set(fold[given_rows.labels == 0].tolist()) <= {0, 1, 2}


def test_a_clip_is_predicted_by_the_mean_of_its_chunks() -> None:
    given_rows = Rows(np.zeros((3, 1), np.float32), np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3))
    votes = np.log([[0.4, 0.6], [0.45, 0.55], [0.99, 0.01]])  # two of three chunks are wrong
    assert clip_score(given_rows, votes) == 1.0


def test_augmented_copies_are_trained_on_and_never_held_out() -> None:
    """They lie in a place of their own, where a copy is like copies of all genres."""
    clean = rows(spread=0.1)
    copies = np.full((3 * len(clean), FEATURES), 1e9) * np.arange(1, 3 * len(clean) + 1)[:, None]
    given_rows = Rows(
        np.concatenate([clean.features, copies.astype(np.float32)]),
        *(np.tile(values, 4) for values in (clean.labels, clean.clips, clean.groups)),
        np.arange(4 * len(clean)) >= len(clean),
    )
    for how in ("none", "grid"):
        found = search("decision_tree", given_rows, 3, how, folds=2)  # type: ignore[arg-type]
        assert np.isfinite(found.logits[: len(clean)]).all()
        assert np.isnan(found.logits[len(clean) :]).all()
        assert found.score == clip_score(clean, found.logits[: len(clean)])
    assert found.score > 0.9


def test_cross_validation_of_a_fit_counts_no_augmented_window(corpus: Path, tmp_path: Path) -> None:
    split = split_of(corpus / "corpus")
    model = {"classifier": "decision_tree", "window_seconds": 1.0, "views": 2}
    context = fine_tuning.open_context(
        corpus / "features", split, tmp_path, SHALLOW, model, {"search": "none"}, corpus=corpus / "corpus"
    )
    given_rows = training_rows(context)
    views = context.features.index.iloc[context.features.rows("train")]["view"].to_numpy()
    assert set(views) == {0, 1, 2}
    np.testing.assert_array_equal(given_rows.augmented, views > 0)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_shallow import rows
from genreflow.families.shallow.search import search

def stop(done, total, best):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

search("decision_tree", rows(), 3, {how!r}, folds=2, trials=6, storage=Path({storage!r}), on_trial=stop)
"""


@pytest.mark.parametrize("how", ["grid", "bayesian"])
def test_a_search_that_was_killed_resumes_and_finds_what_an_uninterrupted_one_finds(
    how: Any, tmp_path: Path
) -> None:
    storage = tmp_path / "searches" / "one.journal"
    code = KILLED.format(tests=str(Path(__file__).parent), how=how, storage=str(storage))
    path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == -signal.SIGKILL
    _leave_a_trial_running(storage)
    measured: list[int] = []
    options: dict[str, Any] = {"folds": 2, "trials": 6}
    gone_on = search(
        "decision_tree", rows(), 3, how, **options, storage=storage,
        on_trial=lambda done, total, best: measured.append(done),
    )  # fmt: skip
    whole = search("decision_tree", rows(), 3, how, **options)
    assert measured[0] == 4
    assert gone_on.parameters == whole.parameters
    assert (gone_on.score, gone_on.trials) == (whole.score, whole.trials)
    np.testing.assert_array_equal(gone_on.logits, whole.logits)
    again: list[int] = []
    search(
        "decision_tree", rows(), 3, how, **options, storage=storage,
        on_trial=lambda done, total, best: again.append(done),
    )  # fmt: skip
    assert again == []


def _leave_a_trial_running(storage: Path) -> None:
    """As a search leaves one that is killed while it measures."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study = optuna.load_study(study_name="search", storage=JournalStorage(JournalFileBackend(str(storage))))
    study.ask()


def test_two_searches_with_one_file_at_once_find_the_same(tmp_path: Path) -> None:
    """The second marked the trials of the first, which was alive, as failed."""
    storage, others = tmp_path / "search.journal", []
    options: dict[str, Any] = {"folds": 2, "trials": 4, "storage": storage}

    def meanwhile(done: int, total: int, best: float) -> None:
        if done == 1:
            others.append(search("decision_tree", rows(), 3, "bayesian", **options))

    found = search("decision_tree", rows(), 3, "bayesian", **options, on_trial=meanwhile)
    assert [other.parameters for other in others] == [found.parameters]


def test_a_fixed_number_of_neighbours_is_searched_around() -> None:
    found = search("knn", rows(clips=6, chunks=10), 3, "grid", folds=2, fixed={"n_neighbors": 15})
    assert found.parameters["n_neighbors"] == 15


def test_a_file_that_is_no_search_gives_an_error_message(tmp_path: Path) -> None:
    storage = tmp_path / "search.journal"
    storage.write_text("no search\nat all\n")
    with pytest.raises(TrainingError, match="is no readable search"):
        search("decision_tree", rows(), 3, "grid", folds=2, storage=storage)


def test_more_neighbours_than_the_smallest_genre_has_rows_are_refused_and_never_searched() -> None:
    given_rows = rows(clips=9, chunks=1)
    with pytest.raises(TrainingError, match="5 neighbours are more than the 3 training rows of blues"):
        check_neighbours("knn", {}, given_rows, GENRES)
    for how in ("grid", "bayesian"):
        found = search("knn", given_rows, 3, how, folds=3, trials=6)
        assert found.parameters["n_neighbors"] <= 2


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"k": 3}, r"has no parameter 'k': training.parameters may hold n_neighbors, weights"),
        ({"n_neighbors": 0}, "a whole number of 1 or more, not 0"),
        ({"n_neighbors": 2.5}, "a whole number of 1 or more, not 2.5"),
        ({"weights": "heavy"}, "uniform or distance, not 'heavy'"),
    ],
)
def test_parameters_that_do_not_fit_give_error_messages(parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        estimators.check_parameters("knn", parameters)


def test_an_unknown_classifier_is_named_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match="xgboost"):
        SHALLOW.settings({"classifier": "perceptron"})


def test_files_of_another_version_or_with_code_in_them_are_refused(tmp_path: Path) -> None:
    import skops.io

    files.save("knn", fit("knn", {}, rows(), 0), FEATURES, tmp_path)
    skops.io.dump(subprocess.Popen, tmp_path / files.SKOPS_FILE)
    with pytest.raises(ModelError, match="cannot be read"):
        files.load(tmp_path, GENRES)
    config = json.loads((tmp_path / files.CONFIG_FILE).read_text())
    (tmp_path / files.CONFIG_FILE).write_text(json.dumps({**config, "version": "0.1"}))
    with pytest.raises(ModelError, match=r"written by scikit-learn 0\.1, and .* is installed"):
        files.load(tmp_path, GENRES)


DIGESTS = """
import hashlib, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_shallow import FEATURES, rows
from genreflow.families.shallow import files
from genreflow.families.shallow.search import fit

for name in ('svm', 'decision_tree', 'xgboost', 'knn'):
    folder = Path({folder!r}) / name
    folder.mkdir()
    files.save(name, fit(name, {{}}, rows(), 0), FEATURES, folder)
    for path in sorted(folder.iterdir()):
        print(name, path.name, hashlib.sha256(path.read_bytes()).hexdigest())
"""


def test_the_same_fit_in_another_process_has_the_same_files(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
    digests = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        code = DIGESTS.format(tests=str(Path(__file__).parent), folder=str(tmp_path / str(number)))
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": str(number)},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.append(done.stdout.splitlines())
    assert len(digests[0]) == 2 * 4
    assert digests[0] == digests[1]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, its split beside it, and its features."""
    folder = tmp_path_factory.mktemp("shallow")
    write_corpus(folder / "corpus", tones(GENRES, per_genre=8), GENRES)
    extract(
        folder / "corpus",
        SHALLOW.representation(ShallowSettings(window_seconds=1.0)),
        folder / "features",
        device="cpu",
    )
    return folder


def packaged(corpus: Path, out: Path, classifier: str, **training: Any) -> PackagedDocument:
    model = {"classifier": classifier, "window_seconds": 1.0}
    split = split_of(corpus / "corpus")
    fine_tuning.fine_tune(corpus / "features", split, out / "model", SHALLOW, model, training)
    return packaging.package(out / "model", corpus / "corpus", split, out / "packaged")


def test_a_model_is_served_by_onnx_runtime_without_torch_or_scikit_learn(
    corpus: Path, tmp_path: Path
) -> None:
    document = packaged(corpus, tmp_path, "svm", folds=2)
    assert document.served.label == "onnxruntime f32"
    assert document.model.calibration is not None
    assert document.model.training["found_parameters"].keys() == {"C", "gamma"}
    assert gate.facts(document, "it").runtimes == ("sklearn", "onnxruntime")
    code = (
        "import sys, numpy, genreflow\n"
        f"classifier = genreflow.load({str(tmp_path / 'packaged')!r})\n"
        "print(classifier.classify_samples(numpy.zeros(30_000, numpy.float32), 22_050).genre)\n"
        "heavy = {'torch', 'sklearn', 'skops', 'xgboost', 'optuna', 'onnx'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_model_that_onnx_does_not_hold_is_served_by_scikit_learn(corpus: Path, tmp_path: Path) -> None:
    document = packaged(corpus, tmp_path, "knn", search="none", parameters={"weights": "distance"})
    (exported,) = [one for one in document.runtimes if one.name == "onnxruntime"]
    assert exported.reason == "skl2onnx weighs neighbours by another power of their distance"
    assert document.served.label == "sklearn f32"
    classifier = load_checked_classifier(tmp_path / "packaged")
    native = load_trained(tmp_path / "model", document.model)
    assert (classifier.runtime, native.runtime) == ("sklearn", "sklearn")
    samples = np.sin(np.arange(44_100) / 9).astype(np.float32)
    assert classifier.classify_samples(samples, 22_050) == native.classify_samples(samples, 22_050)
    with pytest.raises(ModelError, match="OpenVINO does not serve this model"):
        load_classifier(tmp_path / "packaged", "openvino")
    assert gate.facts(document, "it").runtimes == ("sklearn",)


def test_a_fit_refuses_too_many_neighbours_before_it_writes_anything(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"200 neighbours are more than the \d+ training rows of"):
        packaged(corpus, tmp_path, "knn", search="none", parameters={"n_neighbors": 200})
    assert not list((tmp_path / "model").iterdir())


def test_a_trained_document_names_what_was_searched(corpus: Path, tmp_path: Path) -> None:
    packaged(corpus, tmp_path, "decision_tree", search="bayesian", trials=3, folds=2)
    training = ModelDocument.read(tmp_path / "model").training
    assert training["searched"] == 3
    assert training["selection"] == "bayesian search by cross-validation on training clips"
    assert not list((Path(os.environ["GENREFLOW_HOME"]) / "searches").glob("*.journal"))


def test_a_bento_of_onnx_runtime_has_neither_torch_nor_scikit_learn() -> None:
    from serving import recipe

    names = {line.partition("==")[0] for line in recipe.packages("onnxruntime", page=False)}
    assert "onnxruntime" in names
    assert not {"torch", "scikit-learn", "xgboost-cpu", "optuna"} & names
    assert {"scikit-learn", "skops", "xgboost-cpu"} <= {
        line.partition("==")[0] for line in recipe.packages("sklearn", page=False)
    }
