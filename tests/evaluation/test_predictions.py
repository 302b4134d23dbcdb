"""One table of answers per window and per clip, the same answers that the classifier serves."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from genreflow.core.errors import GenreflowError
from genreflow.corpus.store import Corpus
from genreflow.evaluation import predict
from genreflow.evaluation.predictions import probability_columns
from genreflow.inference.classifier import Classifier


def test_every_clip_has_its_windows_in_order_and_then_one_row_of_its_own(
    classifier: Classifier, corpus: Corpus
) -> None:
    rows = corpus.rows()[3:7]
    table = predict(classifier, corpus, rows)
    for row, (clip_id, group) in zip(rows, table.groupby("clip_id", sort=False), strict=True):
        assert clip_id == corpus.manifest["clip_id"].iloc[row]
        assert group["level"].tolist() == ["window"] * (len(group) - 1) + ["clip"]
        assert group["window"].tolist() == [*range(len(group) - 1), -1]
        assert group["start_seconds"].iloc[:-1].is_monotonic_increasing
        assert group["sha256"].eq(corpus.manifest["sha256"].iloc[row]).all()
    chances = table[probability_columns(classifier.document.genres)].to_numpy()
    assert chances.sum(1) == pytest.approx(1, abs=1e-5)


def test_a_clips_prediction_is_that_of_the_classifier(classifier: Classifier, corpus: Corpus) -> None:
    rows = corpus.rows()
    table = predict(classifier, corpus, rows)
    clips = table[table["level"] == "clip"]
    for row, (_, clip) in zip(rows, clips.iterrows(), strict=True):
        served = classifier.classify_samples(corpus.samples(row), corpus.sample_rate(row))
        assert (clip["predicted"], clip["vote"]) == (served.genre, served.vote)
        assert clip[f"p_{served.genre}"] == pytest.approx(served.confidence, abs=1e-6)


def test_where_the_mean_and_the_vote_differ_both_are_reported(
    answering: Callable[..., Classifier], corpus: Corpus
) -> None:
    def mostly_low_once_surely_high(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = np.tile(np.array([0.1, 0.0, 0.0], np.float32), (len(inputs), 1))
        logits[0] = [0, 0, 9]
        return logits

    table = predict(answering(mostly_low_once_surely_high), corpus, [0])
    assert table["predicted"].tolist()[:2] == ["high", "<b>low"]
    clip = table.iloc[-1]
    assert (clip["predicted"], clip["vote"]) == ("high", "<b>low")


def test_answers_that_are_no_numbers_are_an_error_that_names_the_clip(
    answering: Callable[..., Classifier], corpus: Corpus
) -> None:
    broken = answering(lambda inputs: np.full((len(inputs), 3), np.nan, np.float32))
    with pytest.raises(GenreflowError, match=r"predicts values for high\.\S+ that are no numbers"):
        predict(broken, corpus, [int(np.flatnonzero(corpus.manifest["genre"] == "high")[0])])


def test_no_rows_make_an_empty_table_with_all_columns(classifier: Classifier, corpus: Corpus) -> None:
    table = predict(classifier, corpus, [])
    assert len(table) == 0
    assert {"level", "predicted", "vote", *probability_columns(classifier.document.genres)} < set(
        table.columns
    )
