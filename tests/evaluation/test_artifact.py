"""The evaluation artifact: what is written, and what cannot be evaluated."""

import json
import shutil
from collections.abc import Callable
from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genreflow import packaging
from genreflow.core.documents import ModelDocument, PackagedDocument, Served
from genreflow.core.errors import GenreflowError
from genreflow.corpus.splitting import TABLE, open_corpus
from genreflow.corpus.store import Corpus
from genreflow.evaluation import evaluate
from genreflow.evaluation.artifact import judge, rows_to_evaluate
from genreflow.evaluation.document import EvaluationDocument
from genreflow.evaluation.predictions import predict, probability_columns
from genreflow.families import family
from genreflow.inference.classifier import Classifier
from genreflow.inference.loading import load_classifier
from genreflow.inference.processor import instruction_set
from tests.corpora import split_of


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
        input_spec=kind.input_spec(settings),
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


@pytest.fixture(scope="session")
def packaged(trained: Path, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packaged")
    packaging.package(trained, corpus_folder, split_of(corpus_folder), folder)
    return folder


def test_a_packaged_model_is_evaluated_from_audio_to_report(
    corpus_folder: Path, packaged: Path, tmp_path: Path
) -> None:
    document = evaluate(packaged, corpus_folder, split_of(corpus_folder), tmp_path / "out")
    assert EvaluationDocument.read(tmp_path / "out") == document
    predictions = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    clips = predictions[predictions["level"] == "clip"]
    corpus = open_corpus(corpus_folder, split_of(corpus_folder))
    tested = corpus.manifest.iloc[corpus.rows("test")]
    assert clips["clip_id"].tolist() == tested["clip_id"].tolist()
    assert document.clips == len(tested)
    assert document.windows == (predictions["level"] == "window").sum()
    assert document.accuracy == pytest.approx((clips["predicted"] == clips["genre"]).mean())
    assert sum(map(sum, document.confusion.matrix)) == document.clips
    plots = {path.name for path in (tmp_path / "out" / "plots").iterdir()}
    assert plots == {"confusion.png", "calibration.png", "per_genre.png", "genres_overview.png"}
    assert (tmp_path / "out" / "report.html").stat().st_size < 15_000_000


def declare(packaged: Path, copy: Path, runtime: str) -> PackagedDocument:
    """A copy of a package that declares a runtime in f32, which every processor has."""
    shutil.copytree(packaged, copy)
    document = PackagedDocument.read(copy)
    document = document.model_copy(update={"served": Served(runtime=runtime, precision="f32")})
    document.write(copy)
    return document


def test_a_model_is_scored_with_what_it_declares_and_its_fallback_beside_it(
    corpus_folder: Path, packaged: Path, tmp_path: Path
) -> None:
    document = declare(packaged, tmp_path / "declared", "pytorch")
    scored = evaluate(tmp_path / "declared", corpus_folder, split_of(corpus_folder), tmp_path / "out")
    assert (scored.runtime, scored.precision) == ("pytorch", "f32")
    assert scored.model.packaged_digest == document.digest
    assert scored.instruction_set == instruction_set()
    classifier = load_classifier(tmp_path / "declared", "pytorch", "f32")
    corpus = open_corpus(corpus_folder, split_of(corpus_folder))
    expected = predict(classifier, corpus, corpus.rows("test"))
    columns = probability_columns(classifier.document.genres)
    found = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    np.testing.assert_allclose(found[columns], expected[columns], atol=1e-6)

    spare = load_classifier(tmp_path / "declared", "openvino", "f32")
    beside = predict(spare, corpus, corpus.rows("test"))
    theirs, ours = (table[table["level"] == "clip"]["predicted"].to_numpy() for table in (beside, found))
    assert scored.fallback is not None
    assert (scored.fallback.runtime, scored.fallback.precision) == ("openvino", "f32")
    assert scored.fallback.equal_decisions == pytest.approx(np.mean(theirs == ours))
    truth = found[found["level"] == "clip"]["genre"].to_numpy()
    assert scored.fallback.accuracy == pytest.approx(np.mean(theirs == truth))
    report = (tmp_path / "out" / "report.html").read_text()
    assert "with pytorch f32" in report
    assert "with the fallback openvino f32" in report


def test_where_the_fallback_itself_is_declared_nothing_is_scored_beside_it(
    corpus_folder: Path, packaged: Path, tmp_path: Path
) -> None:
    declare(packaged, tmp_path / "f32", "openvino")
    scored = evaluate(tmp_path / "f32", corpus_folder, split_of(corpus_folder), tmp_path / "out")
    assert scored.scored_with == "openvino f32"
    assert scored.fallback is None


def test_an_evaluation_by_version_0_1_0_was_of_pytorch_in_fp32(
    corpus_folder: Path, packaged: Path, tmp_path: Path
) -> None:
    evaluate(packaged, corpus_folder, split_of(corpus_folder), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    for field in ("runtime", "precision", "instruction_set", "fallback"):
        del written[field]
    (tmp_path / "out" / "evaluation.json").write_text(json.dumps(written))
    assert EvaluationDocument.read(tmp_path / "out").scored_with == "pytorch f32"


def test_judging_the_same_predictions_twice_gives_the_same_figures(
    classifier: Classifier, corpus: Corpus
) -> None:
    first, again = (predict(classifier, corpus, corpus.rows("test")) for _ in range(2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert judge(first, classifier.document, corpus.document, corpus.split, "digest", 1.0) == judge(
        again, classifier.document, corpus.document, corpus.split, "digest", 1.0
    )


def test_a_separable_task_is_learned_and_an_inseparable_one_is_at_chance(
    classifier: Classifier, answering: Callable[..., Classifier], corpus: Corpus
) -> None:
    def accuracy(one: Classifier) -> EvaluationDocument:
        table = predict(one, corpus, corpus.rows())
        return judge(table, one.document, corpus.document, corpus.split, "digest", 1.0)

    good = accuracy(classifier)
    assert 0.8 < good.accuracy < 1
    assert good.accuracy_ci95[0] > 1 / 3
    assert [(pair.genre, pair.predicted) for pair in good.most_confused] == [("r&b $x$", "high")]
    constant = accuracy(answering(lambda inputs: np.zeros((len(inputs), 3), np.float32)))
    assert constant.accuracy == pytest.approx(1 / 3, abs=0.05)
    assert constant.per_genre["high"].auc == pytest.approx(0.5)
    assert constant.per_genre["high"].precision is None
    assert constant.calibration.nll == pytest.approx(np.log(3), rel=1e-5)


def test_where_every_clip_trained_nothing_is_measured_and_the_document_says_so(
    classifier: Classifier, corpus: Corpus
) -> None:
    everything = corpus.manifest[["clip_id", "fold"]].assign(split="train")
    trained_on = corpus.split.model_copy(update={"protocol": "all"})
    corpus = Corpus.open(corpus.folder).with_split(trained_on, everything)
    rows = rows_to_evaluate(corpus, classifier.document)
    assert len(rows) == len(corpus.manifest)
    clips = dict(zip(corpus.manifest["sha256"], corpus.manifest["duplicate_cluster"], strict=True))
    classifier = copy(classifier)
    classifier.document = trained = classifier.document.model_copy(update={"train_clips": clips})
    document = judge(predict(classifier, corpus, rows), trained, corpus.document, corpus.split, "digest", 1.0)
    assert not document.measured
    assert document.headline == f"Not measured: all {len(rows)} clips were trained on."
    assert document.scalars() == {"test_clips": 0.0}


def test_test_clips_that_the_model_has_seen_are_counted(classifier: Classifier, corpus: Corpus) -> None:
    rows = corpus.rows("test")
    first, second = (corpus.manifest.iloc[row] for row in rows[:2])

    def seen(corpus: Corpus = corpus, **clips: dict[str, str]) -> int:
        model = classifier.document.model_copy(update=clips)
        met = copy(classifier)
        met.document = model
        return judge(
            predict(met, corpus, rows), model, corpus.document, corpus.split, "digest", 1.0
        ).seen_clips

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
    constant = answering(lambda inputs: np.zeros((len(inputs), 3), np.float32))
    document = judge(
        predict(constant, corpus, corpus.rows()),
        constant.document,
        corpus.document,
        corpus.split,
        "digest",
        1.0,
    )
    scalars = document.scalars()
    assert all(isinstance(value, float) and np.isfinite(value) for value in scalars.values())
    assert scalars["accuracy"] == document.accuracy
    assert "recall_high" in scalars
    assert "precision_high" not in scalars


def test_a_corpus_without_test_clips_gives_an_error_message(
    corpus_folder: Path, packaged: Path, tmp_path: Path
) -> None:
    split = tmp_path / "split"
    shutil.copytree(split_of(corpus_folder), split)
    table = pd.read_parquet(split / TABLE)
    table.assign(split="train").to_parquet(split / TABLE, index=False)
    with pytest.raises(GenreflowError, match=r"no test clips under the protocol 'grouped'.*--protocol"):
        evaluate(packaged, corpus_folder, split, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_of_other_genres_gives_an_error_message(
    corpus_folder: Path, packaged: Path, tmp_path: Path
) -> None:
    document = PackagedDocument.read(packaged)
    other = document.model.model_copy(update={"genres": ("high", "polka", "waltz")})
    document.model_copy(update={"model": other}).write(tmp_path / "packaged")
    with pytest.raises(
        GenreflowError, match="which the model does not know: its genres are high, polka, waltz"
    ):
        evaluate(tmp_path / "packaged", corpus_folder, split_of(corpus_folder), tmp_path / "out")
