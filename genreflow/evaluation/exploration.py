"""A corpus before any model is trained on it: counts, levels, typical clips, duplicates, refusals."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genreflow.core.documents import SPLITS
from genreflow.corpus.store import Corpus
from genreflow.features.descriptors import quick_descriptors

CLIPS_PER_GENRE = 12
"""Clips of a genre that descriptors are taken from."""
DESCRIBED_SECONDS = 10.0
"""From the middle of each such clip."""
SHOWN_SECONDS = 30.0
"""Of a typical clip, from its beginning."""
DESCRIPTORS_SHOWN = 6
SEED = 0


@dataclass(frozen=True)
class TypicalClip:
    """A genre's clip of median loudness."""

    clip_id: str
    samples: NDArray[np.float32]
    """(n,) mono, at most `SHOWN_SECONDS`."""
    sample_rate: int
    rms_dbfs: float


@dataclass(frozen=True)
class DuplicateMember:
    """One clip of a duplicate cluster."""

    clip_id: str
    genre: str
    split: str


@dataclass(frozen=True)
class NearDuplicates:
    """Two clips that hold the same recording: other encodings, levels, rates or trims of it."""

    first: DuplicateMember
    second: DuplicateMember
    offset_seconds: float
    """Where the second begins on the first one's time axis."""
    similarity: float
    """Share of equal bits of their fingerprints: 0.5 for unrelated clips, 1 for the same audio."""

    @property
    def straddles(self) -> bool:
        """Whether they lie in two of train, validation and test."""
        return len({self.first.split, self.second.split} & set(SPLITS)) > 1

    @property
    def contradicts(self) -> bool:
        """Whether they carry different genres."""
        return self.first.genre != self.second.genre


@dataclass(frozen=True)
class Exploration:
    """Figures and examples over a whole corpus, whatever the split."""

    genres: tuple[str, ...]
    counts: pd.DataFrame
    """Clips per genre (rows, label order) and split (columns)."""
    artists: dict[str, int]
    """Known artists per genre; empty where none is known."""
    seconds: pd.DataFrame
    """Per genre: shortest, median, longest clip in seconds."""
    sample_rates: dict[int, int]
    """Clips per rate in Hz, most frequent first."""
    channels: dict[int, int]
    formats: dict[str, int]
    loudness: dict[str, NDArray[np.float64]]
    """RMS in dB of full scale of every clip, per genre."""
    typical: dict[str, TypicalClip]
    duplicates: tuple[tuple[DuplicateMember, ...], ...]
    """Clusters of clips with the same audio."""
    near_duplicates: tuple[NearDuplicates, ...]
    """Pairs of clips with the same recording, but not the same audio, most similar first."""
    quarantine: pd.DataFrame
    """source, reason, detail."""
    descriptors: pd.DataFrame
    """A genre column, and the descriptors that separate genres best, over `described` clips."""
    separation: dict[str, float]
    """Share of each shown descriptor's variance that lies between genres, 0 to 1 (eta squared)."""

    @property
    def straddling(self) -> int:
        """Duplicate clusters with clips in more than one of train, validation and test."""
        return sum(len({member.split for member in cluster} & set(SPLITS)) > 1 for cluster in self.duplicates)

    @property
    def contradicting(self) -> int:
        """Duplicate clusters whose clips carry different genres."""
        return sum(len({member.genre for member in cluster}) > 1 for cluster in self.duplicates)


def explore(corpus: Corpus) -> Exploration:
    """Describe a corpus by every clip's manifest row and by the audio of a few clips of every genre."""
    manifest = corpus.manifest
    genres = tuple(genre for genre in corpus.document.genres if (manifest["genre"] == genre).any())
    by_genre = manifest.groupby("genre", sort=False)
    counts = (
        pd.crosstab(manifest["genre"], manifest["split"])
        .reindex(index=list(genres), columns=[*SPLITS, "unused"], fill_value=0)
        .astype(int)
    )
    seconds = by_genre["seconds"].agg(["min", "median", "max"]).reindex(list(genres))
    artists = by_genre["artist"].nunique().astype(int)
    descriptors, separation = _descriptors(corpus, genres)
    return Exploration(
        genres=genres,
        counts=counts,
        artists={genre: int(artists[genre]) for genre in genres} if artists.sum() else {},
        seconds=seconds,
        sample_rates=_tally(manifest["sample_rate"]),
        channels=_tally(manifest["channels"]),
        formats=_tally(manifest["format"]),
        loudness={genre: rows["rms_dbfs"].to_numpy(float) for genre, rows in by_genre if genre in genres},
        typical={genre: _typical(corpus, genre) for genre in genres},
        duplicates=_duplicates(manifest),
        near_duplicates=_near_duplicates(corpus),
        quarantine=corpus.quarantine(),
        descriptors=descriptors,
        separation=separation,
    )


