"""Where genreflow keeps its state: `GENREFLOW_HOME`, by default `.genreflow/` in the working folder."""

import os
from pathlib import Path


def home() -> Path:
    """The state folder, absolute. It is not created here."""
    return Path(os.environ.get("GENREFLOW_HOME", ".genreflow")).expanduser().resolve()


def corpora_folder() -> Path:
    """Synthesised and fetched corpora, as audio one can listen to."""
    return home() / "corpora"


def pipeline_root() -> Path:
    """Artifacts of local pipeline runs, one folder a run."""
    return home() / "pipelines"


def cache_folder() -> Path:
    """The step cache of local pipeline runs."""
    return home() / "cache"


def checkpoints_folder() -> Path:
    """Training checkpoints, one folder a key of the inputs."""
    return home() / "checkpoints"


def models_folder() -> Path:
    """Packaged models downloaded from the registry, one folder a content digest."""
    return home() / "models"


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI` where set, else a SQLite store in the state folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def artifact_root() -> str:
    """Where the embedded MLflow store keeps artifacts; unused with a tracking server."""
    return (home() / "mlartifacts").as_uri()
