"""The MLflow store: reaching it, its errors as sentences, its experiments, its web page."""

import fcntl
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from genreflow import home
from genreflow.errors import RegistryAwayError, RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_NAME = "genre-classifier"
REACH_SECONDS = 5
"""How long a tracking server may take to answer at all."""
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""The web page shows training runs first, not the pages of language models."""
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
LOOPBACK = "127.0.0.1"
SQLITE_MAGIC = b"SQLite format 3\x00"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""What keeps MLflow from talking, to its makers and on the terminal; what the user has set stays."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""MLflow's own defaults wait for minutes; a large upload still gets a minute between two bytes."""
SECONDS_BETWEEN_ATTEMPTS = (2.0, 5.0, 10.0)
GATEWAY_ERRORS = (502, 503, 504)
"""Answers of what stands before a server that is not there."""

log = logging.getLogger("genreflow")
T = TypeVar("T")


def connect() -> "MlflowClient":
    """A client of the store that `MLFLOW_TRACKING_URI` names, by default SQLite in the state folder.

    Raises:
        RegistryError: the store cannot be reached or is not one.
    """
    uri = home.tracking_uri()
    mlflow = _mlflow()
    check()
    sqlite = _sqlite_path(uri)
    if sqlite is None:
        with asking("open"):
            return mlflow.MlflowClient(tracking_uri=uri, registry_uri=_registry_uri(uri))
    with asking("open"), _one_at_a_time(sqlite):
        return mlflow.MlflowClient(tracking_uri=uri, registry_uri=_registry_uri(uri))


def check() -> None:
    """Nothing where a server answers, or a SQLite file could be one; told within seconds, without MLflow.

    Raises:
        RegistryError: the store cannot be reached or is not one.
    """
    uri = home.tracking_uri()
    if served(uri):
        _reach(uri)
    sqlite = _sqlite_path(uri)
    if sqlite is not None:
        _check_sqlite(sqlite)


def patiently(ask: Callable[[], T], tell: Callable[[str], None]) -> T:
    """What `ask` returns; while MLflow is away it is asked again, a few times and ever more rarely.

    Args:
        ask: may be called several times.
        tell: called with a sentence before each wait.

    Raises:
        RegistryAwayError: MLflow did not come back.
    """
    attempts = len(SECONDS_BETWEEN_ATTEMPTS) + 1
    for attempt, seconds in enumerate(SECONDS_BETWEEN_ATTEMPTS, start=2):
        try:
            return ask()
        except RegistryAwayError as error:
            tell(f"{error} Attempt {attempt} of {attempts} follows in {seconds:g} seconds.")
            time.sleep(seconds)
    return ask()


def served(uri: str) -> bool:
    """Whether the store is a server, which keeps artifacts itself."""
    return urlsplit(uri).scheme in ("http", "https")


def shown(uri: str) -> str:
    """The address without a password in it."""
    parts = urlsplit(uri)
    if not parts.password:
        return uri
    place = parts.hostname or ""
    if parts.port:
        place += f":{parts.port}"
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{place}"))


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn what MLflow, its database or the network raises into a sentence.

    Args:
        what: what was tried, as a verb phrase: `register the model`.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        lines = str(error).strip().splitlines()
        first = lines[0] if lines else type(error).__name__
        kind = RegistryAwayError if _broke_off(error) else RegistryError
        raise kind(
            f"MLflow at {shown(home.tracking_uri())} could not {what}: {first[:500].rstrip('.')}."
        ) from error


def _broke_off(error: BaseException | None) -> bool:
    """Whether the network or a busy database was the reason; MLflow hides it in its own exceptions."""
    from requests.exceptions import ConnectionError, RetryError, Timeout
    from sqlalchemy.exc import OperationalError

    while error is not None:
        if isinstance(error, ConnectionError | RetryError | Timeout | OperationalError):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def as_default_store() -> Iterator[None]:
    """Name our store in the environment: MLflow's SQL registry resolves `models:/` through the default one.

    MLflow's own `set_tracking_uri` would stay behind in this process, whatever GENREFLOW_HOME becomes.
    """
    if os.environ.get(TRACKING_VARIABLE):
        yield
        return
    os.environ[TRACKING_VARIABLE] = home.tracking_uri()
    try:
        yield
    finally:
        del os.environ[TRACKING_VARIABLE]


