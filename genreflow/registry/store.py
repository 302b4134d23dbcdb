"""The MLflow store: reaching it, its errors as sentences, its experiments, its web page."""

import fcntl
import importlib.metadata
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from genreflow.core import home
from genreflow.core.errors import NoRegistryError, RegistryError, RegistryUnavailableError, one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_NAME = "genre-classifier"
EXPERIMENT = "genreflow"
"""The experiment of runs that name no other."""
REACH_SECONDS = 5
"""How long a store of any kind may take to answer at all."""
KIND_TAG, MODEL_TRAINING = "mlflow.experimentKind", "custom_model_development"
"""MLflow's web page opens an experiment of this kind with its training runs, others with its GenAI pages."""
INFERRED = "_inferred"
"""The end of a kind that MLflow's page guessed and no person chose."""
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
REGISTRY_VARIABLE = "MLFLOW_REGISTRY_URI"
SERVERS = ("http", "https")
WITHOUT_SLASHES = ("sqlite", "file", "databricks", "databricks-uc", "uc", "arn")
"""Schemes that MLflow takes without two slashes behind them."""
DATABASES = {"postgresql": "PostgreSQL", "mysql": "MySQL", "mssql": "SQL Server"}
"""The databases on a network that MLflow keeps a store in, by the beginning of their URI."""
DRIVERS = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "pymysql": "pymysql",
    "MySQLdb": "mysqlclient",
    "pyodbc": "pyodbc",
}
"""The package of each driver, by the module that it is imported as."""
WITH_CONNECT_TIMEOUT = ("psycopg", "psycopg2", "pymysql", "mysqldb")
"""Drivers, as SQLAlchemy calls them, whose connections take `connect_timeout`."""
EXAMPLES = "http://mlflow:5000, sqlite:////folder/mlflow.db or postgresql://user:password@host/name"
LOOPBACK = "127.0.0.1"
SQLITE_MAGIC = b"SQLite format 3\x00"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Variables that switch off MLflow's telemetry and terminal output; what the user has set stays."""
HTTP_RETRIES = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""MLflow's own defaults wait for minutes; a large upload still gets a minute between two bytes."""
SECONDS_BETWEEN_ATTEMPTS = (2.0, 5.0, 10.0)
GATEWAY_ERRORS = (502, 503, 504)
"""Statuses of a proxy whose server is not there."""

log = logging.getLogger("genreflow")
T = TypeVar("T")


def connect(create: bool = False) -> "MlflowClient":
    """A client of the store that `MLFLOW_TRACKING_URI` names, by default SQLite in the state folder.

    Args:
        create: make a SQLite file that does not exist; for what writes a first run or version.

    Raises:
        NoRegistryError: the state folder has no store yet, and none is to be made.
        RegistryError: the store cannot be reached or is not one.
    """
    uri = home.tracking_uri()
    check(create)
    mlflow = _mlflow()
    sqlite = _sqlite_path(uri)
    if sqlite is None:
        with translate_errors("open"):
            return mlflow.MlflowClient(tracking_uri=uri, registry_uri=_registry_uri(uri))
    with translate_errors("open"), _one_at_a_time(sqlite):
        return mlflow.MlflowClient(tracking_uri=uri, registry_uri=_registry_uri(uri))


def check(create: bool = True) -> None:
    """Nothing where a server or a database answers, or a SQLite file is there or could be made.

    Args:
        create: whether a SQLite file may be made where there is none.

    Raises:
        NoRegistryError: the state folder has no store yet, and none is to be made.
        RegistryError: the store does not answer within `REACH_SECONDS`, or is not one.
    """
    uri = home.tracking_uri()
    variable = TRACKING_VARIABLE if os.environ.get(TRACKING_VARIABLE) else None
    _check(uri, variable, create)
    if _registry_uri(uri) != uri:
        _check(_registry_uri(uri), REGISTRY_VARIABLE, create)


def retry_while_unavailable(call: Callable[[], T], report: Callable[[str], None]) -> T:
    """What `call` returns; while MLflow is unavailable it is called again, a few times with growing pauses.

    Args:
        call: may be called several times.
        report: called with a sentence before each wait.

    Raises:
        RegistryUnavailableError: MLflow did not come back.
    """
    attempts = len(SECONDS_BETWEEN_ATTEMPTS) + 1
    for attempt, seconds in enumerate(SECONDS_BETWEEN_ATTEMPTS, start=2):
        try:
            return call()
        except RegistryUnavailableError as error:
            report(f"{error} Attempt {attempt} of {attempts} follows in {seconds:g} seconds.")
            time.sleep(seconds)
    return call()


