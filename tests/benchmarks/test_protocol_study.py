"""How much of a figure is the split: `linear` on musicnn, one recipe, scored under several protocols.

The clips are the same under each made here: those of genres with three artists or more, as of other genres no
artist can be kept apart. `GENREFLOW_STUDY_SOURCE` names another corpus than gtzan-mini.
"""

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from corpora import ingest_and_split
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from genreflow.backbones.musicnn import weights
from genreflow.core.errors import CorpusError, GenreflowError
from genreflow.corpus.protocols import artist_keys, assign, joined
from genreflow.corpus.settings import CorpusSettings
from genreflow.corpus.store import Corpus
from genreflow.evaluation.uncertainty import wilson
from genreflow.extraction import Features, extract
from genreflow.families import family
from tests.conftest import need

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

SOURCE_VARIABLE = "GENREFLOW_STUDY_SOURCE"
FOLDS = 5
SEEDS = (0, 1, 2)
LEAST_ARTISTS = 3
C = 0.1
"""Of `linear` on musicnn by default."""

Division = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows of windows: to train, to test."""


@dataclass(frozen=True)
class Windows:
    """Embeddings of windows of 3 s, and of each its clip's facts."""

    embeddings: NDArray[np.float32]
    """(windows, features)"""
    table: pd.DataFrame
    """A row a window: `clip_id`, `genre`, `artist_group` (artist or recording)."""
    manifest: pd.DataFrame
    genres: tuple[str, ...]


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Windows:
    root, linear = tmp_path_factory.mktemp("study"), family("linear")
    try:
        weights.load()
    except GenreflowError as error:
        need(False, f"musicnn's weights ({error})")
    source = os.environ.get(SOURCE_VARIABLE) or str(shared / "gtzan-mini")
    corpus = Corpus.open(ingest_and_split(source, CorpusSettings(), root / "corpus"))
    extract(corpus.folder, linear.representation(linear.settings({})), root / "features")
    features, manifest = Features.open(root / "features"), corpus.manifest
    groups = joined(manifest, artist_keys(manifest), manifest["near_duplicate_cluster"])
    clips = manifest.assign(artist_group=groups).set_index("clip_id")
    index = features.index
    table = pd.DataFrame(
        {
            "clip_id": index["clip_id"],
            "genre": index["clip_id"].map(clips["genre"]),
            "artist_group": index["clip_id"].map(clips["artist_group"]),
        }
    )
    rows = index["row"].to_numpy(np.int64)
    embeddings = features.array(rows).reshape(len(rows), -1)
    return Windows(embeddings, table.reset_index(drop=True), manifest, corpus.document.genres)


def of_many_artists(table: pd.DataFrame) -> NDArray[np.int64]:
    """Rows of the genres whose artists can be kept apart."""
    artists = table.groupby("genre")["artist_group"].nunique()
    return np.flatnonzero(table["genre"].map(artists) >= LEAST_ARTISTS)


def by_chunk(table: pd.DataFrame, rows: NDArray[np.int64], seed: int) -> Iterator[Division]:
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(rows, table["genre"].iloc[rows]):
        yield rows[train], rows[test]


def by_clip(table: pd.DataFrame, rows: NDArray[np.int64], seed: int) -> Iterator[Division]:
    yield from _grouped(table, rows, seed, "clip_id")


def by_artist(table: pd.DataFrame, rows: NDArray[np.int64], seed: int) -> Iterator[Division]:
    yield from _grouped(table, rows, seed, "artist_group")


def _grouped(table: pd.DataFrame, rows: NDArray[np.int64], seed: int, key: str) -> Iterator[Division]:
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    part = table.iloc[rows]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for train, test in folds.split(rows, part["genre"], part[key]):
            yield rows[train], rows[test]


PROTOCOLS = {
    "random by chunk of 3 s": by_chunk,
    "random by clip": by_clip,
    "artists and recordings apart": by_artist,
}
LEAKY = {
    "random by chunk of 3 s": "chunks of a clip on both sides",
    "random by clip": "artists on both sides",
}


def predicted(windows: Windows, division: Division) -> NDArray[np.float64]:
    """(test windows, genres) probabilities of the recipe."""
    train, test = division
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=3000))
    model.fit(windows.embeddings[train].astype(np.float64), windows.table["genre"].iloc[train])
    chances = np.zeros((len(test), len(windows.genres)))
    places = [windows.genres.index(genre) for genre in model.classes_]
    chances[:, places] = model.predict_proba(windows.embeddings[test].astype(np.float64))
    return chances


def scores(windows: Windows, divisions: list[Division]) -> tuple[float, float, int]:
    """Accuracy of windows, accuracy of clips (mean over those windows of theirs that were tested), clips."""
    parts = []
    for division in divisions:
        table = windows.table.iloc[division[1]].reset_index(drop=True)
        chances = pd.DataFrame(predicted(windows, division), columns=list(windows.genres))
        parts.append(pd.concat([table, chances], axis=1))
    found = pd.concat(parts)
    genres = list(windows.genres)
    right = found[genres].to_numpy().argmax(1) == found["genre"].map(genres.index).to_numpy()
    clips = found.groupby(["clip_id", "genre"])[genres].mean().reset_index()
    clip_right = clips[genres].to_numpy().argmax(1) == clips["genre"].map(genres.index).to_numpy()
    return float(right.mean()), float(clip_right.mean()), len(clips)


def test_accuracy_falls_as_the_split_leaks_less(windows: Windows) -> None:
    rows = of_many_artists(windows.table)
    genres = [genre for genre in windows.genres if genre in set(windows.table["genre"].iloc[rows])]
    print(
        f"\nlinear on musicnn, {len(genres)} genres of {LEAST_ARTISTS} artists or more: {', '.join(genres)}"
    )
    accuracy = {}
    for name, divide in PROTOCOLS.items():
        found = [scores(windows, list(divide(windows.table, rows, seed))) for seed in SEEDS]
        chunk, clip = (float(np.mean([each[place] for each in found])) for place in (0, 1))
        low, high = wilson(clip * found[0][2], found[0][2])
        accuracy[name] = chunk
        leak = f"leaky: {LEAKY[name]}" if name in LEAKY else "leak-free"
        print(
            f"{name:30} windows {chunk:.1%}, clips {clip:.1%} (95 % interval {low:.1%} to {high:.1%}, "
            f"{found[0][2]} clips, {FOLDS} folds, mean of {len(SEEDS)} divisions); {leak}"
        )
    chunks, clips, artists = accuracy.values()
    assert chunks > clips > artists


@pytest.mark.parametrize("protocol", ["artist", "fault-filtered"])
def test_the_published_lists_are_scored_where_they_fit(windows: Windows, protocol: str) -> None:
    """On gtzan-mini neither does, and the sentence says why: a genre is left without training clips."""
    try:
        split = assign(windows.manifest, protocol, 0, 42, windows.genres).manifest
    except CorpusError as error:
        print(f"\n{protocol}: {error}")
        return
    of_clip = windows.table["clip_id"].map(split.set_index("clip_id")["split"])
    division = (
        np.flatnonzero(of_clip.isin(["train", "validation"])),
        np.flatnonzero(of_clip == "test"),
    )
    chunk, clip, clips = scores(windows, [division])
    low, high = wilson(clip * clips, clips)
    print(f"\n{protocol}: windows {chunk:.1%}, clips {clip:.1%} ({low:.1%} to {high:.1%}, {clips} clips)")
    assert clip > 1 / len(windows.genres)
