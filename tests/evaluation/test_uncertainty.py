"""Intervals against scipy, brute force, and what must hold of any sample."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from genreflow.evaluation.metrics import macro_f1_of
from genreflow.evaluation.uncertainty import accuracy_interval, bootstrap_confusion, wilson


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys_and_holds_the_share(drawn: tuple[int, int]) -> None:
    right, n = drawn
    low, high = wilson(right, n)
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= right / n <= high <= 1


@given(st.integers(0, 20), st.integers(2, 10))
def test_more_clips_of_the_same_share_make_a_narrower_interval(right: int, times: int) -> None:
    few, many = wilson(right, 20), wilson(right * times, 20 * times)
    assert many[1] - many[0] < few[1] - few[0]


def test_an_interval_of_zero_trials_is_rejected() -> None:
    with pytest.raises(ValueError, match="trials > 0"):
        wilson(0, 0)


def test_copies_of_a_clip_do_not_count_as_further_observations() -> None:
    correct = np.array([True, False, True, True])
    once = accuracy_interval(correct, list("abcd"))
    copied = accuracy_interval(np.tile(correct, 5), list("abcd") * 5)
    assert copied == pytest.approx(once)
    assert once == pytest.approx(wilson(3, 4))


def test_the_bootstrap_gives_the_same_interval_for_the_same_predictions_and_draws_copies_together() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 60)
    answers = np.where(rng.random(60) < 0.7, truth, rng.integers(0, 3, 60))
    names = [str(index) for index in range(60)]
    first = bootstrap_confusion(macro_f1_of, truth, answers, 3, names)
    assert first == bootstrap_confusion(macro_f1_of, truth, answers, 3, names)
    assert first[0] < f1_score(truth, answers, average="macro") < first[1]
    copied = bootstrap_confusion(macro_f1_of, np.tile(truth, 4), np.tile(answers, 4), 3, names * 4)
    assert copied == pytest.approx(first)


def test_the_bootstrap_agrees_with_drawing_clips_one_by_one() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 80)
    answers = np.where(rng.random(80) < 0.6, truth, rng.integers(0, 3, 80))
    drawn = rng.integers(0, 80, (3000, 80))
    scores = [f1_score(truth[i], answers[i], average="macro") for i in drawn]
    plain = np.quantile(scores, [0.025, 0.975])
    ours = bootstrap_confusion(macro_f1_of, truth, answers, 3, [str(index) for index in range(80)])
    assert ours == pytest.approx(plain.tolist(), abs=0.015)


def test_the_bootstrap_interval_has_its_nominal_coverage() -> None:
    """400 test splits of 100 clips from a population whose macro F1 is known."""
    rng = np.random.default_rng(2)
    rates = np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]])
    population = float(macro_f1_of(rates))
    held = 0
    for _ in range(400):
        truth = rng.integers(0, 3, 100)
        answers = np.array([rng.choice(3, p=rates[label]) for label in truth])
        low, high = bootstrap_confusion(
            macro_f1_of, truth, answers, 3, [str(index) for index in range(100)], resamples=300
        )
        held += low <= population <= high
    assert 0.90 <= held / 400 <= 0.98


def test_wilson_matches_the_published_example() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, 857-872), table I: 81 of 263 gives 0.2553 to 0.3662.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
