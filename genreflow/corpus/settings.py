"""What a person may set about a corpus."""

from typing import Literal

from pydantic import Field, field_validator

from genreflow.artifacts import Frozen
from genreflow.genres import GENRES

Protocol = Literal["auto", "fault-filtered", "artist", "random", "grouped", "all"]


class CorpusSettings(Frozen):
    """How clips are chosen, checked and split."""

    protocol: Protocol = "auto"
    """`auto`: fault-filtered where the clips are GTZAN's and enough of them are there, else grouped."""
    fold: int = Field(default=0, ge=0)
    """Which fold is the test split, from 0; used by `artist` (3 folds)."""
    seed: int = Field(default=42, ge=0)
    """Of splits that are made here; published lists have none."""
    genres: tuple[str, ...] = GENRES
    """Label order. Folders of other names are reported and left alone."""
    min_seconds: float = Field(default=1.0, gt=0)
    """Shorter clips are quarantined."""
    max_seconds: float = Field(default=1800.0, gt=0)
    """Longer clips are quarantined."""
    near_duplicates: bool = True
    """Whether other encodings and trims of a recording are looked for and kept on one side of the split."""
    silence_dbfs: float = Field(default=-60.0, lt=0)
    """A clip whose level stays under this in dB of full scale (root mean square) is silence."""

    @field_validator("genres")
    @classmethod
    def _distinct(cls, genres: tuple[str, ...]) -> tuple[str, ...]:
        if len(genres) < 2 or len(set(genres)) != len(genres) or not all(genres):
            raise ValueError("genres must name at least two different labels")
        return genres
