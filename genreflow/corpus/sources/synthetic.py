"""The built-in source: procedural music, made once a set of parameters and kept as audio."""

import difflib
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

from genreflow.core import home
from genreflow.core.digests import file_digest, text_digest
from genreflow.core.errors import CorpusError, SettingsError
from genreflow.core.genres import GENRES, genre_named
from genreflow.corpus.sources.base import SourceItem, listed
from genreflow.corpus.sources.folder import FolderSource

SYNTHETIC_DEFAULTS: dict[str, float] = {"clips": 20, "seconds": 8, "seed": 0}


def synthetic_source(spec: str, genres: tuple[str, ...]) -> "SyntheticSource":
    """`synthetic?clips=20&seconds=8&seed=0`: clips a genre, their length, the seed."""
    parameters = dict(SYNTHETIC_DEFAULTS)
    for key, value in parse_qsl(spec.partition("?")[2], keep_blank_values=True):
        if key not in parameters:
            nearest = difflib.get_close_matches(key, parameters, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(parameters)}."
            raise SettingsError(f"The synthetic source has no parameter {key!r}; {hint}")
        try:
            parameters[key] = float(value) if key == "seconds" else int(value)
        except ValueError:
            raise SettingsError(f"The synthetic source's {key} must be a number, not {value!r}.") from None
    if parameters["clips"] < 2 or not 1 <= parameters["seconds"] <= 600 or parameters["seed"] < 0:
        raise SettingsError(
            "The synthetic source needs 2 clips or more a genre, 1 to 600 seconds and a seed of 0 or more."
        )
    if strangers := [genre for genre in genres if genre_named(genre, GENRES) is None]:
        raise CorpusError(
            f"The synthetic source has no {listed(strangers)}; it has {', '.join(GENRES)}. "
            "Omit corpus.genres, or name a folder with --source."
        )
    return SyntheticSource(
        int(parameters["clips"]), float(parameters["seconds"]), int(parameters["seed"]), genres
    )


class SyntheticSource:
    """Procedural music, made once a set of parameters and kept as playable audio files."""

    synthetic = True

    def __init__(self, clips: int, seconds: float, seed: int, genres: tuple[str, ...]) -> None:
        self._clips, self._seconds, self._seed, self._genres = clips, seconds, seed, genres

    def resolve(self) -> str:
        """sha256 over the parameters and the generator's code; nothing is synthesised."""
        return text_digest([f"{self._clips} {self._seconds} {self._seed}", generator_digest()])

    def folder(self) -> Path:
        """Where the clips lie; synthesised there if they do not yet."""
        folder = home.corpora_folder() / f"synthetic-{self.resolve()[:12]}"
        if not folder.is_dir():
            from genreflow.corpus.synthetic import synthesise

            folder.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}-partial-", dir=folder.parent))
            try:
                synthesise(partial, self._clips, self._seconds, self._seed)
                partial.chmod(0o755)
                _rename(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return folder

    def fetch(self) -> None:
        """Synthesise what is missing."""
        self.folder()

    def items(self) -> Iterator[SourceItem]:
        items = list(FolderSource(self.folder(), self._genres).items())
        if len(items) != self._clips * len(self._genres):
            raise CorpusError(f"{self.folder()} is no longer complete. Delete it; it will be made again.")
        return iter(items)

    def notes(self) -> list[str]:
        return [
            "The clips are procedural music: figures say that the pipeline learns, nothing about real music."
        ]


def generator_digest() -> str:
    """sha256 over the code of the synthetic generator: a changed generator makes another corpus."""
    spec = importlib.util.find_spec("genreflow.corpus.synthetic")
    if spec is None or spec.origin is None:
        raise CorpusError("This installation has no synthetic generator; name a folder with --source.")
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    return text_digest(f"{path.name} {file_digest(path)}" for path in files)


def _rename(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process was quicker: the content is the same
            raise
