"""Progress events of a step, written where the process that started the pipeline can follow them.

A step runs in a process of its own (a pod, a container, a local subprocess). Where `GENREFLOW_PROGRESS` names
a file, events are appended to it as JSON lines, which the command line renders; they go to the log, too.
"""

import contextlib
import glob
import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

PROGRESS_VARIABLE = "GENREFLOW_PROGRESS"
STEP_VARIABLE = "GENREFLOW_PROGRESS_STEP"
"""The pipeline's step under whose name all events are reported, where it is made of several."""
INNER_EVENTS = ("started", "finished")
"""Of the steps that another is made of: they neither begin nor end it."""
SECONDS_BETWEEN_EVENTS = 0.5
MB = 1_000_000
"""What bytes are reported in."""

log = logging.getLogger("genreflow")
T = TypeVar("T")


def report(step: str, message: str, done: int | None = None, total: int | None = None, **facts: Any) -> None:
    """Report one fact about a step; `done` of `total` where there is something to count."""
    log.info("%s: %s", step, message)
    outer = os.environ.get(STEP_VARIABLE)
    if outer and step != outer:
        if facts.get("event") in INNER_EVENTS:
            message, facts = f"{step.replace('_', ' ')} {message}", {}
        step = outer
    path = os.environ.get(PROGRESS_VARIABLE)
    if path:
        # all processes of a machine share the clock that is never set
        times = {"time": time.time(), "clock": time.monotonic()}
        event = {**times, "step": step, "message": message, "done": done, "total": total, **facts}
        with Path(path).open("a") as file:
            file.write(json.dumps(event) + "\n")


@contextlib.contextmanager
def report_as(step: str) -> Iterator[None]:
    """Attribute to `step` what other steps report in the block and in processes started in it."""
    before = os.environ.get(STEP_VARIABLE)
    os.environ[STEP_VARIABLE] = step
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(STEP_VARIABLE, None)
        else:
            os.environ[STEP_VARIABLE] = before


def track(step: str, items: Iterable[T], total: int, message: str) -> Iterator[T]:
    """Yield `items`, reporting how many are done at most every half second."""
    reporter = Reporter(step, message)
    for done, item in enumerate(items, start=1):
        yield item
        reporter(done, total)


@contextlib.contextmanager
def in_progress(name: str) -> Iterator[None]:
    """Record that `name` is being processed for the block, so that a crash can name it."""
    path = os.environ.get(PROGRESS_VARIABLE)
    if not path:
        yield
        return
    note = Path(f"{path}.in-progress-{threading.get_native_id()}")
    note.write_text(name)
    try:
        yield
    finally:
        note.unlink()


def unfinished(progress_file: Path) -> list[str]:
    """The names left `in_progress` by processes of this progress file that ended without cleaning up."""
    notes = progress_file.parent.glob(f"{glob.escape(progress_file.name)}.in-progress-*")
    return sorted(note.read_text() for note in notes)


class Reporter:
    """Callable with (done, total): reports at most every half second, and at the end."""

    def __init__(self, step: str, message: str, unit: int = 1) -> None:
        self._step, self._message, self._unit, self._last = step, message, unit, 0.0

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_EVENTS or done == total:
            self._last = now
            whole = None if total is None else -(-total // self._unit)
            report(self._step, self._message, done=-(-done // self._unit), total=whole)
