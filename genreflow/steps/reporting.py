"""How a step reports its beginning, its end and its failure, and retries MLflow."""

import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from genreflow.core import progress
from genreflow.core.errors import ArtifactMissingError, GenreflowError, RegistryUnavailableError, one_line
from genreflow.core.processors import limit_threads
from genreflow.core.seals import seal

T = TypeVar("T")

NO_ROOM = re.compile(rf"(errno|os error) ({errno.ENOSPC}|{errno.EDQUOT}|{errno.EFBIG})\b", re.IGNORECASE)
"""Python's, Arrow's and safetensors' errors for a full disk, a quota and a limit to a file's size."""


MADE_BY = {
    "corpus": ("ingest", "corpus.json"),
    "split": ("split", "split.json"),
    "features": ("extract_features", "features.json"),
    "model": ("fine_tune", "genreflow.json"),
    "packaged": ("package", "packaged.json"),
    "evaluation": ("evaluate", "evaluation.json"),
    "candidate": ("train_candidate", "candidate.json"),
}
"""The artifacts that steps read: the step that makes each, and its document."""


@contextmanager
def report_step(step: str, out: Path | None = None, **inputs: Path | Sequence[Path] | None) -> Iterator[None]:
    """Report the start, the end and a failure of a step; the failure as a sentence, and raised again.

    Args:
        step: its name in the pipeline.
        out: the artifact that it makes; sealed at the end.
        inputs: the artifacts that it reads, one or several, by their names in `MADE_BY`; None where one is
            not given.

    Raises:
        ArtifactMissingError: one of them is empty, or a file in it is missing when it is read.
    """
    limit_threads()
    began = time.monotonic()
    given = [
        (name, folder)
        for name, folders in inputs.items()
        for folder in ([] if folders is None else [folders] if isinstance(folders, Path) else folders)
    ]
    # local runs write artifacts to <task>/<artifact>: which of several tasks of one component it is
    progress.report(step, "started", event="started", task=None if out is None else out.parent.name)
    try:
        for name, folder in given:
            if not folder.is_dir() or not any(folder.iterdir()):
                raise _missing(name, folder, "nothing is there")
            document = folder / MADE_BY[name][1]
            if not document.is_file():
                raise _missing(name, folder, f"{document} is missing")
        try:
            yield
        except Exception as error:
            missing = _missing_file(error)
            for name, folder in given:
                if missing is not None and missing.is_relative_to(folder):
                    raise _missing(name, folder, f"{missing} is missing") from error
            raise
        if out is not None:
            seal(out)
    except (KeyboardInterrupt, SystemExit):
        progress.report(step, "interrupted", event="interrupted")
        raise
    except GenreflowError as error:
        progress.report(step, str(error), event="failed", expected=True)
        raise
    except Exception as error:
        if not NO_ROOM.search(str(error)):
            progress.report(step, f"{type(error).__name__}: {error}", event="failed", expected=False)
            raise
        sentence = f"There is no room left to write into ({one_line(error)}): make room, and run again."
        progress.report(step, sentence, event="failed", expected=True)
        raise GenreflowError(sentence) from error
    except BaseException as error:
        progress.report(step, f"{type(error).__name__}: {error}", event="failed", expected=False)
        raise
    progress.report(step, "finished", event="finished", seconds=round(time.monotonic() - began, 3))


def _missing_file(error: BaseException) -> Path | None:
    """The file whose absence an error, or one that it comes from, is about."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, FileNotFoundError) and cause.filename is not None:
            return Path(os.fsdecode(cause.filename))
        cause = cause.__cause__
    return None


def _missing(name: str, folder: Path, what: str) -> ArtifactMissingError:
    return ArtifactMissingError(
        f"The artifact {name} of the step {MADE_BY[name][0]} is not whole at {folder}: {what}. It was "
        "deleted from where artifacts are kept, though a cache may still name it: run again without the "
        "cache (genreflow submit --no-cache), which makes it anew."
    )


def retry_mlflow(step: str, call: Callable[[], T]) -> T:
    """Call MLflow with retries; the last error says how to go on without training again."""
    from genreflow import registry

    try:
        return registry.retry_while_unavailable(call, lambda sentence: progress.report(step, sentence))
    except RegistryUnavailableError as error:
        raise RegistryUnavailableError(
            f"{error} The trained model, its evaluation and its package are kept: once MLflow answers, "
            "genreflow run with the same arguments takes them from the cache and goes on from here, without "
            "training again."
        ) from error