def between_share(values: NDArray[np.float64], groups: NDArray[np.str_]) -> float:
    """Share of the variance of (n,) values that lies between groups, 0 to 1 (eta squared)."""
    total = float(((values - values.mean()) ** 2).sum())
    if total <= 0 or not np.isfinite(total):
        return 0.0
    between = 0.0
    for group in np.unique(groups):
        inside = values[groups == group]
        between += len(inside) * float((inside.mean() - values.mean()) ** 2)
    return between / total


def _tally(column: "pd.Series[Any]") -> dict[Any, int]:
    return {value: int(count) for value, count in column.value_counts().items()}


def _typical(corpus: Corpus, genre: str) -> TypicalClip:
    rows = np.flatnonzero(corpus.manifest["genre"] == genre)
    levels = corpus.manifest["rms_dbfs"].to_numpy(float)[rows]
    row = int(rows[np.argsort(levels, kind="stable")[(len(rows) - 1) // 2]])
    rate = corpus.sample_rate(row)
    return TypicalClip(
        clip_id=str(corpus.manifest["clip_id"].iloc[row]),
        samples=corpus.samples(row)[: round(SHOWN_SECONDS * rate)],
        sample_rate=rate,
        rms_dbfs=float(corpus.manifest["rms_dbfs"].iloc[row]),
    )


def _duplicates(manifest: pd.DataFrame) -> tuple[tuple[DuplicateMember, ...], ...]:
    sizes = manifest.groupby("duplicate_cluster")["clip_id"].transform("size")
    clusters = []
    for _, rows in manifest[sizes > 1].groupby("duplicate_cluster", sort=False):
        listed = rows[["clip_id", "genre", "split"]].itertuples(index=False, name=None)
        clusters.append(tuple(DuplicateMember(*member) for member in listed))
    return tuple(clusters)


def _near_duplicates(corpus: Corpus) -> tuple[NearDuplicates, ...]:
    listed = corpus.manifest[["clip_id", "genre", "split"]].itertuples(index=False, name=None)
    members = {member[0]: DuplicateMember(*member) for member in listed}
    pairs = corpus.near_duplicates().itertuples(index=False, name=None)
    found = [
        NearDuplicates(members[one], members[other], offset, share) for one, other, offset, share in pairs
    ]
    return tuple(sorted(found, key=lambda pair: -pair.similarity))


def _descriptors(corpus: Corpus, genres: tuple[str, ...]) -> tuple[pd.DataFrame, dict[str, float]]:
    rng = np.random.default_rng(SEED)
    found = []
    for genre in genres:
        rows = np.flatnonzero(corpus.manifest["genre"] == genre)
        chosen = rng.choice(rows, size=min(CLIPS_PER_GENRE, len(rows)), replace=False)
        for row in sorted(chosen.tolist()):
            rate = corpus.sample_rate(row)
            samples = corpus.samples(row)
            start = max(0, (len(samples) - round(DESCRIBED_SECONDS * rate)) // 2)
            middle = samples[start : start + round(DESCRIBED_SECONDS * rate)]
            found.append({"genre": genre, **quick_descriptors(middle, rate)})
    table = pd.DataFrame(found)
    # Means over a clip's frames: their variances are too skewed for box plots.
    names = [name for name in table.columns if name.endswith("_mean")]
    groups = table["genre"].to_numpy(str)
    shares = {name: between_share(table[name].to_numpy(float), groups) for name in names}
    best = sorted(names, key=lambda name: -shares[name])[:DESCRIPTORS_SHOWN]
    return table[["genre", *best]], {name: shares[name] for name in best}
