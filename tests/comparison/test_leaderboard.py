"""The leaderboard of a comparison, its report, and what MLflow shows of it."""

import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sounds import tone, write

import genreflow
from genreflow import registry, steps
from genreflow.comparison import leaderboard, robustness
from genreflow.comparison.candidate import (
    OUT_OF_FOLD,
    TRAIN,
    VALIDATION,
    Candidate,
    CandidateDocument,
    Score,
    check_choosable,
    parameters,
)
from genreflow.comparison.leaderboard import ComparisonDocument
from genreflow.comparison.report import as_markdown
from genreflow.core.documents import SplitDocument
from genreflow.core.errors import GenreflowError, SettingsError
from genreflow.corpus.store import Corpus
from genreflow.evaluation.report import percent
from genreflow.registry.comparisons import TRAINED_IN_TAG
from genreflow.registry.store import connect
from tests.comparison.conftest import GENRES, Compared


@pytest.fixture
def opened(compared: Compared) -> list[Candidate]:
    return [Candidate.open(folder) for folder in compared.candidates.values()]


def changed(candidate: Candidate, **fields: Any) -> Candidate:
    return dataclasses.replace(candidate, document=candidate.document.model_copy(update=fields))


def score(accuracy: float, nll: float) -> Score:
    return Score(clips=6, accuracy=accuracy, accuracy_ci95=(0.0, 1.0), nll=nll)


def test_a_row_has_the_documented_columns(compared: Compared) -> None:
    row = next(row for row in compared.document.rows if row.name == "linear")
    assert (row.train.clips, row.validation.clips, row.test.clips) == (12, 6, 6)  # type: ignore[union-attr]
    for part in (row.train, row.validation, row.out_of_fold, row.test):
        assert part is not None
        assert part.accuracy_ci95[0] <= part.accuracy <= part.accuracy_ci95[1]
    assert set(row.per_genre) == set(GENRES)
    assert all(figures.recall is not None and figures.auc is not None for figures in row.per_genre.values())
    assert row.served_bytes > 0
    assert row.training_seconds > 0
    assert row.latency_30s_ms > 0
    assert row.real_time_factor == pytest.approx(row.latency_30s_ms / 30_000)
    assert row.seconds_heard[-1].accuracy == row.test.accuracy
    assert row.run_id


def test_out_of_fold_predictions_are_of_every_clip_outside_the_test_split_once(compared: Compared) -> None:
    table = pd.read_parquet(compared.candidates["linear"] / "predictions.parquet")
    clips = table[table["level"] == "clip"]
    of = {name: set(part["clip_id"]) for name, part in clips.groupby("of")}
    assert of[OUT_OF_FOLD] == of[TRAIN] | of[VALIDATION]
    assert not clips[clips["of"] == OUT_OF_FOLD]["clip_id"].duplicated().any()
    # no model predicted a clip that it was trained or selected on
    assert not clips[clips["of"] == OUT_OF_FOLD]["seen"].any()
    assert clips[clips["of"] == TRAIN]["seen"].all()
    tested = pd.read_parquet(compared.candidates["linear"] / "evaluation" / "predictions.parquet")
    assert not of[OUT_OF_FOLD] & set(tested["clip_id"])


def test_the_parameters_are_counted_in_the_weights(compared: Compared) -> None:
    row = next(row for row in compared.document.rows if row.name == "linear")
    assert row.parameters == parameters(compared.candidates["linear"] / "packaged" / "model")
    assert row.parameters is not None
    assert row.parameters >= 58 * len(GENRES)  # 57 descriptors and an intercept a genre


def test_a_candidates_folder_holds_no_weights_twice(compared: Compared) -> None:
    folder = compared.candidates["mfcc_cnn"]
    assert {path.name for path in folder.iterdir()} == {
        "candidate.json", "corpus.json", "evaluation", "packaged", "predictions.parquet", "split.json"
    }  # fmt: skip


def test_the_candidate_is_chosen_by_held_out_clips_however_the_test_split_turns_out(
    opened: list[Candidate],
) -> None:
    first, second = (
        changed(one, out_of_fold=None, folds=0, validation=score(accuracy, 1.0))
        for one, accuracy in zip(opened, (0.9, 0.8), strict=True)
    )
    wrong = first.test.assign(predicted=[GENRES[GENRES.index(genre) - 1] for genre in first.test["genre"]])
    for test in (first.test, wrong):
        found = leaderboard.build([dataclasses.replace(first, test=test), second])
        assert found.candidate == first.name
        assert found.chosen_by == "validation clips"
    with_folds = [
        changed(first, folds=2, out_of_fold=score(0.5, 1.0)),
        changed(second, folds=2, out_of_fold=score(0.6, 1.0)),
    ]
    found = leaderboard.build(with_folds)
    assert (found.candidate, found.chosen_by) == (second.name, "out-of-fold predictions, 2 folds")


