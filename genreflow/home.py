"""Where genreflow keeps its state (`GENREFLOW_HOME`, or `.genreflow/` in the working folder) and listens."""

import os
import socket
from pathlib import Path

from genreflow.errors import GenreflowError


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


def curves_folder() -> Path:
    """Points of training curves that MLflow could not take yet, one file a run."""
    return home() / "curves"


def models_folder() -> Path:
    """Packaged models downloaded from the registry, one folder a content digest."""
    return home() / "models"


def bentoml_home() -> Path:
    """`BENTOML_HOME`, or where BentoML keeps its stores without it."""
    return Path(os.environ.get("BENTOML_HOME", "~/bentoml")).expanduser().resolve()


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI` where set, else a SQLite store in the state folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def artifact_root() -> str:
    """Where the embedded MLflow store keeps artifacts; unused with a tracking server."""
    return (home() / "mlartifacts").as_uri()


def free_port(host: str, port: int) -> None:
    """Nothing where a server could listen there.

    Raises:
        GenreflowError: the port is taken, or is none.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise GenreflowError(
                f"Port {port} on {host} cannot be used ({error}): choose another with --port."
            ) from error


def keep(arrived: Path, folder: Path) -> None:
    """Put what was fetched into its place, unless another process has put the same there meanwhile."""
    try:
        arrived.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
