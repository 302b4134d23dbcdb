"""Evaluate: the packaged model on the test split."""

from pathlib import Path
from typing import TYPE_CHECKING

from genreflow.steps.reporting import report_step

if TYPE_CHECKING:
    from genreflow.evaluation.document import EvaluationDocument


def evaluate(packaged: Path, corpus: Path, split: Path, out: Path) -> "EvaluationDocument":
    """The packaged model, as it is served, on the audio of the test split: metrics, plots, report."""
    from genreflow import evaluation

    with report_step("evaluate", out, packaged=packaged, corpus=corpus, split=split):
        return evaluation.evaluate(packaged, corpus, split, out)
