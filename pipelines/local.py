"""Running the training pipeline on this machine: kfp.local, followed through the progress file."""

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
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from genreflow import home
from genreflow.artifacts import CorpusDocument, broken_seal
from genreflow.errors import GenreflowError, SettingsError
from genreflow.progress import PROGRESS_VARIABLE, left_in_hand

if TYPE_CHECKING:
    import psutil

    from genreflow.evaluation.document import EvaluationDocument
    from pipelines.settings import RunSettings

STEPS = (
    "resolve",
    "ingest",
    "extract_features",
    "fine_tune",
    "evaluate",
    "package",
    "register",
    "promote",
    "build",
)
INDEPENDENT = {"package": ("evaluate",)}
"""Steps that may begin before an earlier one in the list: nothing is known of that one then."""
CONDITIONAL = ("build",)
"""Steps that are never cached and run only where they are needed."""
HANDED_ON = ("AWS_", "HF_", "MLFLOW_", "GENREFLOW_", "OMP_")
"""Beginnings of the variables that containers of `--runner docker` get from this shell."""
PROXY_VARIABLES = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_TO_STOP = 15.0
ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

log = logging.getLogger("genreflow")
Status = Literal["waiting", "running", "done", "cached", "skipped", "failed"]


class StepFailed(GenreflowError):
    """A step of a local run failed; the sentence is the step's own."""

    def __init__(self, step: str, sentence: str, log_file: Path) -> None:
        super().__init__(sentence)
        self.step = step
        self.log_file = log_file


@dataclass
class StepState:
    """What is known of one step of a run."""

    name: str
    status: Status = "waiting"
    message: str = ""
    done: int | None = None
    total: int | None = None
    seconds: float = 0.0
    """From the end of the step before; 0 where cached."""
    expected: bool = False
    """Whether a failure was told as a sentence by genreflow itself."""
    result: str | None = None
    """What the step told of its outcome: KFP hands nothing out of a step that may be skipped."""


@dataclass(frozen=True)
class FinishedRun:
    """A pipeline run that went well."""

    settings: "RunSettings"
    steps: tuple[StepState, ...]
    seconds: float
    corpus_folder: Path
    evaluation_folder: Path
    corpus: CorpusDocument
    evaluation: "EvaluationDocument"
    run_id: str
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
        return self.evaluation_folder / "report.html"

    def summary(self) -> dict[str, Any]:
        """The JSON object that `--summary` writes."""
        return {
            "run_id": self.run_id,
            "model_version": self.version,
            "aliases": list(self.aliases),
            "decision": self.decision,
            "bento": self.bento,
            "metrics": {
                "accuracy": self.evaluation.accuracy,
                "accuracy_ci95": list(self.evaluation.accuracy_ci95),
                "macro_f1": self.evaluation.macro_f1,
                "per_genre": {
                    genre: scores.model_dump(mode="json")
                    for genre, scores in self.evaluation.per_genre.items()
                },
            }
            if self.evaluation.measured
            else None,
            "corpus": {
                "fingerprint": self.corpus.fingerprint,
                "protocol": self.corpus.protocol,
                "counts": self.corpus.counts,
                "quarantined": self.corpus.quarantined,
            },
            "steps": [
                {
                    "name": step.name,
                    "seconds": round(step.seconds, 2),
                    "cached": step.status == "cached",
                    "skipped": step.status == "skipped",
                }
                for step in self.steps
            ],
        }


