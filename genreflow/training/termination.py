"""SIGTERM, by which a machine that is drained or a pod that is deleted announces that it ends the process."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

EXIT_STATUS = 128 + signal.SIGTERM
"""What shells report of a process that SIGTERM ended."""


@dataclass
class Termination:
    """Whether SIGTERM has arrived."""

    requested: bool = False


@contextmanager
def deferred_termination() -> Iterator[Termination]:
    """Note SIGTERM in a block instead of ending by it: the block ends the process once its work is safe.

    Outside the main thread, where signals cannot be handled, SIGTERM ends the process as ever.
    """
    noted = Termination()

    def note(signum: int, frame: FrameType | None) -> None:
        noted.requested = True

    with _handled(note):
        yield noted


@contextmanager
def raised_termination() -> Iterator[None]:
    """Turn SIGTERM in a block into `SystemExit`, so that its `finally` clauses run."""

    def end(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(EXIT_STATUS)

    with _handled(end):
        yield


@contextmanager
def _handled(handler: "signal._HANDLER") -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
