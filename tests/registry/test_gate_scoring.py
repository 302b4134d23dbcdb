"""What the gate scores: both models on this machine, each with the runtime and precision that it declares."""

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from candidates import write_packaged
from corpora import split_of, tones, write_corpus
from mlflow import MlflowClient

from genreflow import registry, steps
from genreflow.core import home
from genreflow.core.documents import CorpusDocument, PackagedDocument, Served
from genreflow.core.errors import ModelError
from genreflow.core.genres import GENRES
from genreflow.evaluation import evaluate, scores
from genreflow.evaluation.document import EvaluationDocument
from genreflow.inference.backends import openvino

POLICY = {"min_clips": 1, "min_accuracy": 0.0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(
        tmp_path_factory.mktemp("clips") / "corpus", tones(GENRES, seconds=0.5, rate=8_000), GENRES
    )


def declare(packaged: Path, precision: str) -> None:
    """Declare OpenVINO in a precision, reported as usable."""
    document = PackagedDocument.read(packaged)
    report = document.runtimes[0].model_copy(update={"precision": precision})
    document.model_copy(
        update={
            "runtimes": (*document.runtimes, report),
            "served": Served(runtime="openvino", precision=precision),
        }
    ).write(packaged)


@cache
def evaluated(corpus: Path, seed: int, precision: str) -> Path:
    """A folder with a packaged model and its evaluation, made once."""
    folder = corpus.with_name(f"model-{seed}-{precision}")
    packaged = folder / "packaged"
    fingerprint = CorpusDocument.read(corpus).fingerprint
    write_packaged(packaged, seed, {"corpus_fingerprint": fingerprint, "synthetic": True})
    if precision != "f32":
        declare(packaged, precision)
    evaluate(packaged, corpus, split_of(corpus), folder / "evaluation")
    return folder


def made(root: Path, corpus: Path, seed: int, precision: str = "f32") -> tuple[str, Path, Path]:
    """A registered model: version, package, evaluation."""
    folder = shutil.copytree(evaluated(corpus, seed, precision), root / f"model-{seed}")
    packaged, evaluation = folder / "packaged", folder / "evaluation"
    found = registry.register(packaged, evaluation, corpus, split_of(corpus), None)
    return found.version, packaged, evaluation


def promote(one: tuple[str, Path, Path], corpus: Path) -> Any:
    version, packaged, evaluation = one
    return steps.promote(version, packaged, evaluation, corpus, POLICY)[0]


def test_a_champion_is_scored_once_on_a_split_with_what_it_declares(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = made(tmp_path, corpus, 1)
    registry.set_champion(champion[0], "the first")
    decision = promote(made(tmp_path, corpus, 2), corpus)
    assert decision.numbers["compared"] == 10
    assert decision.numbers["candidate_scored_with"] == "openvino f32"
    assert decision.numbers["champion_scored_with"] == "openvino f32"
    assert decision.numbers["candidate_latency_ms"] > 0
    expected = EvaluationDocument.read(champion[2]).accuracy
    assert decision.numbers["champion_accuracy"] == pytest.approx(expected)
    assert len(list(home.scores_folder().iterdir())) == 1, "the candidate's own evaluation is used"

    def again(*_: object, **__: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr(scores, "predict", again)
    third = promote(made(tmp_path, corpus, 3), corpus)
    assert third.numbers["champion_accuracy"] == pytest.approx(expected)


def test_decisions_on_a_test_split_are_counted_once_a_version(corpus: Path, tmp_path: Path) -> None:
    """docs/data.md said that the test split is never used for selection; the gate selects with it."""
    first, second = (made(tmp_path, corpus, seed) for seed in (1, 2))
    assert promote(first, corpus).reason.endswith("The 1st decision on this test split")
    decision = promote(second, corpus)
    assert decision.reason.endswith("The 2nd decision on this test split")
    assert decision.numbers["decision_on_test_split"] == 2
    if decision.promote:
        assert promote(second, corpus).verdict == "identical"
    else:
        assert promote(second, corpus).numbers["decision_on_test_split"] == 2
    assert promote(made(tmp_path, corpus, 3), corpus).numbers["decision_on_test_split"] == 3

    ((key, number),) = registry.version(second[0]).to_dict()["decisions_on_test_splits"].items()
    assert number == 2
    client = MlflowClient(home.tracking_uri())
    tags = client.get_registered_model(registry.MODEL_NAME).tags
    assert tags[f"decisions_on_test_split.{key}"] == "3"
    description = client.get_model_version(registry.MODEL_NAME, second[0]).description
    assert "The 2nd decision on this test split" in description


def test_a_test_split_is_its_clips_in_whatever_order() -> None:
    assert registry.split_key(["b", "a"]) == registry.split_key(["a", "b"])
    assert registry.split_key(["a"]) != registry.split_key(["a", "b"])


def test_where_one_cannot_run_as_declared_both_are_scored_in_f32_and_the_reason_says_so(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = made(tmp_path, corpus, 1, "bf16")
    registry.set_champion(champion[0], "the first")
    candidate = made(tmp_path, corpus, 2)
    monkeypatch.setattr(openvino, "openvino_precisions", lambda: ("f32",))
    decision = promote(candidate, corpus)
    assert decision.numbers["candidate_scored_with"] == "openvino f32"
    assert decision.numbers["champion_scored_with"] == "openvino f32"
    named = f"version {champion[0]} (openvino bf16) cannot run on this machine as declared"
    assert f"Both were scored in f32, as {named}" in decision.reason


def test_a_candidate_evaluated_by_another_kind_of_processor_is_scored_here(
    corpus: Path, tmp_path: Path
) -> None:
    version, packaged, evaluation = made(tmp_path, corpus, 1)
    elsewhere = EvaluationDocument.read(evaluation).model_copy(update={"instruction_set": "x86_64 amx"})
    elsewhere.write(evaluation)
    promote((version, packaged, evaluation), corpus)
    assert len(list(home.scores_folder().iterdir())) == 1


def test_scores_that_cannot_be_read_are_made_again(corpus: Path, tmp_path: Path) -> None:
    registry.set_champion(made(tmp_path, corpus, 1)[0], "the first")
    first = promote(made(tmp_path, corpus, 2), corpus)
    (kept,) = home.scores_folder().iterdir()
    kept.write_bytes(b"half a file")
    second = promote(made(tmp_path, corpus, 3), corpus)
    assert second.numbers["champion_accuracy"] == first.numbers["champion_accuracy"]
    assert kept.stat().st_size > 1_000


def test_an_error_of_the_candidate_is_not_recorded_as_the_champions(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion, candidate = (made(tmp_path, corpus, seed) for seed in (1, 2))
    registry.set_champion(champion[0], "the first")
    digests = {each[0]: PackagedDocument.read(each[1]).digest for each in (champion, candidate)}
    unusable = ""

    def predict(_: object, digest: str, *__: object) -> Any:
        if digest == digests[unusable]:
            raise ModelError("its output is no number")
        return pd.read_parquet(candidate[2] / "predictions.parquet").query("level == 'clip'")

    monkeypatch.setattr(scores, "clip_predictions", predict)
    EvaluationDocument.read(candidate[2]).model_copy(update={"instruction_set": "another"}).write(
        candidate[2]
    )
    unusable = candidate[0]
    with pytest.raises(ModelError, match="its output is no number"):
        promote(candidate, corpus)
    unusable = champion[0]
    assert "cannot be loaded by this genreflow: its output is no number" in promote(candidate, corpus).reason


def test_a_decision_loads_neither_pytorch_nor_transformers(corpus: Path, tmp_path: Path) -> None:
    """They would take seconds and hundreds of megabytes that the step does not need."""
    registry.set_champion(made(tmp_path, corpus, 1)[0], "the first")
    version, packaged, evaluation = made(tmp_path, corpus, 2)
    folders = [str(path) for path in (packaged, evaluation, corpus)]
    code = (
        "import sys; from pathlib import Path; from genreflow import steps\n"
        f"decision = steps.promote({version!r}, *map(Path, {folders}), {POLICY})[0]\n"
        "assert decision.numbers['compared'] == 10, decision\n"
        "heavy = {'torch', 'transformers', 'evaluate'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
