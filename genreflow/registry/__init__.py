"""MLflow: runs joined or opened, versions of the classifier, the champion's alias."""

from genreflow.registry.champions import BENTO_TAG, conclude, record_bento, rollback, set_champion
from genreflow.registry.registration import Registered, register
from genreflow.registry.runs import Curves, close_run, log_curves, open_run
from genreflow.registry.store import MODEL_NAME, check, patiently, ui_address, ui_command
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
    "Curves",
    "Registered",
    "Version",
    "champion",
    "check",
    "close_run",
    "conclude",
    "content_digest",
    "fetch",
    "log_curves",
    "open_run",
    "patiently",
    "record_bento",
    "register",
    "rollback",
    "set_champion",
    "ui_address",
    "ui_command",
    "version",
    "versions",
]
