"""Training runs: opened or joined, parameters, environment, live curves that outlast an outage, lineage."""

import importlib.metadata
import json
import logging
import os
import platform
import posixpath
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from genreflow.core import home
from genreflow.core.digests import code_version
from genreflow.core.documents import CorpusDocument, SplitDocument
from genreflow.core.errors import FailedBeforeError, GenreflowError, RegistryError
from genreflow.registry import attempts
from genreflow.registry.store import connect, experiment_id, show_training, translate_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

PARAMETER_CHARACTERS = 500
LOG_ATTEMPTS = 3
BATCH_ENTRIES = 100
"""MLflow's limit of parameters or tags in one request."""
BATCH_METRICS = 500
DIGEST_CHARACTERS = 32
"""MLflow's dataset digests end at 36 characters."""
SECONDS_BETWEEN_FLUSHES = 2.0
MAX_SECONDS_BETWEEN_FLUSHES = 60.0
LAST_ATTEMPTS = 3
PACKAGES = ("torch", "transformers", "openvino", "mlflow", "numpy", "datasets", "kfp")
"""Packages whose versions are tags of every run; the whole environment is an artifact."""

log = logging.getLogger("genreflow")


def open_run(
    experiment: str,
    parameters: Mapping[str, Any],
    tags: Mapping[str, str] | None = None,
    name: str | None = None,
    step: str = "",
    call: str | None = None,
    child: bool = False,
) -> str:
    """Open a run, or join the one that `MLFLOW_RUN_ID` names (KFP injects it), and log how it was set up.

    A joined run that already has other parameters (the fits of a comparison share one pipeline run) gets a
    child run. A run of the same inputs that a killed attempt left open is resumed, unless its process may be
    alive (see `genreflow.registry.attempts`).

    Args:
        experiment: name of the experiment of a new run.
        parameters: possibly nested; flattened with dots.
        name: of a new run; where None, the family's where `parameters` has it.
        step: path that the step's result is written to, the same for all attempts of one step.
        call: letters and digits that identify the call: repeated, it returns the run of the first call.
        child: never join, but open a run below the one that `MLFLOW_RUN_ID` names.

    Returns:
        The run's id.

    Raises:
        FailedBeforeError: an earlier attempt of the step with equal inputs ended in a permanent error.
        RegistryError: the store cannot be reached or refuses.
    """
    client = connect(create=True)
    flat = flatten(parameters)
    given = {**environment_tags(), **(tags or {})}
    name, call = name or flat.get("family"), call or uuid.uuid4().hex
    joined = os.environ.get("MLFLOW_RUN_ID")
    if joined:
        run = _joined(client, joined)
        show_training(client, run.info.experiment_id)
        if child or any(run.data.params.get(key, value) != value for key, value in flat.items()):
            given["mlflow.parentRunId"] = joined
            run_id = _open(client, run.info.experiment_id, flat, given, name, step, call)
        else:
            run_id = joined
            mine = attempts.identity(_inputs(name, flat, given), step)
            with translate_errors("look for earlier attempts"):
                _check_not_failed(client, run.info.experiment_id, mine)
            given |= mine
    else:
        place = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if place:
            show_training(client, place)
        else:
            place = experiment_id(client, experiment)
        run_id = _open(client, place, flat, given, name, step, call)
    with translate_errors("log the parameters of the run"):
        _log_parameters(client, run_id, flat)
        _log_tags(client, run_id, given)
        client.log_text(run_id, requirements(), "environment/requirements.txt")
    return run_id


def open_child_run(
    parent: str, parameters: Mapping[str, Any], tags: Mapping[str, str], name: str, call: str
) -> str:
    """Open a run below another, in its experiment; the same call again returns the same run.

    Args:
        parent: the other run's id.
        parameters: possibly nested; flattened with dots.
        call: letters and digits that identify the call.

    Raises:
        RegistryError: the store cannot be reached or refuses.
    """
    client = connect()
    flat = flatten(parameters)
    given = {**tags, "mlflow.parentRunId": parent}
    with translate_errors("find the parent run"):
        place = client.get_run(parent).info.experiment_id
    run_id = _open(client, place, flat, given, name, "", call)
    with translate_errors("log the parameters of the run"):
        _log_parameters(client, run_id, flat)
        _log_tags(client, run_id, given)
    return run_id


