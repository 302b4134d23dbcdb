"""Comparisons in MLflow: a parent run with the leaderboard, a child run for each candidate."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genreflow.core.digests import text_digest
from genreflow.registry.runs import close_run, metric_name, open_child_run, open_run
from genreflow.registry.store import connect, translate_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRAINED_IN_TAG = "genreflow.trained_in_run"
"""Of a candidate's run: the run that trained its model, which may be older than the comparison."""
CALL_CHARACTERS = 32


@dataclass(frozen=True)
class ComparedRun:
    """What a run of a comparison shows."""

    name: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    note: str
    """Markdown, shown above the run's figures."""
    files: Mapping[str, Sequence[Path]]
    """Files by the folder of artifacts that they are copied to; `` is the root."""
    trained_in: str | None = None
    """The run that trained a candidate."""


def log_comparison(
    experiment: str, parent: ComparedRun, candidates: Sequence[ComparedRun], content: str
) -> str:
    """Log a comparison: its own run, and below it one for each candidate, linked to the run that trained it.

    Args:
        experiment: name of the experiment of a new parent run; the platform's own run is joined where it has
            opened one.
        content: identifies what is logged: the same content again is logged to the same runs.

    Returns:
        The parent run's id.

    Raises:
        RegistryError: the store cannot be reached or refuses.
    """
    call = text_digest([content])[:CALL_CHARACTERS]
    client = connect(create=True)
    parent_id = open_run(experiment, parent.parameters, parent.tags, name=parent.name, call=call)
    _log(client, parent_id, parent)
    for candidate in candidates:
        tags = dict(candidate.tags)
        if candidate.trained_in:
            tags[TRAINED_IN_TAG] = candidate.trained_in
        child = open_child_run(
            parent_id,
            candidate.parameters,
            tags,
            candidate.name,
            text_digest([content, candidate.name])[:CALL_CHARACTERS],
        )
        _log(client, child, candidate)
        close_run(child)
    close_run(parent_id)
    return parent_id


def _log(client: "MlflowClient", run_id: str, run: ComparedRun) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    points = [Metric(metric_name(name), float(value), now, 0) for name, value in run.metrics.items()]
    with translate_errors("log the comparison"):
        known = client.get_run(run_id).data.metrics
        client.log_batch(run_id, metrics=[point for point in points if point.key not in known])
        client.set_tag(run_id, "mlflow.note.content", _linked(client, run))
        for folder, files in run.files.items():
            for file in files:
                client.log_artifact(run_id, str(file), folder or None)


def _linked(client: "MlflowClient", run: ComparedRun) -> str:
    """The note with a link to the run that trained the candidate, where this store has it."""
    from mlflow.exceptions import MlflowException

    if run.trained_in is None:
        return run.note
    try:
        place = client.get_run(run.trained_in).info.experiment_id
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return f"{run.note}\n\nTrained in run {run.trained_in}, which this store does not have."
    return f"{run.note}\n\nTrained in run [{run.trained_in}](#/experiments/{place}/runs/{run.trained_in})."
