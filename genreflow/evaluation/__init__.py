"""Metrics, uncertainty and the report.

`evaluate` makes the evaluation artifact; `predict` predicts any clips with any classifier.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genreflow.evaluation.artifact import evaluate
    from genreflow.evaluation.predictions import predict

__all__ = ["evaluate", "predict"]


def __getattr__(name: str) -> Any:
    # The gate needs the uncertainty alone: figures and templates are loaded only where they are used.
    if name == "evaluate":
        from genreflow.evaluation.artifact import evaluate

        return evaluate
    if name == "predict":
        from genreflow.evaluation.predictions import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
