"""The steps of a run on this machine, followed through its progress file."""

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genreflow.core.errors import GenreflowError, one_line
from genreflow.core.progress import unfinished
from pipelines.steps import STEPS, Step

POLL_SECONDS = 0.2

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
    """Whether a failure was reported as a sentence by genreflow itself."""
    result: str | None = None
    """What the step reported of its outcome: KFP hands nothing out of a step that may be skipped."""
    title: str = ""
    """As it is shown; the component's where empty."""


def steps_summary(steps: Sequence[StepState]) -> list[dict[str, Any]]:
    """What `--summary` writes of the steps."""
    return [
        {
            "name": step.name,
            "seconds": round(step.seconds, 2),
            "cached": step.status == "cached",
            "skipped": step.status == "skipped",
        }
        for step in steps
    ]


@dataclass
class ProgressReader:
    """Follows a run through its progress file; a step is cached where only later ones report anything."""

    path: Path
    show: Callable[[Sequence[StepState]], None]
    table: tuple[Step, ...] = STEPS

    def __post_init__(self) -> None:
        self.steps = [StepState(each.name, title=each.title) for each in self.table]
        self._offset = 0
        self._reading = threading.Lock()  # its own thread and the pipeline's end both read
        self._last_end = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def __enter__(self) -> "ProgressReader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.read_events()

    def finish(self) -> None:
        """The pipeline went well: what reported nothing came from the cache, or was not needed."""
        self.read_events()
        for step, entry in zip(self.steps, self.table, strict=True):
            if step.status == "waiting":
                step.status = "skipped" if entry.conditional else "cached"
        self.show(self.steps)

    def read_events(self) -> None:
        """Read what was written since the last call."""
        with self._reading:
            self._read_events()

    def _read_events(self) -> None:
        if self.path.is_file():
            with self.path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    self._apply(json.loads(line))
        self.show(self.steps)

    def _follow(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            self.read_events()

    def _apply(self, event: dict[str, Any]) -> None:
        found = self._step_index(event)
        if found is None:
            return
        step, kind = self.steps[found], event.get("event")
        if kind == "started":
            for earlier in self.steps[:found]:
                if earlier.status == "waiting" and earlier.name not in self.table[found].independent_of:
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

    def _step_index(self, event: dict[str, Any]) -> int | None:
        """Which step an event is of; of several of one component the task that begins, or the running one."""
        of_component = [at for at, entry in enumerate(self.table) if entry.component == event["step"]]
        if len(of_component) > 1:
            task = event.get("task")
            if task:
                of_component = [at for at in of_component if self.table[at].task_name == task]
            else:
                of_component = [at for at in of_component if self.steps[at].status == "running"]
        return of_component[0] if of_component else None

    def failure(self, log_file: Path) -> StepFailed:
        """The failed step's own sentence, or a sentence on one that ended without an error message."""
        self.read_events()
        for step in self.steps:
            if step.status == "failed":
                sentence = step.message
                if not step.expected:
                    sentence = f"Step {step.name} failed unexpectedly ({one_line(sentence)})."
                return StepFailed(step.name, sentence, log_file)
        running = [step for step in self.steps if step.status == "running"]
        if running:
            step = running[0]
            step.status = "failed"
            after = f" after {step.done} of {step.total} {step.message}" if step.total else ""
            if names := unfinished(self.path):
                after += f", while processing {', '.join(names)}"
            sentence = (
                f"Step {step.name} ended without an error message{after}: it was killed, perhaps "
                "for lack of memory, or a library crashed on its input."
            )
            return StepFailed(step.name, sentence, log_file)
        waiting = [step.name for step in self.steps if step.status == "waiting"]
        name = waiting[0] if waiting else self.table[-1].name
        return StepFailed(name, f"Step {name} did not start.", log_file)
