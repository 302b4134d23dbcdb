"""MLflow: runs joined or opened, versions of the classifier, the champion's alias."""

from genreflow.registry.champions import BENTO_TAG, apply_decision, record_bento, rollback, set_champion
from genreflow.registry.comparisons import ComparedRun, log_comparison
from genreflow.registry.registration import Registered, register
from genreflow.registry.runs import Curves, close_run, log_curves, open_run, record_failure
from genreflow.registry.split_decisions import split_key
from genreflow.registry.store import (
    MODEL_NAME,
    check,
    retry_while_unavailable,
    served,
    shown,
    training_page,
    ui_address,
    ui_command,
)
from genreflow.registry.versions import (
    CHALLENGER,
    CHAMPION,
    Version,
    champion,
    content_digest,
    fetch,
    version,
    versions,
)

__all__ = [
    "BENTO_TAG",
    "CHALLENGER",
    "CHAMPION",
    "MODEL_NAME",
    "ComparedRun",
    "Curves",
    "Registered",
    "Version",
    "apply_decision",
    "champion",
    "check",
    "close_run",
    "content_digest",
    "fetch",
    "log_comparison",
    "log_curves",
    "open_run",
    "record_bento",
    "record_failure",
    "register",
    "retry_while_unavailable",
    "rollback",
    "served",
    "set_champion",
    "shown",
    "split_key",
    "training_page",
    "ui_address",
    "ui_command",
    "version",
    "versions",
]