@dataclass
class Follower:
    """Follows a run through its progress file. A step not heard of before a later one is cached."""

    path: Path
    show: Callable[[Sequence[StepState]], None]
    steps: list[StepState] = field(default_factory=lambda: [StepState(name) for name in STEPS])

    def __post_init__(self) -> None:
        self._offset = 0
        self._looking = threading.Lock()  # its own thread and the pipeline's end both look
        self._last_end = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.look()

    def finish(self) -> None:
        """The pipeline went well: what was not heard of came from the cache, or was not needed."""
        self.look()
        for step in self.steps:
            if step.status == "waiting":
                step.status = "skipped" if step.name in CONDITIONAL else "cached"
        self.show(self.steps)

    def look(self) -> None:
        """Read what was written since the last look."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        if self.path.is_file():
            with self.path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    self._take(json.loads(line))
        self.show(self.steps)

    def _follow(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_LOOKS):
            self.look()

    def _take(self, event: dict[str, Any]) -> None:
        found = [index for index, step in enumerate(self.steps) if step.name == event["step"]]
        if not found:
            return
        step, kind = self.steps[found[0]], event.get("event")
        if kind == "started":
            for earlier in self.steps[: found[0]]:
                if earlier.status == "waiting" and earlier.name not in INDEPENDENT.get(step.name, ()):
                    earlier.status = "cached"
            step.status, step.message, step.done, step.total = "running", "", None, None
        elif kind == "finished":
            step.status, step.seconds = "done", event["clock"] - self._last_end
            self._last_end = event["clock"]
        elif kind in ("failed", "interrupted"):
            step.status, step.message = "failed", event["message"]
            step.expected = bool(event.get("expected"))
        else:
            step.message, step.done, step.total = event["message"], event.get("done"), event.get("total")
            step.result = event.get("result", step.result)

    def failure(self, log_file: Path) -> StepFailed:
        """The failed step's own sentence, or what can be said of one that ended without a word."""
        self.look()
        for step in self.steps:
            if step.status == "failed":
                sentence = step.message
                if not step.expected:
                    sentence = f"Step {step.name} failed unexpectedly ({_one_line(sentence)})."
                return StepFailed(step.name, sentence, log_file)
        running = [step for step in self.steps if step.status == "running"]
        if running:
            step = running[0]
            step.status = "failed"
            after = f" after {step.done} of {step.total} {step.message}" if step.total else ""
            if hand := left_in_hand(self.path):
                after += f", with {', '.join(hand)} in hand"
            sentence = (
                f"Step {step.name} ended without a word{after}: killed, perhaps for lack of memory, or by a "
                "library that crashed on what it was given."
            )
            return StepFailed(step.name, sentence, log_file)
        waiting = [step.name for step in self.steps if step.status == "waiting"]
        name = waiting[0] if waiting else STEPS[-1]
        return StepFailed(name, f"Step {name} did not start.", log_file)


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
            }
        ),
        _stopping_its_steps(progress_file),
        Follower(progress_file, show) as follower,
    ):
        from components.image import IMAGE, subprocess_image
        from pipelines.training import training_pipeline

        _initialise(settings, runner, progress_file)
        image = subprocess_image() if runner == "subprocess" else IMAGE
        pipeline = training_pipeline(settings, image, local=True)
        try:
            outputs = pipeline().outputs
        except RuntimeError as error:
            raise follower.failure(log_file) from error
        follower.finish()
    from genreflow.evaluation.document import EvaluationDocument

    corpus_folder, evaluation_folder = Path(outputs["corpus"].path), Path(outputs["evaluation"].path)
    return FinishedRun(
        settings=settings,
        steps=tuple(follower.steps),
        seconds=time.monotonic() - began,
        corpus_folder=corpus_folder,
        evaluation_folder=evaluation_folder,
        corpus=CorpusDocument.read(corpus_folder),
        evaluation=EvaluationDocument.read(evaluation_folder),
        run_id=outputs["run_id"],
        version=outputs["version"],
        created=bool(outputs["created"]),
        aliases=tuple(outputs["aliases"]),
        decision=json.loads(outputs["decision"]),
        bento=next(step.result for step in follower.steps if step.name == "build"),
        log_file=log_file,
    )


