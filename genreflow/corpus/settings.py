"""Settings of a corpus."""

import unicodedata
from typing import Literal

from pydantic import Field, field_validator

from genreflow.core.documents import Frozen
from genreflow.core.genres import GENRES, genre_key

Protocol = Literal["auto", "folders", "fault-filtered", "artist", "random", "grouped", "all"]


class SplitSettings(Frozen):
    """How clips are split into train, validation and test."""

    protocol: Protocol = "auto"
    """`auto`: folders where the source has folders train and test, fault-filtered where the clips are GTZAN's
    and enough of them are there, else grouped."""
    fold: int = Field(default=0, ge=0)
    """Which fold is the test split, from 0; used by `artist` (3 folds)."""
    seed: int = Field(default=42, ge=0)
    """Of splits that are made here; published lists have none."""


class IngestSettings(Frozen):
    """How clips are chosen and checked."""

    genres: tuple[str, ...] = GENRES
    """Label order. Folders of other names are reported and ignored."""
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
        composed = tuple(unicodedata.normalize("NFC", genre).strip() for genre in genres)
        if len(composed) < 2 or not all(composed):
            raise ValueError("genres must name at least two different labels")
        names: dict[str, str] = {}
        for genre in composed:
            if (other := names.setdefault(genre_key(genre), genre)) is not genre:
                raise ValueError(f"genres must name different labels, and {other!r} and {genre!r} are one")
        return composed


class CorpusSettings(IngestSettings, SplitSettings):
    """What `--set corpus.…` reaches: how clips are chosen, checked and split."""

    def ingest(self) -> IngestSettings:
        """What ingest depends on."""
        return IngestSettings.model_validate(self.model_dump(include=set(IngestSettings.model_fields)))

    def split(self) -> SplitSettings:
        """What only the split depends on."""
        return SplitSettings.model_validate(self.model_dump(include=set(SplitSettings.model_fields)))
