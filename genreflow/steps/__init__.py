"""The steps of the pipeline: one function each, plain values and folders in and out.

Each can be called from a KFP component, a notebook or a test; none imports kfp. A step reports progress and
its error as a sentence through `genreflow.core.progress`, so that the process which started the pipeline
can show both.
"""

from genreflow.steps.compare import compare
from genreflow.steps.evaluate import evaluate
from genreflow.steps.extract_features import extract_features
from genreflow.steps.fine_tune import fine_tune
from genreflow.steps.ingest import ingest
from genreflow.steps.package import package
from genreflow.steps.promote import promote
from genreflow.steps.register import register
from genreflow.steps.reporting import report_step, retry_mlflow
from genreflow.steps.resolve import resolve
from genreflow.steps.resolve_candidates import resolve_candidates
from genreflow.steps.split import split
from genreflow.steps.train_candidate import train_candidate

__all__ = [
    "compare",
    "evaluate",
    "extract_features",
    "fine_tune",
    "ingest",
    "package",
    "promote",
    "register",
    "report_step",
    "resolve",
    "resolve_candidates",
    "retry_mlflow",
    "split",
    "train_candidate",
]