def served(uri: str) -> bool:
    """Whether the store is a server, which keeps artifacts itself."""
    return urlsplit(uri).scheme in SERVERS


def shown(uri: str) -> str:
    """The address without a password in it."""
    parts = urlsplit(uri)
    try:
        port = parts.port
    except ValueError:  # a password with a slash in it ends the address too early
        return re.sub(r"(?<=://)([^:/@]*):.*@", r"\1:***@", uri)
    if not parts.password:
        return uri
    place = parts.hostname or ""
    if port:
        place += f":{port}"
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{place}"))


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
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
        reason = one_line(error, first=True).rstrip(".")
        kind = RegistryUnavailableError if _connection_lost(error) else RegistryError
        raise kind(f"MLflow at {shown(home.tracking_uri())} could not {what}: {reason}.") from error


def _connection_lost(error: BaseException | None) -> bool:
    """Whether the network or a busy database was the reason; MLflow hides it in its own exceptions."""
    from requests.exceptions import ConnectionError, RetryError, Timeout
    from sqlalchemy.exc import OperationalError

    while error is not None:
        if isinstance(error, ConnectionError | RetryError | Timeout | OperationalError):
            return True
        error = error.__cause__ or error.__context__
    return False


def experiment_id(client: "MlflowClient", name: str) -> str:
    """The id of the experiment, created where missing.

    Raises:
        RegistryError: the experiment was deleted, or the store refuses.
    """
    with translate_errors(f"find the experiment {name!r}"):
        found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage != "active":
            raise RegistryError(
                f"The MLflow experiment {name!r} was deleted: restore it (mlflow experiments restore "
                f"--experiment-id {found.experiment_id}) or name another."
            )
        show_training(client, str(found.experiment_id))
        return str(found.experiment_id)
    # A tracking server has its own artifact store; an embedded one keeps artifacts in the state folder.
    root = None if served(home.tracking_uri()) else home.artifact_root()
    from mlflow.exceptions import MlflowException

    with translate_errors(f"create the experiment {name!r}"):
        try:
            return str(
                client.create_experiment(name, artifact_location=root, tags={KIND_TAG: MODEL_TRAINING})
            )
        except MlflowException as error:
            there = client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or there is None:
                raise
            return str(there.experiment_id)  # another process was faster


def show_training(client: "MlflowClient", experiment: str) -> None:
    """Tag an existing experiment as one of model training, unless a person chose another kind."""
    from mlflow.exceptions import MlflowException

    try:
        kind = client.get_experiment(experiment).tags.get(KIND_TAG, INFERRED)
        if kind.endswith(INFERRED):
            client.set_experiment_tag(experiment, KIND_TAG, MODEL_TRAINING)
    except MlflowException as error:  # perhaps it may only be read: its runs can be logged all the same
        log.warning("MLflow's page may open experiment %s in its GenAI view: %s", experiment, error)


def training_page(address: str) -> str:
    """The page of MLflow at `address` that lists the training runs; the experiments where there are none yet.

    Without the parameter MLflow 3.17 opens its GenAI view, whatever the experiment's kind.
    """
    view = "workflowType=machine_learning"
    try:
        found = connect().get_experiment_by_name(EXPERIMENT)
    except NoRegistryError:
        found = None
    path = "experiments" if found is None else f"experiments/{found.experiment_id}/runs"
    return f"{address.rstrip('/')}/#/{path}?{view}"


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
    for name, value in (QUIET | HTTP_RETRIES).items():
        os.environ.setdefault(name, value)
    import mlflow

    level = os.environ["MLFLOW_LOGGING_LEVEL"].upper()
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(level if level in logging.getLevelNamesMapping() else "WARNING")
    return mlflow


def _registry_uri(tracking_uri: str) -> str:
    return os.environ.get(REGISTRY_VARIABLE) or tracking_uri


def _check(uri: str, variable: str | None, create: bool) -> None:
    """Check one store.

    Args:
        variable: the variable that names it; None for the store of the state folder.
    """
    _check_scheme(uri, variable or TRACKING_VARIABLE)
    if served(uri):
        _reach(uri, variable)
    elif _database(uri):
        _reach_database(uri, variable)
    elif uri.startswith("sqlite"):
        _check_sqlite(uri, variable, create)


