"""The folder of genreflow's state (`GENREFLOW_HOME`, or `.genreflow/` in the working folder); free ports."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genreflow.core.errors import GenreflowError

HOME_VARIABLE = "GENREFLOW_HOME"


def home() -> Path:
    """The state folder, absolute. It is not created here."""
    return Path(os.environ.get(HOME_VARIABLE, ".genreflow")).expanduser().resolve()


def corpora_folder() -> Path:
    """Synthesised and fetched corpora, as playable audio files."""
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


def views_folder() -> Path:
    """Augmented copies of training clips in a representation, one folder a representation; may be deleted."""
    return home() / "views"


def searches_folder() -> Path:
    """Searches for parameters that have not ended yet, one file or folder a key of the inputs."""
    return home() / "searches"


def curves_folder() -> Path:
    """Points of training curves that MLflow has not received yet, one file a run."""
    return home() / "curves"


def scores_folder() -> Path:
    """Predictions of models for test clips, one file a model, precision and split."""
    return home() / "scores"


def models_folder() -> Path:
    """Packaged models downloaded from the registry, one folder a content digest."""
    return home() / "models"


def weights_folder() -> Path:
    """Pretrained weights, converted, one folder a network and content digest."""
    return home() / "weights"


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
    """Check that a server can listen there.

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


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Write into the state folder in a block.

    Raises:
        GenreflowError: it cannot be written, or its disk is full; names `folder`.
    """
    try:
        yield
    except OSError as error:
        raise GenreflowError(
            f"{folder} cannot be written ({os_reason(error)}): make room there, or set GENREFLOW_HOME to "
            "another folder."
        ) from error


def check_writable(folder: Path, name: str) -> None:
    """Nothing where files can be written into a folder, which is made where it is missing.

    Args:
        name: what the reader calls it, as the variable that names it.

    Raises:
        GenreflowError: it cannot be written.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise GenreflowError(
            f"{name} is {folder}, which user {os.geteuid()} of group {os.getegid()} cannot write "
            f"({os_reason(error)}). Where it lies on a persistent volume claim: KFP sets no fsGroup for "
            "pods, so the claim's folder has to belong to that user or be writable for that group (chown or "
            "chmod g+w it once in a pod that runs as root), or resources.run_as_user has to be its owner."
        ) from error


def os_reason(error: OSError) -> str:
    """The operating system's reason, also where `shutil` lists what happened to each file."""
    if isinstance(error, shutil.Error) and error.args and error.args[0]:
        failures = error.args[0]
        reason = str(failures[0][-1] if isinstance(failures, list) else failures)
        return reason.partition("] ")[2].partition(":")[0] or reason
    return error.strerror or type(error).__name__


def move_into_place(arrived: Path, folder: Path) -> None:
    """Move a fetched folder into place, unless another process has put the same there meanwhile."""
    try:
        arrived.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
