"""The trials of a search: a file in the state folder, and its copy in an object store where one is named.

A search that was killed goes on from either; from the copy on another machine, or after a pod was evicted.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genreflow.core import home, progress
from genreflow.core.digests import file_digest
from genreflow.families.shallow.search import locked
from genreflow.training.checkpoint_digests import write_digests
from genreflow.training.checkpoint_uri import local_root, mirror_of
from genreflow.training.mirror import SEARCHED, CheckpointMirror

FILE = "trials.journal"
STEP = "fine_tune"

log = logging.getLogger("genreflow")


class Trials:
    """The trials of one search.

    Args:
        folder: of the search; None keeps its trials in memory.
        mirror: what the object store has of them.
    """

    def __init__(self, folder: Path | None, mirror: CheckpointMirror | None) -> None:
        self._folder, self._mirror = folder, mirror
        self.file = None if folder is None else folder / SEARCHED / FILE
        self.notes: list[str] = []
        """Sentences on what went wrong with the object store."""

    def fetch(self) -> None:
        """Bring the trials that the object store has, where they are more than there are here.

        Raises:
            ObjectStoreError: the store does not answer.
        """
        if self._folder is None or self.file is None or self._mirror is None:
            return
        if SEARCHED not in self._mirror.checkpoints:
            return
        fetched = self._folder / "fetched"
        problem = self._mirror.fetch(SEARCHED, fetched)
        if problem is not None:
            self._note(f"{self._mirror.address}: {SEARCHED} {problem}. Skipped: its trials are made again.")
            return
        here = self.file.stat().st_size if self.file.is_file() else 0
        if (fetched / FILE).stat().st_size > here:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            (fetched / FILE).replace(self.file)
        shutil.rmtree(fetched)

    def push(self) -> None:
        """Store the trials so far in the object store, or note why that is not possible."""
        if self._folder is None or self.file is None or self._mirror is None:
            return
        try:
            write_digests(self.file.parent, {FILE: file_digest(self.file)})
        except OSError as error:
            problem: str | None = f"{self.file} cannot be read ({error.strerror})."
        else:
            problem = self._mirror.push(self._folder, SEARCHED)
        if problem is not None:
            self._note(f"A trial is not stored: {problem} The search goes on; the next one stores it, too.")

    def clear(self) -> None:
        """Delete them: the model that they were for is written."""
        if self._folder is None:
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.with_suffix(".lock").unlink(missing_ok=True)
        if self._mirror is not None and (problem := self._mirror.clear()):
            self._note(f"Trials stay in {self._mirror.address}, where they are no longer needed: {problem}")

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            log.warning(sentence)
            progress.report(STEP, sentence)
            self.notes.append(sentence)


@contextmanager
def opened(key: str, uri: str | None) -> Iterator[Trials]:
    """The trials of the search `key`, fetched and locked by this process for the block.

    Args:
        uri: the setting `checkpoint_uri`.

    Raises:
        GenreflowError: the folder cannot be written.
        ObjectStoreError: the object store does not answer.
    """
    folder = local_root(uri, home.searches_folder()) / key
    with locked(folder) as mine:
        if not mine:
            log.warning("Another process searches with the same inputs: this search is kept in memory.")
            yield Trials(None, None)
            return
        trials = Trials(folder, mirror_of(uri, key))
        trials.fetch()
        yield trials
