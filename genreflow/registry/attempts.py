"""Attempts of one training step: which open MLflow run an earlier one left behind, and which failed for good.

A run stays open (RUNNING) after its process was killed. Three tags identify its owner:

- `genreflow.inputs`: a digest of parameters, tags and name. Only a run of equal inputs is resumed.
- `genreflow.process`: the process that logs to it. On one machine, the system says whether it is alive.
- `genreflow.step`: a digest of where the step's result is written. All attempts of one pipeline step have the
  same place, KFP starts one only after the other has ended, and another pipeline run has another place. It
  decides where processes cannot be compared, because each attempt is a pod of its own.

A KFP step cannot say that it need not be tried again: up to KFP 2.16 each that fails is, from its beginning.
What ends in a permanent error leaves that error behind as the tag `genreflow.failure` of its run, and the
next attempt of the same step with equal inputs ends in it at once.
"""

import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from genreflow.core.digests import text_digest
from genreflow.registry.lock import registry_lock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow import MlflowClient
    from mlflow.entities import Run

INPUTS_TAG = "genreflow.inputs"
STEP_TAG = "genreflow.step"
PROCESS_TAG = "genreflow.process"
CALL_TAG = "genreflow.call"
"""The call that opened a run: a repeated call, or a request sent again by MLflow's client, finds that run."""
ATTEMPT_TAG = "genreflow.attempt"
"""The number of the attempt that logs to a run; only from the second on."""
FAILURE_TAG = "genreflow.failure"
"""The sentence of an error that another attempt with the same inputs would end in again."""
FAILURE_CHARACTERS = 5000
"""Of a tag's value: MLflow's limit."""
DIGEST_CHARACTERS = 32
STATE, STARTED = 0, 19
"""Positions behind the name in Linux's /proc/PID/stat: state, and start time in clock ticks since boot."""
ENDED = ("Z", "X")

log = logging.getLogger("genreflow")


@dataclass(frozen=True)
class Process:
    """A process, distinguishable from a later one with the same id."""

    machine: str
    """Host and process namespace, within which process ids are comparable."""
    pid: int
    started: str
    """Empty where the system does not say."""

    def __str__(self) -> str:
        return f"{self.machine} {self.pid} {self.started}".rstrip()

    @classmethod
    def current(cls) -> Self:
        """This process."""
        namespace = Path("/proc/self/ns/pid")
        where = f"{socket.gethostname()}/{namespace.stat().st_ino if namespace.exists() else 'host'}"
        return cls(where, os.getpid(), _started(os.getpid()) or "")

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """What `str` wrote; None where the text is something else."""
        parts = text.split()
        if len(parts) not in (2, 3) or not parts[1].isdigit():
            return None
        return cls(parts[0], int(parts[1]), parts[2] if len(parts) > 2 else "")

    def alive(self) -> bool:
        """Whether a process of this machine still runs; True where the system does not say."""
        return not self.started or _started(self.pid) == self.started


def tags(inputs: str, step: str, call: str) -> dict[str, str]:
    """The tags of a run that this process opens.

    Args:
        inputs: of the step, as text of any length.
        step: where its result goes; empty where it goes nowhere in particular.
        call: of the caller.
    """
    return identity(inputs, step) | {PROCESS_TAG: str(Process.current()), CALL_TAG: call}


def identity(inputs: str, step: str) -> dict[str, str]:
    """The tags that all attempts of one step with equal inputs share."""
    return {INPUTS_TAG: _digest(inputs)} | ({STEP_TAG: _digest(step)} if step else {})


def failed_for_good(client: "MlflowClient", experiment: str, wanted: "Mapping[str, str]") -> str | None:
    """The permanent error that an earlier attempt of a step with equal inputs ended in; None where none did.

    Args:
        wanted: from `identity` or `tags`.
    """
    if STEP_TAG not in wanted:
        return None
    same = " and ".join(f"tags.`{name}` = '{wanted[name]}'" for name in (INPUTS_TAG, STEP_TAG))
    failures = [run.data.tags.get(FAILURE_TAG) for run in _search(client, experiment, same)]
    return next((failure for failure in failures if failure), None)


def opened_by_call(client: "MlflowClient", experiment: str, call: str) -> str | None:
    """The first run that a call opened, None where it opened none; this process's duplicates are deleted."""
    runs = _search(client, experiment, f"tags.`{CALL_TAG}` = '{call}'")
    me = str(Process.current())
    for duplicate in runs[1:]:
        if duplicate.data.tags.get(PROCESS_TAG) == me:
            client.set_terminated(duplicate.info.run_id, "KILLED", duplicate.info.start_time)
            client.delete_run(duplicate.info.run_id)
    return str(runs[0].info.run_id) if runs else None


def left_open(client: "MlflowClient", experiment: str, wanted: "Mapping[str, str]") -> str | None:
    """A run of equal inputs whose process has ended without closing it; it is tagged as this process's run.

    Args:
        wanted: from `tags`.

    Returns:
        Its id; None where there is none. A run whose process may be alive is not touched.
    """
    unclosed = f"attributes.status = 'RUNNING' and tags.`{INPUTS_TAG}` = '{wanted[INPUTS_TAG]}'"
    if not any(_abandoned(run, wanted) for run in _search(client, experiment, unclosed)):
        return None
    with registry_lock(client):  # two processes may find the same run
        for run in _search(client, experiment, unclosed):
            if _abandoned(run, wanted):
                number = int(run.data.tags.get(ATTEMPT_TAG, "1")) + 1
                client.set_tag(run.info.run_id, PROCESS_TAG, wanted[PROCESS_TAG])
                client.set_tag(run.info.run_id, ATTEMPT_TAG, str(number))
                log.warning("Attempt %d resumes MLflow run %s.", number, run.info.run_id)
                return str(run.info.run_id)
    return None


def _abandoned(run: "Run", wanted: "Mapping[str, str]") -> bool:
    process, me = Process.parse(run.data.tags.get(PROCESS_TAG, "")), Process.current()
    if process is None:
        return False
    if process.machine == me.machine:
        return not process.alive()
    return STEP_TAG in wanted and run.data.tags.get(STEP_TAG) == wanted[STEP_TAG]


def _search(client: "MlflowClient", experiment: str, condition: str) -> list["Run"]:
    """The runs of an experiment that meet a condition, the oldest first."""
    found = client.search_runs([experiment], condition, order_by=["attributes.start_time ASC"])
    return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))


def _started(pid: int) -> str | None:
    """When a process of this machine began, as Linux states it; None where there is none, or it has ended."""
    try:
        behind_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if behind_name[STATE] in ENDED else behind_name[STARTED]


def _digest(text: str) -> str:
    return text_digest([text])[:DIGEST_CHARACTERS]
