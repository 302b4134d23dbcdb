"""The metrics against scikit-learn, closed forms, and what must hold of any predictions."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn import metrics as reference

from genreflow.evaluation import metrics

GENRES = ("blues", "jazz", "metal", "pop")


@st.composite
def predictions(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Label ids (n,) and probabilities (n, 4), ties and missing genres included."""
    n = draw(st.integers(1, 40))
    truth = draw(arrays(np.int64, n, elements=st.integers(0, 3)))
    scores = draw(arrays(np.float64, (n, 4), elements=st.sampled_from([0.1, 0.5, 1.0, 2.0])))
    return truth, scores / scores.sum(1, keepdims=True)


@given(predictions())
def test_accuracy_macro_f1_and_confusion_are_scikit_learns(
    drawn: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> None:
    truth, probabilities = drawn
    answers = probabilities.argmax(1)
    assert metrics.accuracy(truth, answers) == pytest.approx(reference.accuracy_score(truth, answers))
    assert metrics.macro_f1(truth, answers, 4) == pytest.approx(
        reference.f1_score(truth, answers, average="macro", zero_division=0)
    )
    expected = reference.confusion_matrix(truth, answers, labels=range(4))
    assert (metrics.confusion(truth, answers, 4) == expected).all()


@given(predictions())
def test_every_genres_figures_are_scikit_learns_where_defined_and_none_elsewhere(
    drawn: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> None:
    truth, probabilities = drawn
    answers = probabilities.argmax(1)
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        truth, answers, labels=range(4), zero_division=np.nan
    )
    for label, (genre, scores) in enumerate(metrics.per_genre(truth, probabilities, GENRES).items()):
        assert genre == GENRES[label]
        assert scores.support == support[label]
        for ours, theirs in ((scores.precision, precision), (scores.recall, recall)):
            assert ours == (None if np.isnan(theirs[label]) else pytest.approx(theirs[label]))
        if scores.support + scores.predicted:
            assert scores.f1 == pytest.approx(np.nan_to_num(f1[label]))
        else:
            assert scores.f1 is None
        if 0 < scores.support < len(truth):
            area = reference.roc_auc_score(truth == label, probabilities[:, label])
            assert scores.auc == pytest.approx(area)
        else:
            assert scores.auc is None
        if scores.recall is not None and scores.recall_ci95 is not None:
            assert scores.recall_ci95[0] <= scores.recall <= scores.recall_ci95[1]


@given(predictions())
def test_likelihood_and_brier_score_are_scikit_learns(
    drawn: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> None:
    truth, probabilities = drawn
    found = metrics.calibration(truth, probabilities)
    assert found.nll == pytest.approx(reference.log_loss(truth, probabilities, labels=range(4)))
    assert found.brier == pytest.approx(
        reference.brier_score_loss(truth, probabilities, labels=range(4), scale_by_half=False)
    )


@given(predictions(), st.integers(1, 20))
def test_every_clip_lies_in_one_calibration_bin_and_the_error_between_0_and_1(
    drawn: tuple[NDArray[np.int64], NDArray[np.float64]], bins: int
) -> None:
    found = metrics.calibration(*drawn, bins=bins)
    assert sum(entry.count for entry in found.bins) == len(drawn[0])
    assert 0 <= found.ece <= 1
    for entry in found.bins:
        if entry.confidence is not None:
            assert entry.lower - 1e-9 <= entry.confidence <= entry.upper + 1e-9


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    truth = np.array([0] * 6 + [1] * 4)
    probabilities = np.tile([0.9, 0.1], (10, 1))
    assert metrics.calibration(truth, probabilities).ece == pytest.approx(0.9 - 0.6)
    honest = np.tile([0.6, 0.4], (10, 1))
    assert metrics.calibration(truth, honest).ece == pytest.approx(0)


def test_a_certain_and_right_model_has_no_calibration_error_and_a_certain_and_wrong_one_all_of_it() -> None:
    truth = np.array([0, 1, 1])
    assert metrics.calibration(truth, np.eye(2)[truth]).ece == 0
    wrong = metrics.calibration(truth, np.eye(2)[1 - truth])
    assert wrong.ece == 1
    assert wrong.brier == 2
    assert np.isfinite(wrong.nll)


def test_pairs_are_named_by_how_many_clips_are_confused_with_the_surest_mistakes_as_examples() -> None:
    truth = np.array([0, 0, 0, 1, 2, 2])
    probabilities = np.array(
        [
            [0.1, 0.6, 0.2, 0.1],
            [0.0, 0.9, 0.1, 0.0],
            [0.7, 0.1, 0.1, 0.1],
            [0.1, 0.7, 0.1, 0.1],
            [0.1, 0.1, 0.1, 0.7],
            [0.1, 0.1, 0.7, 0.1],
        ]
    )
    pairs = metrics.most_confused(truth, probabilities, GENRES, list("abcdef"))
    told = [(pair.genre, pair.predicted, pair.count, pair.examples) for pair in pairs]
    assert told == [("blues", "jazz", 2, ("b", "a")), ("metal", "pop", 1, ("e",))]
    assert pairs[0].share == pytest.approx(2 / 3)


def test_metric_objects_agree_with_the_functions_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path))
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, 50)
    probabilities = rng.dirichlet(np.ones(4), 50)
    answers = probabilities.argmax(1)
    found = {
        **metrics.Accuracy(cache_dir=str(tmp_path)).compute(predictions=answers, references=truth),
        **metrics.MacroF1(cache_dir=str(tmp_path)).compute(predictions=answers, references=truth, genres=4),
        **metrics.MacroAuc(cache_dir=str(tmp_path)).compute(predictions=probabilities, references=truth),
    }
    assert found == {
        "accuracy": pytest.approx(metrics.accuracy(truth, answers)),
        "macro_f1": pytest.approx(metrics.macro_f1(truth, answers, 4)),
        "macro_auc": pytest.approx(reference.roc_auc_score(truth, probabilities, multi_class="ovr")),
    }
    assert not list(tmp_path.rglob("*.arrow"))
