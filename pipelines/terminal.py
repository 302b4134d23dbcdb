"""Output of commands: results to stdout, all else to stderr; exit status on interruption."""

import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

INTERRUPTED = 130


def write_result(text: str) -> None:
    """Write a result to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write_note(text: str) -> None:
    """Write a remark to stderr."""
    sys.stderr.write(text + "\n")


def write_error(sentence: str) -> None:
    """Write an error to stderr."""
    sys.stderr.write(f"genreflow: {sentence}\n")


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """A run on this machine that is interrupted ends with a sentence and Ctrl-C's exit status."""
    try:
        yield
    except KeyboardInterrupt:
        write_error("interrupted; the same command again goes on from the steps that were done.")
        raise typer.Exit(INTERRUPTED) from None


def write_summary(path: Path | None, summary: dict[str, Any]) -> None:
    """What `--summary` names, where it names a file."""
    if path is not None:
        path.write_text(json.dumps(summary, indent=2) + "\n")


@contextlib.contextmanager
def waited_for() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the waiting for a run, with Ctrl-C's exit status."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, interrupt) if in_main_thread else None
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)
