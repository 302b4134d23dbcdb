"""The metrics against their definitions, closed forms, and what must hold of any predictions."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn import metrics as reference

from genreflow.evaluation import headline, metrics

GENRES = ("blues", "jazz", "metal", "pop")


@st.composite
def predictions(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Label ids (n,) and probabilities (n, 4), ties and missing genres included."""
    n = draw(st.integers(1, 40))
    truth = draw(arrays(np.int64, n, elements=st.integers(0, 3)))
    scores = draw(arrays(np.float64, (n, 4), elements=st.sampled_from([0.1, 0.5, 1.0, 2.0])))
    return truth, scores / scores.sum(1, keepdims=True)


@given(predictions())
def test_macro_f1_of_a_confusion_matrix_is_scikit_learns_of_its_clips(
    drawn: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> None:
    truth, probabilities = drawn
    answers = probabilities.argmax(1)
    matrix = reference.confusion_matrix(truth, answers, labels=range(4))
    expected = reference.f1_score(truth, answers, average="macro", zero_division=0)
    assert metrics.macro_f1_of(matrix) == pytest.approx(expected)
    found = headline.MacroF1().compute(predictions=answers, references=truth)
    assert found == {"macro_f1": pytest.approx(expected)}


@given(predictions())
def test_every_genres_figures_are_shares_of_counts_where_defined_and_none_elsewhere(
    drawn: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> None:
    truth, probabilities = drawn
    answers = probabilities.argmax(1)
    found = metrics.per_genre(truth, probabilities, GENRES)
    assert tuple(found) == GENRES
    for label, scores in enumerate(found.values()):
        hits = sum((truth == label) & (answers == label))
        assert (scores.support, scores.predicted) == (sum(truth == label), sum(answers == label))
        for ours, counted in (
            (scores.precision, scores.predicted),
            (scores.recall, scores.support),
            (scores.f1, (scores.support + scores.predicted) / 2),
        ):
            assert ours == (pytest.approx(hits / counted) if counted else None)
        ours, others = probabilities[truth == label, label], probabilities[truth != label, label]
        if len(ours) and len(others):
            above = (ours[:, None] > others).mean() + (ours[:, None] == others).mean() / 2
            assert scores.auc == pytest.approx(above)
        else:
            assert scores.auc is None
        assert (scores.recall_ci95 is None) == (scores.recall is None)
        if scores.recall is not None and scores.recall_ci95 is not None:
            assert scores.recall_ci95[0] <= scores.recall <= scores.recall_ci95[1]


@given(predictions())
def test_likelihood_and_brier_score_are_those_of_their_definitions(
    drawn: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> None:
    truth, probabilities = drawn
    found = metrics.calibration(truth, probabilities)
    assert found.nll == pytest.approx(reference.log_loss(truth, probabilities, labels=range(4)))
    assert found.brier == pytest.approx(((probabilities - np.eye(4)[truth]) ** 2).sum(1).mean())


def test_probabilities_in_float32_are_scored_without_a_complaint_of_their_rounding() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 200).astype(np.float32)
    probabilities[0] = [1 + 1e-6, 0, 0, 0]
    truth = np.arange(200) % 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.calibration(truth, probabilities)
        metrics.per_genre(truth, probabilities, GENRES)
        headline.MacroAuc().compute(predictions=probabilities, references=truth)
    assert found.brier == pytest.approx(((probabilities - np.eye(4)[truth]) ** 2).sum(1).mean())


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
    calibrated = np.tile([0.6, 0.4], (10, 1))
    assert metrics.calibration(truth, calibrated).ece == pytest.approx(0)


def test_a_confident_correct_model_has_calibration_error_0_and_a_confident_wrong_one_1() -> None:
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
    reported = [(pair.genre, pair.predicted, pair.count, pair.examples) for pair in pairs]
    assert reported == [("blues", "jazz", 2, ("b", "a")), ("metal", "pop", 1, ("e",))]
    assert pairs[0].share == pytest.approx(2 / 3)


def test_metric_objects_give_scikit_learns_figures_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path))
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, 50)
    probabilities = rng.dirichlet(np.ones(4), 50)
    answers = probabilities.argmax(1)
    found = {
        **headline.Accuracy(cache_dir=str(tmp_path)).compute(predictions=answers, references=truth),
        **headline.MacroF1(cache_dir=str(tmp_path)).compute(predictions=answers, references=truth),
        **headline.MacroAuc(cache_dir=str(tmp_path)).compute(predictions=probabilities, references=truth),
    }
    assert found == {
        "accuracy": pytest.approx(float((truth == answers).mean())),
        "macro_f1": pytest.approx(reference.f1_score(truth, answers, average="macro")),
        "macro_auc": pytest.approx(reference.roc_auc_score(truth, probabilities, multi_class="ovr")),
    }
    assert not list(tmp_path.rglob("*.arrow"))