def experiment_id(client: "MlflowClient", name: str) -> str:
    """The id of the experiment, created where missing.

    Raises:
        RegistryError: the experiment was deleted, or the store refuses.
    """
    with asking(f"find the experiment {name!r}"):
        found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage != "active":
            raise RegistryError(
                f"The MLflow experiment {name!r} was deleted: restore it (mlflow experiments restore "
                f"--experiment-id {found.experiment_id}) or name another."
            )
        return str(found.experiment_id)
    # A tracking server has its own artifact store; an embedded one keeps artifacts in the state folder.
    root = None if served(home.tracking_uri()) else home.artifact_root()
    from mlflow.exceptions import MlflowException

    with asking(f"create the experiment {name!r}"):
        try:
            return str(client.create_experiment(name, artifact_location=root, tags=EXPERIMENT_TAGS))
        except MlflowException as error:
            there = client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or there is None:
                raise
            return str(there.experiment_id)  # another process was faster


def ui_address() -> str | None:
    """Where the store's web page already is; None where `ui_command` has to start one."""
    uri = home.tracking_uri()
    return shown(uri) if served(uri) else None


def ui_command(port: int = 5000) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a process that serves the store's web page on the loopback.

    Raises:
        RegistryError: the port is taken, the store is a server of its own, or it cannot be opened.
    """
    address = ui_address()
    if address is not None:
        raise RegistryError(f"This registry has a web page already: open {address} in a browser.")
    home.free_port(LOOPBACK, port)
    connect()
    # Setting allowed hosts drops MLflow's defaults, and they are matched with their port.
    hosts = ",".join(f"{name}:{port}" for name in ("localhost", LOOPBACK))
    argv = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        LOOPBACK,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    argv += ["--backend-store-uri", home.tracking_uri(), "--default-artifact-root", home.artifact_root()]
    argv += ["--allowed-hosts", hosts]
    environment = QUIET | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | dict(os.environ)
    return argv, environment


def _mlflow() -> Any:
    """MLflow, imported where it is first needed (it takes a second or more) and kept quiet."""
    for name, value in (QUIET | PATIENCE).items():
        os.environ.setdefault(name, value)
    import mlflow

    level = os.environ["MLFLOW_LOGGING_LEVEL"].upper()
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(level if level in logging.getLevelNamesMapping() else "WARNING")
    return mlflow


def _registry_uri(tracking_uri: str) -> str:
    return os.environ.get("MLFLOW_REGISTRY_URI") or tracking_uri


def _reach(uri: str) -> None:
    """Any answer of a server will do: MLflow itself would wait and try again for minutes."""
    import requests

    try:
        answer = requests.get(uri.rstrip("/") + "/health", timeout=REACH_SECONDS)
    except requests.exceptions.SSLError:
        return  # a server is there; MLflow has its own settings for certificates
    except requests.exceptions.RequestException as error:
        raise _away(uri, _cause(error)) from error
    if answer.status_code in GATEWAY_ERRORS:
        raise _away(uri, f"what stands before it says {answer.status_code} {answer.reason}")


def _away(uri: str, cause: str) -> RegistryAwayError:
    return RegistryAwayError(
        f"The MLflow server at {shown(uri)} does not answer ({cause}). Start it, or correct "
        "MLFLOW_TRACKING_URI; unset, genreflow keeps a store of its own."
    )


def _cause(error: BaseException) -> str:
    """The innermost reason of a network error, in a few words."""
    import requests

    if isinstance(error, requests.exceptions.Timeout):
        return f"no answer in {REACH_SECONDS} seconds"
    text = str(error)
    for known in ("Connection refused", "Name or service not known", "No route to host"):
        if known in text:
            return known.lower()
    if "NameResolutionError" in text or "Failed to resolve" in text:
        return "its name cannot be resolved"
    return type(error).__name__


def _sqlite_path(uri: str) -> Path | None:
    if not uri.startswith("sqlite:"):
        return None
    path = uri.removeprefix("sqlite:///")
    return None if path in ("", ":memory:") or path == uri else Path(path)


def _check_sqlite(path: Path) -> None:
    """What MLflow would try again for a minute and a half and then say in SQLAlchemy's words."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise RegistryError(f"{path} is a folder: MLFLOW_TRACKING_URI must name a SQLite file.")
        if path.exists():
            with path.open("rb") as file:
                head = file.read(len(SQLITE_MAGIC))
            if head and head != SQLITE_MAGIC:
                raise RegistryError(
                    f"{path} is not a SQLite database: move it away, or set MLFLOW_TRACKING_URI to another."
                )
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise RegistryError(f"{path} cannot be written: change its permissions or GENREFLOW_HOME.")
    except OSError as error:
        raise RegistryError(f"The MLflow store {path} cannot be opened: {error}.") from error


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Two processes that create the same tables at once would both fail."""
    with (path.parent / f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
