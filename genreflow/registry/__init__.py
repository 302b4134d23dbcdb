"""MLflow: runs joined or opened, versions of the classifier, the champion's alias."""

from genreflow.registry.runs import Curves, close_run, log_curves, open_run
from genreflow.registry.store import MODEL_NAME, ui_address, ui_command
from genreflow.registry.versions import (
    CHALLENGER,
    CHAMPION,
    Registered,
    Version,
    challenger,
    champion,
    fetch,
    record_decision,
    register,
    rollback,
    set_challenger,
    set_champion,
    version,
    versions,
)

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "MODEL_NAME",
    "Curves",
    "Registered",
    "Version",
    "challenger",
    "champion",
    "close_run",
    "fetch",
    "log_curves",
    "open_run",
    "record_decision",
    "register",
    "rollback",
    "set_challenger",
    "set_champion",
    "ui_address",
    "ui_command",
    "version",
    "versions",
]
