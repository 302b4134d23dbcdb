"""The evaluation artifact: what is written, and what cannot be evaluated."""

import shutil
from collections.abc import Callable
from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genreflow.artifacts import ModelDocument
from genreflow.corpus.store import MANIFEST, Corpus
from genreflow.errors import GenreflowError
from genreflow.evaluation import evaluate
from genreflow.evaluation.artifact import judge, rows_to_evaluate
from genreflow.evaluation.document import EvaluationDocument
from genreflow.evaluation.predictions import predict
from genreflow.families import family
from genreflow.runtime import Classifier


@pytest.fixture(scope="session")
def trained(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained five-channel network in a model folder: real weights, real loading, random answers."""
    corpus = Corpus.open(corpus_folder)
    kind = family("mfcc_cnn")
    settings = kind.settings_type()
    folder = tmp_path_factory.mktemp("model")
    module = kind.build(settings, corpus.document.genres, "inputs", 0)
    kind.save(module.eval(), folder)
    ModelDocument(
        family="mfcc_cnn",
        settings=settings.model_dump(),
        genres=corpus.document.genres,
        hearing=kind.hearing(settings),
        temperature=1.0,
        training={},
        pretrained=None,
        synthetic=False,
        train_clips={},
        validation_clips={},
        corpus_fingerprint=corpus.document.fingerprint,
        features_fingerprint="features",
        protocol="grouped",
        fold=None,
        leaky=False,
        leak_reason=None,
        code_version="test",
        run_id=None,
    ).write(folder)
    return folder


def test_a_model_folder_is_evaluated_from_audio_to_report(
    corpus_folder: Path, trained: Path, tmp_path: Path
) -> None:
    document = evaluate(corpus_folder, trained, tmp_path / "out")
    assert EvaluationDocument.read(tmp_path / "out") == document
    predictions = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    clips = predictions[predictions["level"] == "clip"]
    corpus = Corpus.open(corpus_folder)
    tested = corpus.manifest.iloc[corpus.rows("test")]
    assert clips["clip_id"].tolist() == tested["clip_id"].tolist()
    assert document.clips == len(tested)
    assert document.windows == (predictions["level"] == "window").sum()
    assert document.accuracy == pytest.approx((clips["predicted"] == clips["genre"]).mean())
    assert sum(map(sum, document.confusion.matrix)) == document.clips
    plots = {path.name for path in (tmp_path / "out" / "plots").iterdir()}
    assert plots == {"confusion.png", "calibration.png", "per_genre.png", "genres_overview.png"}
    assert (tmp_path / "out" / "report.html").stat().st_size < 15_000_000


def test_judging_the_same_predictions_twice_gives_the_same_figures(
    classifier: Classifier, corpus: Corpus
) -> None:
    first, again = (predict(classifier, corpus, corpus.rows("test")) for _ in range(2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert judge(first, classifier.document, corpus.document, "digest", 1.0) == judge(
        again, classifier.document, corpus.document, "digest", 1.0
    )


def test_a_model_that_hears_the_difference_is_right_and_one_that_does_not_guesses(
    classifier: Classifier, answering: Callable[..., Classifier], corpus: Corpus
) -> None:
    def accuracy(one: Classifier) -> EvaluationDocument:
        table = predict(one, corpus, corpus.rows())
        return judge(table, one.document, corpus.document, "digest", 1.0)

    good = accuracy(classifier)
    assert 0.8 < good.accuracy < 1
    assert good.accuracy_ci95[0] > 1 / 3
    assert [(pair.genre, pair.predicted) for pair in good.most_confused] == [("r&b $x$", "high")]
    deaf = accuracy(answering(lambda inputs: np.zeros((len(inputs), 3), np.float32)))
    assert deaf.accuracy == pytest.approx(1 / 3, abs=0.05)
    assert deaf.per_genre["high"].auc == pytest.approx(0.5)
    assert deaf.per_genre["high"].precision is None
    assert deaf.calibration.nll == pytest.approx(np.log(3), rel=1e-5)


def test_where_every_clip_trained_nothing_is_measured_and_the_document_says_so(
    classifier: Classifier, corpus: Corpus
) -> None:
    corpus = copy(corpus)
    corpus.document = corpus.document.model_copy(update={"protocol": "all"})
    corpus.manifest = corpus.manifest.assign(split="train")
    rows = rows_to_evaluate(corpus, classifier.document)
    assert len(rows) == len(corpus.manifest)
    clips = dict(zip(corpus.manifest["sha256"], corpus.manifest["duplicate_cluster"], strict=True))
    classifier = copy(classifier)
    classifier.document = trained = classifier.document.model_copy(update={"train_clips": clips})
    document = judge(predict(classifier, corpus, rows), trained, corpus.document, "digest", 1.0)
    assert not document.measured
    assert document.headline == f"Not measured: all {len(rows)} clips were trained on."
    assert document.scalars() == {"test_clips": 0.0}


def test_test_clips_that_the_model_has_met_are_counted(classifier: Classifier, corpus: Corpus) -> None:
    rows = corpus.rows("test")
    first, second = (corpus.manifest.iloc[row] for row in rows[:2])

    def seen(corpus: Corpus = corpus, **clips: dict[str, str]) -> int:
        model = classifier.document.model_copy(update=clips)
        met = copy(classifier)
        met.document = model
        return judge(predict(met, corpus, rows), model, corpus.document, "digest", 1.0).seen_clips

    assert seen() == 0
    assert seen(train_clips={first["sha256"]: "another cluster"}) == 1
    assert seen(validation_clips={"another file": first["duplicate_cluster"]}) >= 1
    # a near duplicate of a test clip lies in training, as published lists allow
    joined, trained = copy(corpus), corpus.manifest.iloc[corpus.rows("train")[0]]
    alike = corpus.manifest["clip_id"].isin([second["clip_id"], trained["clip_id"]])
    joined.manifest = corpus.manifest.assign(
        near_duplicate_cluster=corpus.manifest["near_duplicate_cluster"].mask(alike, "one recording")
    )
    assert seen(joined, train_clips={trained["sha256"]: trained["duplicate_cluster"]}) == 1


def test_the_scalars_are_plain_numbers_without_what_is_undefined(
    answering: Callable[..., Classifier], corpus: Corpus
) -> None:
    deaf = answering(lambda inputs: np.zeros((len(inputs), 3), np.float32))
    document = judge(predict(deaf, corpus, corpus.rows()), deaf.document, corpus.document, "digest", 1.0)
    scalars = document.scalars()
    assert all(isinstance(value, float) and np.isfinite(value) for value in scalars.values())
    assert scalars["accuracy"] == document.accuracy
    assert "recall_high" in scalars
    assert "precision_high" not in scalars


def test_a_corpus_without_test_clips_is_a_sentence(
    corpus_folder: Path, trained: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "corpus"
    shutil.copytree(corpus_folder, copy)
    manifest = pd.read_parquet(copy / MANIFEST)
    manifest["split"] = "train"
    manifest.to_parquet(copy / MANIFEST, index=False)
    with pytest.raises(GenreflowError, match=r"no test clips under the protocol 'grouped'.*--protocol"):
        evaluate(copy, trained, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_of_other_genres_is_a_sentence(corpus_folder: Path, trained: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(trained, model)
    ModelDocument.read(model).model_copy(update={"genres": ("high", "polka", "waltz")}).write(model)
    with pytest.raises(
        GenreflowError, match="which the model does not know: it tells high, polka, waltz apart"
    ):
        evaluate(corpus_folder, model, tmp_path / "out")