def _check_scheme(uri: str, variable: str) -> None:
    """Reject what names no kind of store that MLflow has."""
    scheme, separator, rest = uri.partition("://")
    name = scheme.partition("+")[0].lower()
    if not separator and uri.partition(":")[0] not in WITHOUT_SLASHES:
        if Path(uri).exists() or uri.startswith(("/", ".", "~")) or uri.endswith((".db", ".sqlite")):
            path = Path(uri).expanduser().resolve()
            path = path / "mlflow.db" if path.is_dir() else path
            meant = f"for a SQLite file write sqlite:///{path}"
        else:
            meant = f"for a server write http://{uri}"
        raise RegistryError(f"{variable} is {uri}, which has no scheme: {meant} (as in {EXAMPLES}).")
    if name.partition(":")[0] == "file":
        raise RegistryError(
            f"{variable} is {uri}, and MLflow keeps no store in a folder of files any more: name another, as "
            f"{EXAMPLES}, and bring what lies there over with mlflow migrate-filestore."
        )
    known = {*SERVERS, *DATABASES, "sqlite", "databricks", "databricks-uc", "uc"}
    known |= {entry.name for entry in importlib.metadata.entry_points(group="mlflow.tracking_store")}
    if separator and name not in known:
        meant = f": write postgresql://{rest.rpartition('@')[2]}" if name == "postgres" else ""
        raise RegistryError(
            f"{variable} is {shown(uri)}, and MLflow has no store of the kind {scheme}{meant} (there are, as "
            f"examples, {EXAMPLES})."
        )


def _database(uri: str) -> str | None:
    """What the kind of a database on a network is called; None of other stores."""
    return DATABASES.get(urlsplit(uri).scheme.partition("+")[0])


def _reach(uri: str, variable: str | None) -> None:
    """Any answer of a server will do, and one that comes out of its database.

    MLflow itself would wait and try again for minutes.
    """
    import requests

    try:
        answer = requests.get(uri.rstrip("/") + "/health", timeout=REACH_SECONDS)
    except requests.exceptions.SSLError:
        pass  # a server is there; MLflow has its own settings for certificates
    except requests.exceptions.RequestException as error:
        raise _unavailable(uri, variable, _cause(error)) from error
    else:
        if answer.status_code in GATEWAY_ERRORS:
            raise _unavailable(
                uri, variable, f"the proxy in front of it responds {answer.status_code} {answer.reason}"
            )
    _probe(uri, variable)