def drop_stale_cache_entries(cache: Path) -> int:
    """Forget cached steps whose artifacts were deleted or altered since; how many were forgotten."""
    dropped = 0
    for entry in sorted(cache.glob("*.json")):
        try:
            outputs = json.loads(entry.read_text())
            values = [value for value in outputs.values() if isinstance(value, dict) and "uri" in value]
            stale = next(filter(None, (_staleness(Path(value["uri"])) for value in values)), None)
        except (OSError, ValueError, AttributeError) as error:
            stale = f"{entry} cannot be read ({type(error).__name__})"
        if stale:
            log.info("A cached step is forgotten: %s", stale)
            entry.unlink(missing_ok=True)
            dropped += 1
    return dropped


def _staleness(artifact: Path) -> str | None:
    """Why an artifact cannot be taken from the cache. What steps make is sealed; single files are copies."""
    if artifact.is_dir():
        return broken_seal(artifact)
    return None if artifact.is_file() else f"{artifact} is gone"


def _initialise(settings: "RunSettings", runner: str, progress_file: Path) -> None:
    from kfp import local

    drop_stale_cache_entries(home.cache_folder())
    chosen = (
        local.SubprocessRunner(use_venv=False)
        if runner == "subprocess"
        else _docker_runner(settings, progress_file)
    )
    local.init(
        chosen,
        pipeline_root=str(home.pipeline_root()),
        enable_caching=True,
        cache_root=str(home.cache_folder()),
    )


def _docker_runner(settings: "RunSettings", progress_file: Path) -> Any:
    """Containers that see the folders of state, BentoML, source and backbone under their own paths, and the
    variables of this shell that say where stores, hubs and servers are."""
    from components.image import IMAGE

    try:
        import docker

        client = docker.from_env()
        client.ping()
    except Exception as error:
        raise SettingsError(
            "--runner docker needs a Docker engine, and none answers here; take --runner subprocess."
        ) from error
    if not client.images.list(name=IMAGE):
        raise SettingsError(
            f"There is no image {IMAGE} here: build it with docker build -t {IMAGE} "
            "-f infra/images/pipeline.Dockerfile ."
        )
    from kfp import local

    variables = _handed_on() | {
        PROGRESS_VARIABLE: str(progress_file),
        "GENREFLOW_HOME": str(home.home()),
        "BENTOML_HOME": str(home.bentoml_home()),
        "MLFLOW_TRACKING_URI": home.tracking_uri(),
    }
    mounts = [
        docker.types.Mount(target=name, source=name, type="bind", read_only=read_only)
        for name, read_only in sorted(_mounted(settings, variables).items())
    ]
    return local.DockerRunner(environment=variables, mounts=mounts)


def _handed_on() -> dict[str, str]:
    """What this shell says of stores, hubs, servers and proxies: a container inherits none of it."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(HANDED_ON) or name.upper() in PROXY_VARIABLES
    }


def _mounted(settings: "RunSettings", variables: dict[str, str]) -> dict[str, bool]:
    """Paths that containers see under their own names, and whether they may only read them."""
    from genreflow.corpus.sources.table import is_table

    # a table names files beside it
    source = str(Path(settings.source).parent) if is_table(settings.source) else settings.source
    named = [source, settings.backbone or "", *_handed_on().values()]
    mounted = {name: True for name in named if Path(name).is_absolute() and Path(name).exists()}
    written = [variables.get(name) for name in ("GENREFLOW_HOME", "BENTOML_HOME", "HF_HOME")]
    written.append(settings.training.get("checkpoint_uri"))
    for name in written:
        if name and Path(name).is_absolute():
            Path(name).mkdir(parents=True, exist_ok=True)
            mounted[name] = False
    return mounted


class Colourless(io.TextIOBase):
    """A text stream that drops terminal colours on their way to a file."""

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
    """Ask the run's processes to end, and end those that do not."""
    import psutil

    asked = _processes(progress_file)
    for process in asked:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGINT)
    psutil.wait_procs(asked, timeout=SECONDS_TO_STOP)
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


def _one_line(text: str, longest: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[:longest]}…"
