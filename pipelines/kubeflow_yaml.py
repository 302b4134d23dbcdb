"""A pipeline written as YAML for Kubeflow, with warnings of what its pods may lack."""

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler

from genreflow.registry import shown
from pipelines.compact import write_compactly
from pipelines.pods import tracking_of_this_machine
from pipelines.resources import Resources
from pipelines.workflow_size import BUDGET, estimated_bytes

log = logging.getLogger("genreflow")


def write_pipeline(
    path: Path,
    pipeline: Callable[..., Any],
    resources: Resources,
    reachability_warnings: Iterable[str],
    what: str,
    remedy: str,
    compact: bool = False,
) -> None:
    """Compile a pipeline into a file.

    Args:
        pipeline: as kfp's decorator made it.
        resources: of its pods.
        reachability_warnings: sentences on what the pods may not reach.
        what: runs of it, for the sentence where its Workflow is too large.
        remedy: what makes the Workflow smaller, for the same sentence.
        compact: without what only readers of the source need.

    Raises:
        SettingsError: a variable of the pods names an MLflow store on this machine.
    """
    if tracking_of_this_machine(resources):
        log.warning(
            "The pods get no MLFLOW_TRACKING_URI: this shell's %s is this machine only here, and to a pod it "
            "is the pod itself. Name the address that pods reach, unless the cluster injects one.",
            shown(os.environ["MLFLOW_TRACKING_URI"]),
        )
    for warning in dict.fromkeys(reachability_warnings):
        log.warning("%s", warning)
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, package_path=str(path))
    if compact:
        write_compactly(path)
    size = estimated_bytes(*yaml.safe_load_all(path.read_text()))
    if size > BUDGET:
        log.warning(
            "The Workflow of %s is estimated at %.1f MB, and Kubernetes refuses more than 1.5: %s",
            what,
            size / 1e6,
            remedy,
        )
