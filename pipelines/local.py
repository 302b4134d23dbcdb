"""Running pipelines on this machine: kfp.local, followed through the progress file."""

import contextlib
import io
import json
import logging
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from genreflow.core import home
from genreflow.core.documents import CorpusDocument, SplitDocument
from genreflow.core.progress import PROGRESS_VARIABLE
from genreflow.core.seals import verify_seal
from pipelines.docker_runner import all_training, docker_runner
from pipelines.settings import run_settings_variable
from pipelines.step_states import ProgressReader, StepState, steps_summary
from pipelines.steps import STEPS, Step

if TYPE_CHECKING:
    import psutil

    from genreflow.evaluation.document import EvaluationDocument
    from pipelines.settings import RunSettings

SECONDS_TO_STOP = 15.0
ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

log = logging.getLogger("genreflow")


@dataclass(frozen=True)
class Finished:
    """A run of any pipeline that went well: what it trained, or chose, and the gate's decision."""

    steps: tuple[StepState, ...]
    seconds: float
    corpus: CorpusDocument
    split: SplitDocument
    run_id: str
    """The run that trained the model."""
    version: str
    created: bool
    """False where the same model was registered before."""
    aliases: tuple[str, ...]
    decision: dict[str, Any]
    bento: str | None
    """Tag of the bento that was built; None where nothing was promoted."""
    log_file: Path

    @property
    def report(self) -> Path:
        """The page on it."""
        raise NotImplementedError

    def summary(self) -> dict[str, Any]:
        """The JSON object that `--summary` writes."""
        return {
            "run_id": self.run_id,
            "model_version": self.version,
            "aliases": list(self.aliases),
            "decision": self.decision,
            "bento": self.bento,
            "corpus": {
                "fingerprint": self.corpus.fingerprint,
                "protocol": self.split.protocol,
                "counts": self.split.counts,
                "quarantined": self.corpus.quarantined,
            },
            "steps": steps_summary(self.steps),
        }


@dataclass(frozen=True)
class FinishedRun(Finished):
    """A run of the training pipeline that went well."""

    settings: "RunSettings"
    corpus_folder: Path
    split_folder: Path
    evaluation_folder: Path
    evaluation: "EvaluationDocument"

    @property
    def report(self) -> Path:
        return self.evaluation_folder / "report.html"

    def summary(self) -> dict[str, Any]:
        return super().summary() | {
            "metrics": {
                "accuracy": self.evaluation.accuracy,
                "accuracy_ci95": list(self.evaluation.accuracy_ci95),
                "macro_f1": self.evaluation.macro_f1,
                "runtime": self.evaluation.runtime,
                "precision": self.evaluation.precision,
                "per_genre": {
                    genre: scores.model_dump(mode="json")
                    for genre, scores in self.evaluation.per_genre.items()
                },
            }
            if self.evaluation.measured
            else None,
        }


@dataclass(frozen=True)
class Executed:
    """A pipeline that ran to its end."""

    outputs: dict[str, Any]
    steps: tuple[StepState, ...]
    seconds: float
    log_file: Path

    def folder(self, name: str) -> Path:
        """Where an artifact among the outputs lies."""
        return Path(self.outputs[name].path)

    def finished(self) -> dict[str, Any]:
        """The fields of `Finished`."""
        return {
            "steps": self.steps,
            "seconds": self.seconds,
            "corpus": CorpusDocument.read(self.folder("corpus")),
            "split": SplitDocument.read(self.folder("split")),
            "run_id": self.outputs["run_id"],
            "version": self.outputs["version"],
            "created": bool(self.outputs["created"]),
            "aliases": tuple(self.outputs["aliases"]),
            "decision": json.loads(self.outputs["decision"]),
            "bento": next(step.result for step in self.steps if step.name == "build"),
            "log_file": self.log_file,
        }


def run(
    settings: "RunSettings",
    show: Callable[[Sequence[StepState]], None],
    runner: str = "subprocess",
) -> FinishedRun:
    """Run the training pipeline here, every step in a process or container of its own.

    Args:
        settings: complete and checked.
        show: called with all steps, several times a second, from another thread.
        runner: `subprocess` or `docker`.

    Raises:
        StepFailed: with the step's sentence and the log's place.
        KeyboardInterrupt: the person or the system stopped the run; its steps are stopped, too.
    """

    def pipeline(image: str) -> Callable[[], Any]:
        from pipelines.training import training_pipeline

        return training_pipeline(settings, image, local=True)

    done = execute(pipeline, STEPS, [settings], show, runner)
    from genreflow.evaluation.document import EvaluationDocument

    return FinishedRun(
        **done.finished(),
        settings=settings,
        corpus_folder=done.folder("corpus"),
        split_folder=done.folder("split"),
        evaluation_folder=done.folder("evaluation"),
        evaluation=EvaluationDocument.read(done.folder("evaluation")),
    )