def close_run(run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
    """End a run that was opened here; a joined one is left to the platform that opened it.

    A store that has gone away is reported, not raised: it must not cost the trained model.
    """
    if run_id == os.environ.get("MLFLOW_RUN_ID"):
        return
    try:
        client = connect()
        with translate_errors("close the run"):
            _end(client, client.get_run(run_id), status)
    except RegistryError as error:
        log.warning("Run %s stays open: %s", run_id, error)


def record_failure(run_id: str, error: GenreflowError) -> None:
    """Keep a permanent error with the run, so that the next attempt of the step ends in it at once.

    A store that has gone away is reported, not raised: it must not hide the error.
    """
    try:
        client = connect()
        with translate_errors("record the failure"):
            client.set_tag(run_id, attempts.FAILURE_TAG, str(error)[: attempts.FAILURE_CHARACTERS])
    except RegistryError as away:
        log.warning("Another attempt of this step will be made, though it cannot succeed: %s", away)


def log_curves(run_id: str, seconds_between_flushes: float = SECONDS_BETWEEN_FLUSHES) -> "Curves":
    """A callback for training that shows its curves in MLflow while they grow; for a `with` statement."""
    return Curves(run_id, seconds_between_flushes)


class Curves:
    """Metrics on their way to a run, sent in batches by a thread: training never waits for the network.

    While the store cannot be reached the points are kept, tried again ever more rarely, and a last few times
    at the end. What could not be sent then is written into the state folder, from where `finish_run` sends
    it when the model is registered; only where that fails, too, it is lost. Steps that the run already
    has are not logged again: an attempt that resumes it trains from a checkpoint before its last point.
    """

    def __init__(self, run_id: str, seconds_between_flushes: float = SECONDS_BETWEEN_FLUSHES) -> None:
        self.run_id = run_id
        self.kept = 0
        """Points that wait in the state folder."""
        self.lost = 0
        self.trouble = ""
        """What became of points that could not be sent: a sentence, once closed."""
        self._refusal = ""
        self._pause = seconds_between_flushes
        self._waiting: list[Metric] = []
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._ended = threading.Event()
        self._client: MlflowClient | None = None
        self._logged: dict[str, int] | None = None
        """The last step of each metric that the run had before, once it is known."""
        self._thread = threading.Thread(target=self._send_until_ended, name="curves", daemon=True)
        self._thread.start()

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the values of one step; returns at once."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(metric_name(key), float(value), now, step) for key, value in metrics.items()]
        with self._lock:
            self._waiting += points

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> int:
        """Send or keep what waits, and end; the number of points that are lost."""
        if self._ended.is_set():
            return self.lost
        self._ended.set()
        self._thread.join(timeout=MAX_SECONDS_BETWEEN_FLUSHES)
        for attempt in range(LAST_ATTEMPTS):
            if self._flush():
                break
            if attempt < LAST_ATTEMPTS - 1:
                time.sleep(min(self._pause * 2**attempt, 5.0))
        with self._lock:
            left = self._waiting[:]
        if left:
            self._keep(left)
            log.warning("%s", self.trouble)
        return self.lost

    def _keep(self, points: "Sequence[Metric]") -> None:
        what = f"{len(points)} points of the curves of run {self.run_id}"
        path = kept_curves(self.run_id)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".part")
            with unfinished.open("w") as file:
                for point in points:
                    file.write(json.dumps([point.key, point.value, point.timestamp, point.step]) + "\n")
            unfinished.replace(path)
        except OSError as error:
            self.lost = len(points)
            fate = f"are lost, because {path} could not be written either ({error.strerror})"
        else:
            self.kept = len(points)
            fate = f"are kept in {path} until the model is registered"
        self.trouble = f"{what} {fate}. The model is not touched by it. {self._refusal}"

    def _send_until_ended(self) -> None:
        pause = self._pause
        while not self._ended.wait(pause):
            pause = self._pause if self._flush() else min(pause * 2, MAX_SECONDS_BETWEEN_FLUSHES)

    def _flush(self) -> bool:
        """Send what waits; False where the store could not take it."""
        with self._sending:
            try:
                while True:
                    with self._lock:
                        batch = self._waiting[:BATCH_METRICS]
                    if not batch:
                        return True
                    if self._client is None:
                        self._client = connect()
                    with translate_errors("log the curves"):
                        if self._logged is None:
                            self._logged = last_steps(self._client, self.run_id)
                        new = [point for point in batch if point.step > self._logged.get(point.key, -1)]
                        if new:
                            self._client.log_batch(self.run_id, metrics=new)
                    with self._lock:
                        del self._waiting[: len(batch)]
            except RegistryError as error:
                log.info("The curves wait: %s", error)
                self._refusal = str(error)
                self._client = None
                return False