def test_of_equally_accurate_ones_the_likelier_is_chosen_and_the_reason_says_so(
    opened: list[Candidate],
) -> None:
    tied = [
        changed(one, out_of_fold=None, folds=0, validation=score(0.8, nll))
        for one, nll in zip(opened, (0.5, 0.4), strict=True)
    ]
    found = leaderboard.build(tied)
    assert found.candidate == tied[1].name
    assert "the lower negative log-likelihood is chosen" in found.reason


def test_candidates_of_different_splits_are_refused(opened: list[Candidate]) -> None:
    other = opened[1].split.model_copy(update={"fingerprint": "another"})
    with pytest.raises(GenreflowError, match="is of another corpus or split than mfcc_cnn"):
        leaderboard.build([opened[0], dataclasses.replace(opened[1], split=other)])


def test_without_validation_clips_and_folds_nothing_is_trained(compared: Compared) -> None:
    document = SplitDocument.read(compared.split)
    none = document.model_copy(update={"counts": {**document.counts, "validation": 0}})
    with pytest.raises(SettingsError, match="never chosen by its test clips: add --folds 3"):
        check_choosable(none, 0)
    check_choosable(none, 3)
    with pytest.raises(SettingsError, match="no test clips"):
        check_choosable(document.model_copy(update={"counts": {**document.counts, "test": 0}}), 3)