def _probe(uri: str, variable: str | None) -> None:
    """One request that the server cannot answer without its database, with MLflow's own log-in.

    That this user may not read the experiment counts as an answer.
    """
    _mlflow()
    import requests
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        answer = http_request(
            get_default_host_creds(uri),
            "/api/2.0/mlflow/experiments/get",
            "GET",
            params={"experiment_id": "0"},
            timeout=REACH_SECONDS,
            max_retries=0,
            raise_on_status=False,
        )
    except (MlflowException, requests.exceptions.RequestException) as error:
        cause = error.__cause__ or error.__context__ or error
        if "timed out" in str(error) or isinstance(cause, requests.exceptions.Timeout):
            raise RegistryUnavailableError(
                f"The MLflow server at {shown(uri)} is up, but did not answer a request within "
                f"{REACH_SECONDS} seconds: check that its database is running."
            ) from error
        raise _unavailable(uri, variable, _cause(cause)) from error
    if answer.status_code >= 500:
        raise RegistryUnavailableError(
            f"The MLflow server at {shown(uri)} is up, but answers with {answer.status_code} "
            f"({_message(answer)}): check that its database is running."
        )
    if answer.status_code == 401:
        raise RegistryError(
            f"The MLflow server at {shown(uri)} rejects the log-in (401 {_message(answer)}): set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )
    if answer.status_code == 403 and "host header" in answer.text.lower():
        host = urlsplit(uri).netloc.rpartition("@")[2]
        raise RegistryError(
            f"The MLflow server at {shown(uri)} rejects requests under this name (403 {_message(answer)}): "
            f"start it with --allowed-hosts {host} and all its other names, since this replaces the defaults."
        )


def _message(answer: Any) -> str:
    """The message of an MLflow response, in one line."""
    try:
        text = str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        text = answer.text or answer.reason
    return one_line(RuntimeError(text.strip().splitlines()[0] if text.strip() else answer.reason)).rstrip(".")


def _reach_database(uri: str, variable: str | None) -> None:
    """Open a connection, in a thread: each driver has its own idea of how long to wait."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
    from sqlalchemy.pool import NullPool

    variable = variable or TRACKING_VARIABLE
    try:
        engine = create_engine(uri, poolclass=NullPool)
        if engine.driver in WITH_CONNECT_TIMEOUT:
            timeout = {"connect_timeout": int(REACH_SECONDS) + 1}  # ends the thread that is not waited for
            engine = create_engine(uri, poolclass=NullPool, connect_args=timeout)
    except ImportError as error:
        package = DRIVERS.get(error.name or "", error.name)
        why = f"driver {error.name} is not installed: pip install '{package}'"
        if not isinstance(error, ModuleNotFoundError):  # psycopg without its binary part
            why = f"driver cannot be loaded ({one_line(error).rstrip('.')})"
        raise RegistryError(f"{variable} names a {_database(uri)} database, and its {why}.") from error
    except NoSuchModuleError as error:
        driver = urlsplit(uri).scheme.partition("+")[2]
        raise RegistryError(
            f"{variable} is {shown(uri)}, and SQLAlchemy has no driver {driver} for {_database(uri)}."
        ) from error
    except (ArgumentError, ValueError) as error:
        why = one_line(error).rstrip(".")
        raise RegistryError(
            f"{variable} is {shown(uri)}, which is no address of a database ({why}): "
            "write postgresql://user:password@host:5432/name, with characters such as @ and / in the "
            "password as %40 and %2F."
        ) from error
    failures: list[BaseException] = []

    def open_one() -> None:
        try:
            engine.connect().close()
        except Exception as reason:
            failures.append(reason)

    thread = threading.Thread(target=open_one, name="reach the database", daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    if not thread.is_alive() and not failures:
        return
    cause = failures[0] if failures else None
    if cause is None:
        reason = f"no answer in {REACH_SECONDS} seconds"
    elif isinstance(cause, SQLAlchemyError | OSError):
        first = str(getattr(cause, "orig", None) or cause).strip().partition("\n")[0]
        reason = first.rstrip(".") or type(cause).__name__
    else:
        raise cause
    raise RegistryUnavailableError(
        f"The {_database(uri)} database of MLflow at {shown(uri)} does not answer ({reason}). Start it, or "
        f"correct {variable}; unset, genreflow keeps a store of its own."
    ) from cause


def _unavailable(uri: str, variable: str | None, cause: str) -> RegistryUnavailableError:
    return RegistryUnavailableError(
        f"The MLflow server at {shown(uri)} does not answer ({cause}). Start it, or correct "
        f"{variable or TRACKING_VARIABLE}; unset, genreflow keeps a store of its own."
    )


def _cause(error: BaseException) -> str:
    """The innermost reason of a network error, in a few words."""
    import requests

    if isinstance(error, requests.exceptions.Timeout):
        return f"no answer in {REACH_SECONDS} seconds"
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate is not trusted: set MLFLOW_TRACKING_SERVER_CERT_PATH or REQUESTS_CA_BUNDLE"
    for known in ("Connection refused", "Name or service not known", "No route to host"):
        if known in text:
            return known.lower()
    if "NameResolutionError" in text or "Failed to resolve" in text:
        return "its name cannot be resolved"
    return type(error).__name__


def _sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite store; None of other stores, and where the URI names none."""
    if not urlsplit(uri).scheme.startswith("sqlite"):
        return None
    _, separator, path = uri.partition(":///")
    path = path.partition("?")[0]
    return Path(path) if separator and path not in ("", ":memory:") else None


def _check_sqlite(uri: str, variable: str | None, create: bool) -> None:
    """Errors that MLflow would retry for a minute and a half and then report in SQLAlchemy's words."""
    path = _sqlite_path(uri)
    if path is None:
        raise RegistryError(
            f"{variable} is {uri}, which names no SQLite file: write four slashes before an absolute "
            "path, as in sqlite:////folder/mlflow.db."
        )
    try:
        if path.is_dir():
            raise RegistryError(
                f"{path} is a folder: {variable or TRACKING_VARIABLE} must name a SQLite file."
            )
        if not path.exists():
            _check_missing(path, uri, variable, create)
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
        raise RegistryError(f"The MLflow store {path} cannot be opened: {one_line(error)}.") from error


def _check_missing(path: Path, uri: str, variable: str | None, create: bool) -> None:
    """Reject a SQLite file that does not exist; where it may be created, create its folder."""
    if variable is not None:
        named = f"{variable} is {uri}, and there is no {path.absolute()}"
        if not path.is_absolute():
            named += f": three slashes begin a path below the working folder, four an absolute one, as sqlite:////{path}"
        if not create:
            raise RegistryError(f"{named}. A new store is made by genreflow run.")
        if not path.is_absolute() and not path.parent.is_dir():
            raise RegistryError(
                f"{named}; or make the folder {path.parent.absolute()} for a new store there."
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    if not create:
        raise NoRegistryError(
            f"The registry is empty (there is no {path}): genreflow run trains and registers a first version."
        )


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Two processes that create the same tables at once would both fail."""
    with (path.parent / f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