def last_steps(client: "MlflowClient", run_id: str) -> dict[str, int]:
    """The last step of every metric that a run has."""
    return {
        key: max(point.step for point in client.get_metric_history(run_id, key))
        for key in client.get_run(run_id).data.metrics
    }


def kept_curves(run_id: str) -> Path:
    """The file of points that could not be sent while a run trained: JSON lines of key, value, time, step."""
    return home.curves_folder() / f"{run_id}.jsonl"


def finish_run(client: "MlflowClient", run_id: str) -> None:
    """Send the points that were kept while MLflow was away, and close the run where that failed then.

    A run that this store does not know, or that was deleted, is left unchanged.
    """
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return
    if run.info.lifecycle_stage != "active":
        return
    path = kept_curves(run_id)
    if path.is_file():
        points = [Metric(*json.loads(line)) for line in path.read_text().splitlines()]
        for start in range(0, len(points), BATCH_METRICS):
            client.log_batch(run_id, metrics=points[start : start + BATCH_METRICS])
        path.unlink()
    if run.info.status == "RUNNING" and run_id != os.environ.get("MLFLOW_RUN_ID"):
        _end(client, run, "FINISHED")


def _end(client: "MlflowClient", run: "Run", status: str) -> None:
    """End a run no earlier than it began, though the clock was set back meanwhile."""
    now = int(time.time() * 1000)
    client.set_terminated(run.info.run_id, status, max(now, run.info.start_time))


