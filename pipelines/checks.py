"""What can be told within seconds, before a run starts: source, backbone, disk space, tracking server."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from genreflow import home
from genreflow.errors import GenreflowError

if TYPE_CHECKING:
    from pipelines.settings import RunSettings

LEAST_FREE_BYTES = 1 << 30


def before_run(settings: "RunSettings") -> None:
    """Refuse what cannot go well.

    Raises:
        GenreflowError: the source is not there or has too few genres, the backbone is not one, the state
            folder cannot be written or its disk is full, the MLflow store does not answer or is not one, or
            the object store of checkpoints does not answer.
    """
    from genreflow import registry
    from genreflow.corpus.sources import open_source
    from genreflow.families import family

    state_folder()  # first: sources keep in it what they fetch
    registry.check()
    open_source(settings.source, settings.corpus.genres).resolve()
    kind = family(settings.family)
    kind.hearing(kind.settings_type.model_validate(settings.model))
    checkpoint_store(settings.training["checkpoint_uri"])


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
        from genreflow.training.mirror import Mirror

        Mirror(uri, ".check").check()


def existing_files(files: list[Path]) -> None:
    """Nothing where all are files.

    Raises:
        GenreflowError: names the first that is not.
    """
    for file in files:
        if not file.exists():
            raise GenreflowError(f"There is no file {file}.")
        if file.is_dir():
            raise GenreflowError(f"{file} is a folder; name the audio files in it.")