def execute(
    pipeline: Callable[[str], Callable[[], Any]],
    table: tuple[Step, ...],
    settings: "Sequence[RunSettings]",
    show: Callable[[Sequence[StepState]], None],
    runner: str = "subprocess",
    read: Sequence[str] = (),
) -> Executed:
    """Run a pipeline here, every step in a process or container of its own.

    Args:
        pipeline: from the image's name to the pipeline; imported and built in the run's own environment.
        table: its steps.
        settings: of all that it trains.
        show: called with all steps, several times a second, from another thread.
        runner: `subprocess` or `docker`.
        read: files and folders that steps read, besides those that the settings name.

    Raises:
        StepFailed: with the step's sentence and the log's place.
        KeyboardInterrupt: the person or the system stopped the run; its steps are stopped, too.
    """
    stamp = f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    logs = home.home() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log_file, progress_file = logs / f"{stamp}.log", logs / f"{stamp}.progress.jsonl"
    began = time.monotonic()
    with (
        log_file.open("w", buffering=1) as log_stream,
        _quiet(Colourless(log_stream)),
        _variables(
            {
                PROGRESS_VARIABLE: str(progress_file),
                "GENREFLOW_HOME": str(home.home()),
                # OpenMP's threads spin while they wait; beside one busy program, training a small model
                # then takes forty times as long (measured)
                "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
                **run_settings_variable(all_training(settings)),
            }
        ),
        _stopping_its_steps(progress_file),
        ProgressReader(progress_file, show, table) as follower,
    ):
        from components.image import IMAGE, subprocess_image

        _initialise(settings, runner, progress_file, read)
        image = subprocess_image() if runner == "subprocess" else IMAGE
        try:
            outputs = pipeline(image)().outputs
        except RuntimeError as error:
            raise follower.failure(log_file) from error
        follower.finish()
    return Executed(outputs, tuple(follower.steps), time.monotonic() - began, log_file)


def drop_stale_cache_entries(cache: Path) -> int:
    """Drop cache entries of steps whose artifacts were deleted or altered since; how many were dropped."""
    dropped = 0
    for entry in sorted(cache.glob("*.json")):
        try:
            outputs = json.loads(entry.read_text())
            values = [value for value in outputs.values() if isinstance(value, dict) and "uri" in value]
            stale = next(filter(None, (_staleness(Path(value["uri"])) for value in values)), None)
        except (OSError, ValueError, AttributeError) as error:
            stale = f"{entry} cannot be read ({type(error).__name__})"
        if stale:
            log.info("A cached step is dropped: %s", stale)
            entry.unlink(missing_ok=True)
            dropped += 1
    return dropped


def _staleness(artifact: Path) -> str | None:
    """Why an artifact cannot be taken from the cache. What steps make is sealed; single files are copies."""
    if artifact.is_dir():
        return verify_seal(artifact)
    return None if artifact.is_file() else f"{artifact} is gone"


def _initialise(
    settings: "Sequence[RunSettings]", runner: str, progress_file: Path, read: Sequence[str]
) -> None:
    from kfp import local

    drop_stale_cache_entries(home.cache_folder())
    chosen = (
        local.SubprocessRunner(use_venv=False)
        if runner == "subprocess"
        else docker_runner(settings, progress_file, read)
    )
    local.init(
        chosen,
        pipeline_root=str(home.pipeline_root()),
        enable_caching=True,
        cache_root=str(home.cache_folder()),
    )


class Colourless(io.TextIOBase):
    """A text stream that removes terminal colours before writing to a file."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        self._file.write(ANSI_COLOUR.sub("", text))
        return len(text)

    def flush(self) -> None:
        self._file.flush()


@contextlib.contextmanager
def _quiet(stream: Any) -> Iterator[None]:
    """What kfp prints and logs in this process goes to the run's log."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(stream), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@contextlib.contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _stopping_its_steps(progress_file: Path) -> Iterator[None]:
    """Ctrl-C and a termination signal stop the running step, which closes its MLflow run, first."""
    in_main_thread = threading.current_thread() is threading.main_thread()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt) if in_main_thread else None
    try:
        yield
    except KeyboardInterrupt:
        _stop_processes(progress_file)
        raise
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)


def _stop_processes(progress_file: Path) -> None:
    """Terminate the run's processes, and kill those that do not end."""
    import psutil

    terminated = _processes(progress_file)
    for process in terminated:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGINT)
    psutil.wait_procs(terminated, timeout=SECONDS_TO_STOP)
    # a step that was just starting its workers may have left them behind
    while left := _processes(progress_file):
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=1)


def _processes(progress_file: Path) -> "list[psutil.Process]":
    """All processes of this run, orphans too: they carry its progress file in their environment."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get(PROGRESS_VARIABLE) == str(progress_file)
            if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