def flatten(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow parameters: dotted names that MLflow takes, values of bounded length."""
    flat: dict[str, str] = {}
    for key, value in parameters.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            if len(text) > PARAMETER_CHARACTERS:
                text = text[: PARAMETER_CHARACTERS - 1] + "…"
            flat[metric_name(name)] = text
    return flat


def metric_name(name: str) -> str:
    """A name with what MLflow refuses in keys replaced by its code point (`C+` by `C_2b`), at most 250
    characters."""
    taken = "".join(
        letter if letter.isalnum() or letter in "_-./: " else f"_{ord(letter):x}" for letter in name
    )[:249]
    # MLflow takes names for paths and refuses those that lead elsewhere: `a/`, `../b`, `.`.
    plain = posixpath.normpath(taken)
    return taken if plain == taken and not plain.startswith((".", "/")) else "_" + taken.replace("/", "_")


def environment_tags() -> dict[str, str]:
    """The code's version, Python's, and those of the packages that decide what a model answers."""
    tags = {"genreflow.code_version": code_version(), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            tags[f"version.{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return tags


def requirements() -> str:
    """Every installed distribution with its version, as a requirements file."""
    found = {
        distribution.metadata["Name"]: distribution.version
        for distribution in importlib.metadata.distributions()
    }
    return "".join(f"{name}=={number}\n" for name, number in sorted(found.items()) if name)


def log_dataset(
    client: "MlflowClient",
    run_id: str,
    corpus: CorpusDocument,
    split: SplitDocument,
    contexts: Sequence[Literal["training", "evaluation"]],
) -> None:
    """Name the corpus' splits as the run's inputs: MLflow's dataset lineage."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    columns = [{"type": "binary", "name": "audio", "required": True}, {"type": "string", "name": "genre"}]
    if corpus.synthetic:
        kind = "code"
        source: dict[str, Any] = {"tags": {"mlflow.source.name": corpus.source}}
    else:
        kind, source = "local", {"uri": corpus.source}
    profile = {
        "clips": split.counts,
        "genres": list(corpus.genres),
        "protocol": split.protocol,
        "fold": split.fold,
        "quarantined": corpus.quarantined,
        "duplicate_clusters": corpus.duplicate_clusters,
        "near_duplicate_clusters": corpus.near_duplicate_clusters,
        "fingerprint": corpus.fingerprint,
        "split_fingerprint": split.fingerprint,
        "source_fingerprint": corpus.source_fingerprint,
    }
    # A run takes a dataset only once, whatever the context: each split is a dataset of its own name.
    inputs = [
        DatasetInput(
            Dataset(
                name=dataset_name(corpus, context),
                digest=corpus.fingerprint[:DIGEST_CHARACTERS],
                source_type=kind,
                source=json.dumps(source),
                schema=json.dumps({"mlflow_colspec": columns}),
                profile=json.dumps(profile),
            ),
            [InputTag("mlflow.data.context", context)],
        )
        for context in contexts
    ]
    client.log_inputs(run_id, inputs)


def corpus_name(corpus: CorpusDocument) -> str:
    """What a reader calls the corpus: `synthetic music`, or the last part of where it came from."""
    if corpus.synthetic:
        return "synthetic music"
    return (Path(corpus.source.rstrip("/")).name or corpus.source)[:100]


def dataset_name(corpus: CorpusDocument, context: Literal["training", "evaluation"]) -> str:
    """The name of what was trained on, or of what was tested on."""
    return f"{corpus_name(corpus)}, {'training' if context == 'training' else 'test'} split"


def _joined(client: "MlflowClient", run_id: str) -> "Run":
    try:
        with translate_errors("find the run to join"):
            return client.get_run(run_id)
    except RegistryError as error:
        raise RegistryError(f"MLFLOW_RUN_ID names the run {run_id}, but {error}") from error


def _open(
    client: "MlflowClient",
    experiment: str,
    parameters: Mapping[str, str],
    tags: Mapping[str, str],
    name: str | None,
    step: str,
    call: str,
) -> str:
    mine = attempts.tags(_inputs(name, parameters, tags), step, call)
    with translate_errors("open a run"):
        _check_not_failed(client, experiment, mine)
        found = attempts.opened_by_call(client, experiment, call)
        found = found or attempts.left_open(client, experiment, mine)
        if found is not None:
            return found
        created = client.create_run(experiment, tags={**tags, **mine}, run_name=name).info.run_id
        # a request whose answer was lost did its work all the same, and is sent again by MLflow's client
        return attempts.opened_by_call(client, experiment, call) or str(created)


def _inputs(name: str | None, parameters: Mapping[str, str], tags: Mapping[str, str]) -> str:
    return json.dumps([name, dict(parameters), dict(tags)], sort_keys=True)


def _check_not_failed(client: "MlflowClient", experiment: str, wanted: Mapping[str, str]) -> None:
    failure = attempts.failed_for_good(client, experiment, wanted)
    if failure is not None:
        raise FailedBeforeError(
            f"{failure} An earlier attempt of this step ended so, and this one would, too: it is not made."
        )


def _log_parameters(client: "MlflowClient", run_id: str, flat: Mapping[str, str]) -> None:
    """Log parameters that the run does not have; another process may log the same ones at the same time."""
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for attempt in range(LOG_ATTEMPTS):
        known = client.get_run(run_id).data.params
        params = [Param(key, value) for key, value in flat.items() if key not in known]
        try:
            for start in range(0, len(params), BATCH_ENTRIES):
                client.log_batch(run_id, params=params[start : start + BATCH_ENTRIES])
        except (
            MlflowException,
            SQLAlchemyError,
        ):  # the other process was first: its parameters are there now
            if attempt + 1 == LOG_ATTEMPTS:
                raise
        else:
            return


def _log_tags(client: "MlflowClient", run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(key, value[:PARAMETER_CHARACTERS]) for key, value in tags.items()])
