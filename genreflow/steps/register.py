"""Register: one version per model content."""

from pathlib import Path
from typing import TYPE_CHECKING

from genreflow.steps.reporting import report_step, retry_mlflow

if TYPE_CHECKING:
    from genreflow.registry import Registered


def register(packaged: Path, evaluation: Path, corpus: Path, split: Path, run_id: str) -> "Registered":
    """One registered version per model content; a second registration of the same content finds the first."""
    from genreflow import registry

    with report_step("register", packaged=packaged, evaluation=evaluation, corpus=corpus, split=split):
        return retry_mlflow(
            "register", lambda: registry.register(packaged, evaluation, corpus, split, run_id)
        )
