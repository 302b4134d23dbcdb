"""Compare: the leaderboard of candidates, the MLflow runs that show it, and the gate for the chosen one."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genreflow.core import progress
from genreflow.evaluation.gate import Decision
from genreflow.steps.promote import promote
from genreflow.steps.register import register
from genreflow.steps.reporting import report_step, retry_mlflow

if TYPE_CHECKING:
    from genreflow.comparison.candidate import Candidate
    from genreflow.comparison.further_tests import FurtherTests
    from genreflow.comparison.leaderboard import ComparisonDocument, LeaderboardRow
    from genreflow.registry import ComparedRun

STEP = "compare"
BEST = 2
"""Candidates that are tested further."""


@dataclass(frozen=True)
class Promoted:
    """The registered candidate and its decision."""

    run_id: str
    """The MLflow run that trained it."""
    version: str
    created: bool
    """Whether the version is new."""
    decision: Decision
    aliases: tuple[str, ...]
    to_build: bool
    """Whether its bento is to be built."""


def compare(
    candidates: Sequence[Path],
    corpus: Path,
    out: Path,
    experiment: str = "genreflow",
    policy: Mapping[str, Any] | None = None,
    also_test: str | None = None,
    robustness: bool = False,
) -> "tuple[ComparisonDocument, Promoted]":
    """Rank candidates by validation or out-of-fold predictions, and log them to MLflow; then the gate.

    Only the chosen candidate is registered, and only it is decided on by the gate.

    Args:
        candidates: their artifacts' folders.
        corpus: the corpus artifact's folder.
        out: gets `comparison.json`, `report.html` and `plots/`.
        experiment: the MLflow experiment of the parent run and its children.
        policy: of `GatePolicy`.
        also_test: a source of other labelled clips that the best two are scored on.
        robustness: whether the best two are scored on distorted test clips.

    Returns:
        The leaderboard, with its parent run, and what became of the chosen candidate.

    Raises:
        GenreflowError: the candidates are not of one corpus and split.
        CorpusError: `also_test` has fewer than two of the genres, or only clips that were trained on.
    """
    from genreflow.comparison import candidate as artifacts
    from genreflow.comparison import leaderboard
    from genreflow.comparison.report import write_report

    with report_step(STEP, out, corpus=corpus, candidate=candidates), progress.report_as(STEP):
        opened = [artifacts.Candidate.open(folder) for folder in candidates]
        document = leaderboard.build(opened)
        document.write(out)
        progress.report(STEP, "writing the report")
        write_report(document, out)
        document = _logged(document, opened, out, experiment)
        progress.report(STEP, document.headline)
        chosen = next(one for one in opened if one.name == document.candidate)
        packaged, evaluation = chosen.folder / artifacts.PACKAGED, chosen.folder / artifacts.EVALUATION
        run_id = chosen.document.run_id or ""
        # the candidate has a copy of the split's document, which is all that is registered of a split
        registered = register(packaged, evaluation, corpus, chosen.folder, run_id)
        decision, aliases, to_build = promote(registered.version, packaged, evaluation, corpus, policy or {})
        if also_test or robustness:  # last: they choose nothing, and what fails here leaves the rest done
            best = [row.name for row in document.rows[:BEST]]
            further = _further(opened, best, corpus, also_test, robustness)
            document = document.model_copy(update={"further": further})
            document.write(out)
            write_report(document, out)
            document = _logged(document, opened, out, experiment)
        return document, Promoted(run_id, registered.version, registered.created, decision, aliases, to_build)


def _logged(
    document: "ComparisonDocument", opened: "Sequence[Candidate]", out: Path, experiment: str
) -> "ComparisonDocument":
    """The leaderboard with its parent run, logged to MLflow and written again."""
    from genreflow import registry

    by_name = {one.name: one for one in opened}
    parent = _parent(document, out)
    children = [_child(document, row, by_name[row.name]) for row in document.rows]
    content = document.model_copy(update={"further": (), "parent_run_id": None}).model_dump_json()
    run_id = retry_mlflow(STEP, lambda: registry.log_comparison(experiment, parent, children, content))
    logged = document.model_copy(update={"parent_run_id": run_id})
    logged.write(out)
    return logged


def _further(
    candidates: "Sequence[Candidate]",
    names: Sequence[str],
    corpus: Path,
    also_test: str | None,
    robustness: bool,
) -> "tuple[FurtherTests, ...]":
    """What the named candidates score on another source and under distortions."""
    from genreflow.comparison.candidate import PACKAGED
    from genreflow.comparison.further_tests import further_tests
    from genreflow.corpus.store import Corpus

    folders = {one.name: one.folder / PACKAGED for one in candidates}
    packaged = {name: folders[name] for name in names}
    opened, first = Corpus.open(corpus), candidates[0]
    tested: list[int] = []
    if robustness:
        rows = opened.manifest["clip_id"].isin(first.test["clip_id"])
        tested = np.flatnonzero(rows).tolist()
    with tempfile.TemporaryDirectory(prefix="genreflow-compare-") as scratch:
        found = further_tests(packaged, opened, also_test, tested, first.split.leaky, Path(scratch))
    return tuple(found)


def _parent(document: "ComparisonDocument", out: Path) -> "ComparedRun":
    from genreflow.comparison.report import PLOTS, REPORT, as_markdown
    from genreflow.registry import ComparedRun

    return ComparedRun(
        name="comparison",
        parameters={
            "candidates": ", ".join(row.name for row in document.rows),
            "protocol": document.protocol,
            "folds": document.folds,
            "chosen_by": document.chosen_by,
            "candidate": document.candidate,
        },
        metrics={},
        tags=_tags(document),
        note=as_markdown(document),
        files={
            "comparison": [out / document.file_name, out / REPORT],
            "comparison/plots": sorted((out / PLOTS).glob("*.png")),
        },
    )


def _child(document: "ComparisonDocument", row: "LeaderboardRow", candidate: "Candidate") -> "ComparedRun":
    from genreflow.comparison.candidate import EVALUATION
    from genreflow.comparison.report import LEAKY_FOLDS
    from genreflow.evaluation.artifact import PLOTS, REPORT
    from genreflow.registry import ComparedRun

    metrics = {f"test.{name}": value for name, value in candidate.evaluation.scalars().items()}
    for name in ("train", "validation", "out_of_fold"):
        score = getattr(row, name)
        if score is not None:
            metrics |= {f"{name}.accuracy": score.accuracy, f"{name}.nll": score.nll}
    for name in ("parameters", "served_bytes", "training_seconds", "latency_30s_ms", "real_time_factor"):
        value = getattr(row, name)
        if value is not None:
            metrics[name] = float(value)
    folder = candidate.folder / EVALUATION
    return ComparedRun(
        name=row.name,
        parameters={"family": row.family, "model": candidate.packaged.model.settings},
        metrics=metrics,
        tags={**_tags(document), "genreflow.family": row.family, "genreflow.chosen": str(row.chosen).lower()},
        note=f"{candidate.evaluation.headline}"
        + (" **Leaky split: these figures are optimistic.**" if document.leaky else "")
        + (f" **{LEAKY_FOLDS}.**" if document.folds_leak_reason else ""),
        files={"evaluation": [folder / REPORT], "evaluation/plots": sorted((folder / PLOTS).glob("*.png"))},
        trained_in=row.run_id,
    )


def _tags(document: "ComparisonDocument") -> dict[str, str]:
    return {
        "genreflow.comparison": "true",
        "genreflow.protocol": document.protocol,
        "genreflow.leaky": str(document.leaky).lower(),
        "genreflow.folds": str(document.folds),
        "genreflow.folds_leaky": str(document.folds_leak_reason is not None).lower(),
        "genreflow.synthetic": str(document.synthetic).lower(),
        "genreflow.corpus_fingerprint": document.corpus_fingerprint,
        "genreflow.split_fingerprint": document.split_fingerprint,
    }
