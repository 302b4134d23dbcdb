"""Checks of a few seconds before a run starts: source, backbone, disk space, tracking server."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from genreflow.core import home
from genreflow.core.errors import GenreflowError, one_line

if TYPE_CHECKING:
    from pipelines.comparison_settings import ComparisonSettings
    from pipelines.settings import RunSettings

LEAST_FREE_BYTES = 1 << 30
STANDARD_INPUT = Path("-")


def before_run(settings: "RunSettings") -> None:
    """Refuse what cannot go well.

    Raises:
        GenreflowError: the source is not there or has too few genres, the backbone is not one, the state
            folder cannot be written or its disk is full, the MLflow store does not answer or is not one, or
            the object store of checkpoints does not answer.
    """
    from genreflow import registry
    from genreflow.corpus.sources import open_source

    state_folder()  # first: sources keep in it what they fetch
    registry.check()
    open_source(settings.source, settings.corpus.genres).resolve()
    trainable(settings)
    checkpoint_store(settings.training.get("checkpoint_uri"))


def before_comparison(
    settings: "ComparisonSettings", skip: bool = False
) -> tuple["ComparisonSettings", list[str]]:
    """Refuse what cannot go well, before any candidate is trained.

    Args:
        skip: leave out the candidates that cannot be trained here, where others can.

    Returns:
        The comparison of the candidates that can be trained, and a sentence for each of the others.

    Raises:
        GenreflowError: as `before_run`; a candidate cannot be trained, and is not to be left out.
    """
    from genreflow import registry
    from genreflow.corpus.sources import open_source
    from pipelines.comparison_settings import with_candidates

    state_folder()
    registry.check()
    open_source(settings.run.source, settings.run.corpus.genres).resolve()
    if settings.also_test is not None:
        from genreflow.comparison.generalisation import common_genres

        common_genres(settings.also_test, settings.run.corpus.genres)
    missing: dict[str, str] = {}
    for candidate in settings.candidates:
        try:
            trainable(candidate.run)
        except GenreflowError as error:
            missing[candidate.name] = str(error)
        except ImportError as error:
            missing[candidate.name] = f"{one_line(error)}: install what it needs."
    left = [candidate.name for candidate in settings.candidates if candidate.name not in missing]
    sentences = [f"{name}: {why}" for name, why in missing.items()]
    if missing and not (skip and left):
        advice = " --skip-unavailable compares the others." if left else ""
        raise GenreflowError(f"Not every family can be trained here. {' '.join(sentences)}{advice}")
    for run in settings.runs:
        checkpoint_store(run.training.get("checkpoint_uri"))
    return with_candidates(settings, left), sentences


def trainable(settings: "RunSettings") -> None:
    """Nothing where a family's backbone can be had here, and its settings fit it.

    Raises:
        GenreflowError: it cannot, or they do not.
    """
    from genreflow.families import family

    kind = family(settings.family)
    model = kind.settings_type.model_validate(settings.model)
    kind.prepare(model)
    kind.representation(model)


def state_folder() -> int:
    """Free bytes where the state folder lies.

    Raises:
        GenreflowError: it cannot be written, or under a gigabyte is free.
    """
    folder = home.home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise GenreflowError(
            f"The state folder {folder} cannot be written ({error.strerror}); set GENREFLOW_HOME to another."
        ) from error
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise GenreflowError(
            f"Only {free / 1e9:.1f} GB are free where {folder} lies, and a run needs at least 1; "
            "free some, or set GENREFLOW_HOME to another disk."
        )
    return free


def checkpoint_store(uri: str | None) -> None:
    """Nothing where checkpoints go to a folder, or to a bucket that can be written to.

    Raises:
        ObjectStoreError: it cannot.
    """
    if uri is not None and uri.startswith("s3://"):
        from genreflow.training.mirror import CheckpointMirror

        CheckpointMirror(uri, ".check").check()


def audio_files(named: list[Path]) -> tuple[list[Path], list[str]]:
    """What is named on the command line: files (`-` is standard input), and a sentence for every folder.

    Raises:
        GenreflowError: one of them is not there, none is a file, or standard input is named more than once.
    """
    if named.count(STANDARD_INPUT) > 1:
        raise GenreflowError("Standard input can be read once; name - once.")
    files, folders = [], []
    for path in named:
        if path == STANDARD_INPUT or path.is_file():
            files.append(path)
        elif path.is_dir():
            folders.append(f"{path} is a folder; name the audio files in it.")
        else:
            raise GenreflowError(f"There is no file {path}.")
    if not files:
        raise GenreflowError(" ".join(folders))
    return files, folders


@contextmanager
def readable(file: Path) -> Iterator[Path]:
    """The file itself; of standard input a copy, which is deleted at the end of the block.

    Raises:
        GenreflowError: standard input cannot be read or copied; an error raised in the block names it instead
            of the copy.
    """
    if file != STANDARD_INPUT:
        yield file
        return
    if sys.stdin is None or sys.stdin.closed:
        raise GenreflowError("Standard input is closed; name a file instead of -.")
    with tempfile.TemporaryDirectory(prefix="genreflow-") as folder:
        copy = Path(folder) / "input"
        try:
            with copy.open("wb") as arrived:
                shutil.copyfileobj(sys.stdin.buffer, arrived)
        except OSError as error:
            raise GenreflowError(
                f"Standard input could not be copied to {folder} ({error.strerror}): make room there, or "
                "name another folder by TMPDIR."
            ) from error
        try:
            yield copy
        except GenreflowError as error:
            raise GenreflowError(str(error).replace(str(copy), "Standard input")) from error