def test_the_chosen_candidate_alone_is_registered_and_decided_on_once(
    compared: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENREFLOW_HOME", str(compared.home))
    row = next(row for row in compared.document.rows if row.chosen)
    assert row.name == compared.document.candidate
    (version,) = registry.versions()
    assert version.tags["digest"] == row.packaged_digest
    assert (version.version, row.run_id) == (compared.promoted.version, compared.promoted.run_id)
    assert compared.promoted.decision.numbers["decision_on_test_split"] == 1


def test_the_document_is_read_as_written(compared: Compared) -> None:
    assert ComparisonDocument.read(compared.out) == compared.document
    document = CandidateDocument.read(compared.candidates["linear"])
    assert document.real_time_factor == document.latency_30s_ms / 30_000


def test_the_ensemble_is_a_row_of_its_own(compared: Compared) -> None:
    mean = compared.document.ensemble
    assert mean is not None
    assert set(mean.names) == {"linear", "mfcc_cnn"}
    assert mean.test.clips == 6


def right_on(clips: pd.DataFrame, right: "pd.Series[bool]") -> pd.DataFrame:
    """Clip rows predicted with 0.9 where right, and narrowly wrong (0.4 for the true genre) elsewhere."""
    label = clips["genre"].map(GENRES.index).to_numpy()
    wrong = (label + 1) % len(GENRES)
    chances = np.zeros((len(clips), len(GENRES)))
    rows = np.arange(len(clips))
    chances[rows, label] = np.where(right, 0.9, 0.4)
    chances[rows, wrong] = np.where(right, 0.1, 0.6)
    predicted = [GENRES[one] for one in chances.argmax(axis=1)]
    return clips.assign(
        predicted=predicted, **{f"p_{genre}": chances[:, at] for at, genre in enumerate(GENRES)}
    )


def test_an_ensemble_that_is_better_than_every_candidate_is_not_the_candidate(
    opened: list[Candidate],
) -> None:
    complementary = []
    for number, one in enumerate(opened):
        held_out = one.clips(OUT_OF_FOLD).sort_values("clip_id", ignore_index=True)
        tested = one.test[one.test["level"] == "clip"].sort_values("clip_id", ignore_index=True)
        others = right_on(held_out, pd.Series(held_out.index % 2 == number))
        complementary.append(
            dataclasses.replace(
                changed(one, out_of_fold=Score.of(others, GENRES)),
                others=others,
                test=right_on(tested, pd.Series(tested.index % 2 == number)),
            )
        )
    found = leaderboard.build(complementary)
    names = {one.name for one in opened}
    assert found.ensemble is not None
    assert found.ensemble.selection is not None
    assert found.ensemble.selection.accuracy == found.ensemble.test.accuracy == 1
    assert all(row.out_of_fold is not None and row.out_of_fold.accuracy < 1 for row in found.rows)
    assert {row.name for row in found.rows} == names
    assert [row.name for row in found.rows if row.chosen] == [found.candidate]
    assert found.headline.startswith(f"{found.candidate} is the candidate")


def test_mlflow_has_a_parent_run_and_a_child_for_each_linked_to_the_run_that_trained_it(
    compared: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENREFLOW_HOME", str(compared.home))
    client, parent = connect(), compared.document.parent_run_id
    assert parent is not None
    run = client.get_run(parent)
    assert run.info.status == "FINISHED"
    assert compared.document.headline in run.data.tags["mlflow.note.content"]
    assert {file.path for file in client.list_artifacts(parent, "comparison")} >= {
        "comparison/comparison.json", "comparison/report.html"
    }  # fmt: skip
    children = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert {child.info.run_name for child in children} == {"linear", "mfcc_cnn"}
    for child in children:
        row = next(row for row in compared.document.rows if row.name == child.info.run_name)
        assert child.data.tags[TRAINED_IN_TAG] == row.run_id
        assert f"runs/{row.run_id})" in child.data.tags["mlflow.note.content"]
        assert child.data.metrics["test.accuracy"] == pytest.approx(row.test.accuracy)
        assert child.data.metrics["latency_30s_ms"] == pytest.approx(row.latency_30s_ms)
        plots = client.list_artifacts(child.info.run_id, "evaluation/plots")
        assert "evaluation/plots/confusion.png" in {file.path for file in plots}
    trained = {row.run_id for row in compared.document.rows}
    assert all(client.get_run(run_id).info.status == "FINISHED" for run_id in trained if run_id)


def test_the_same_comparison_again_is_the_same_runs(
    compared: Compared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENREFLOW_HOME", str(compared.home))
    client = connect()
    place = client.get_run(str(compared.document.parent_run_id)).info.experiment_id
    before = len(client.search_runs([place]))
    again, promoted = steps.compare(list(compared.candidates.values()), compared.corpus, tmp_path / "out")
    assert again == compared.document
    assert (promoted.version, promoted.created) == (compared.promoted.version, False)
    assert len(client.search_runs([place])) == before


def test_a_training_run_that_the_store_does_not_have_is_still_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = registry.ComparedRun("linear", {}, {"accuracy": 0.5}, {}, "note", {}, trained_in="0" * 32)
    parent = registry.ComparedRun("comparison", {}, {}, {}, "board", {})
    parent_id = registry.log_comparison("genreflow", parent, [run], "content")
    client = connect()
    place = client.get_run(parent_id).info.experiment_id
    (child,) = client.search_runs([place], f"tags.`mlflow.parentRunId` = '{parent_id}'")
    assert "which this store does not have" in child.data.tags["mlflow.note.content"]


def test_the_report_is_one_page_with_every_section(compared: Compared) -> None:
    page = (compared.out / "report.html").read_text()
    assert not re.search(r'(src|href|srcset)="(?!data:|#)', page)
    for section in ("leaderboard", "genres", "cost", "seconds", "agreement", "confusion", "lineage"):
        assert f'id="{section}"' in page
    assert page.count("<img") == 4 + len(compared.document.rows)
    assert compared.document.headline.split("(")[0].strip() in page
    plots = {path.name for path in (compared.out / "plots").iterdir()}
    assert plots == {
        "accuracy_against_size.png", "accuracy_against_latency.png", "accuracy_against_seconds.png",
        "agreement.png", "confusion_linear.png", "confusion_mfcc_cnn.png",
    }  # fmt: skip


def test_the_best_are_tested_further_where_requested(
    compared: Compared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENREFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(robustness, "DISTORTIONS", robustness.DISTORTIONS[:2])  # the others take as long each
    monkeypatch.setattr(sys.modules["genreflow.steps.compare"], "BEST", 1)
    for number, genre in enumerate(("blues", "rock")):
        for at in range(2):
            samples = tone(seconds=4.0, pitch=150.0 * 3**number + 40 * at)
            write(tmp_path / "others" / genre / f"{at}.wav", samples)
    document, _ = steps.compare(
        list(compared.candidates.values()),
        compared.corpus,
        tmp_path / "out",
        also_test=str(tmp_path / "others"),
        robustness=True,
    )
    assert [each.name for each in document.further] == [document.rows[0].name]
    for each, row in zip(document.further, document.rows, strict=False):
        assert each.generalisation is not None
        assert each.generalisation.genres == ("blues", "rock")
        assert each.robustness is not None
        assert each.robustness.clean.accuracy == row.test.accuracy
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"Robustness of {document.rows[0].name}" in page
    assert f"{document.rows[0].name} on other clips" in page
    assert f"Robustness of {document.rows[1].name}" not in page
    client = connect()
    places = [place.experiment_id for place in client.search_experiments()]
    (logged,) = client.search_runs(
        places, "attributes.run_name = 'comparison'"
    )  # with and without them one run
    assert logged.info.run_id == document.parent_run_id
    assert ComparisonDocument.read(tmp_path / "out") == document


def test_a_leaky_split_is_labelled_in_every_table_and_figure(compared: Compared, tmp_path: Path) -> None:
    from genreflow.comparison.report import write_report

    leaky = compared.document.model_copy(
        update={"leaky": True, "leak_reason": "The same <artists> in both.", "synthetic": False}
    )
    write_report(leaky, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Leaky split: these figures are optimistic" in page
    assert "The same &lt;artists&gt; in both." in page
    for caption in re.findall(r"<caption>(.*?)</caption>", page):
        about_names = "rows are true genres" in caption or "Cost" in caption or "made from" in caption
        assert about_names or "leaky" in caption, caption
    for caption in re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL):
        assert "leaky split" in caption, caption
    assert as_markdown(leaky).startswith("**Leaky split: these figures are optimistic.**")


def test_the_note_in_mlflow_has_a_column_of_folds_and_says_why_they_are_optimistic(
    compared: Compared,
) -> None:
    head, _, *rows = [line for line in as_markdown(compared.document).splitlines() if line.startswith("|")]
    place = [cell.strip() for cell in head.split("|")].index("folds")
    for line, row in zip(rows, compared.document.rows, strict=True):
        assert row.out_of_fold is not None
        assert line.split("|")[place].strip() == percent(row.out_of_fold.accuracy)
        assert line.count("|") == head.count("|")
    without = compared.document.model_copy(update={"folds": 0})
    assert "folds" not in as_markdown(without)
    leaky = compared.document.model_copy(update={"folds_leak_reason": "One artist in several folds."})
    assert (
        "**Leaky folds: the figures over folds are optimistic.** One artist in several folds."
        in as_markdown(leaky)
    )
    assert "Leaky folds" not in as_markdown(compared.document)


def test_the_runs_of_a_comparison_with_leaky_folds_say_so(
    compared: Compared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENREFLOW_HOME", str(tmp_path / "home"))
    candidates = []
    for name, folder in compared.candidates.items():
        copy = shutil.copytree(folder, tmp_path / name)
        leaky = CandidateDocument.read(copy).model_copy(update={"folds_leak_reason": "One artist in both."})
        leaky.write(copy)
        candidates.append(copy)
    document, _ = steps.compare(candidates, compared.corpus, tmp_path / "out")
    client = connect()
    parent = client.get_run(str(document.parent_run_id))
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{document.parent_run_id}'"
    )
    assert len(children) == 2
    for run in (parent, *children):
        assert "Leaky folds: the figures over folds are optimistic" in run.data.tags["mlflow.note.content"]
        assert (run.data.tags["genreflow.folds"], run.data.tags["genreflow.folds_leaky"]) == ("2", "true")


@pytest.mark.parametrize("name", ["linear", "mfcc_cnn"])
def test_probabilities_of_the_table_are_those_that_are_served(compared: Compared, name: str) -> None:
    served = genreflow.load(str(compared.candidates[name] / "packaged"))
    corpus = Corpus.open(compared.corpus)
    table = pd.read_parquet(compared.candidates[name] / "predictions.parquet")
    clips = table[(table["level"] == "clip") & table["of"].isin([TRAIN, VALIDATION])].set_index("clip_id")
    assert len(clips) == 18
    for row, clip_id in enumerate(corpus.manifest["clip_id"]):
        if clip_id in clips.index:
            answer = served.classify_samples(corpus.samples(row), corpus.sample_rate(row))
            kept = {genre: clips.loc[clip_id, f"p_{genre}"] for genre in GENRES}
            assert kept == pytest.approx(answer.probabilities, abs=1e-5)
            assert clips.loc[clip_id, "predicted"] == answer.genre


def test_json_of_the_document_is_plain(compared: Compared) -> None:
    found = json.loads((compared.out / "comparison.json").read_text())
    assert found["schema_version"] == 1
    assert found["parent_run_id"] == compared.document.parent_run_id
