"""The protocol study: the same classifiers under several protocols, to see how much of a figure is leak.

A protocol says which rows are tested and what training has seen of them. Under each, parameters are searched
on the training and validation rows alone, with inner folds that leak as the protocol does (a person who
splits at random tunes at random), and the test rows are predicted once.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genreflow.core import home
from genreflow.core.digests import code_digest, text_digest
from genreflow.core.documents import Frozen, Representation
from genreflow.core.errors import CorpusError, GenreflowError, SettingsError
from genreflow.corpus import gtzan
from genreflow.corpus.descriptor_table import read_descriptor_table
from genreflow.corpus.ingest import ingest, resolve
from genreflow.corpus.protocols import artist_keys, assign, joined
from genreflow.corpus.settings import IngestSettings
from genreflow.corpus.sources.table import names_audio
from genreflow.corpus.store import MANIFEST
from genreflow.evaluation.uncertainty import wilson
from genreflow.extraction import Features, extract
from genreflow.families.shallow import FAMILY, ShallowSettings, estimators
from genreflow.families.shallow.search import (
    Rows,
    Search,
    fit,
    folds_of,
    one_thread,
    predicted_labels,
    search,
)
from genreflow.features.descriptors import NAMES

Protocol = Literal["chunk-random", "random-ten-fold", "random", "artist", "fault-filtered"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
OUTER_FOLDS = 10
GROUPED_FOLDS = 5
"""Of the protocol `artist` where no published folds fit."""
CHUNK_SECONDS, CLIP_SECONDS = 3.0, 30.0
OnResult = Callable[["Result"], None]


@dataclass(frozen=True)
class Table:
    """Rows of descriptors of a corpus, with what is known of each row's clip."""

    features: NDArray[np.float32]
    """(n, 57)"""
    clips: NDArray[np.int64]
    """(n,) row of the clip in `manifest`."""
    manifest: pd.DataFrame
    """A row a clip: clip_id, genre, seconds, artist, duplicate_cluster, near_duplicate_cluster."""
    genres: tuple[str, ...]
    length: str
    """What a row is: `30 s` or `3 s`."""
    fingerprint: str

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,)"""
        return self.clip_labels[self.clips]

    @property
    def clip_labels(self) -> NDArray[np.int64]:
        """(clips,)"""
        order = {genre: label for label, genre in enumerate(self.genres)}
        return self.manifest["genre"].map(order).to_numpy(np.int64)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(n,) what is never on both sides of a leak-free split: artists and recordings."""
        manifest = self.manifest
        groups = joined(manifest, artist_keys(manifest), manifest["near_duplicate_cluster"])
        return groups.to_numpy(np.int64)[self.clips]


class Result(Frozen):
    """One classifier, length, search and protocol."""

    classifier: str
    length: str
    search: str
    protocol: str
    rows: int
    """Rows tested."""
    rows_right: int
    clips: int
    """Clips tested, each by the mean probability of its rows."""
    right: dict[str, bool]
    """Of each tested clip, whether its genre was predicted."""
    parameters: tuple[dict[str, Any], ...]
    """What the search found, of each outer fold."""
    seconds: float

    @property
    def accuracy(self) -> float:
        return sum(self.right.values()) / max(1, self.clips)

    @property
    def row_accuracy(self) -> float:
        return self.rows_right / max(1, self.rows)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % (Wilson) of the clips."""
        return wilson(sum(self.right.values()), self.clips)

    def accuracy_on(self, clips: set[str]) -> float | None:
        """Share right of some clips; None where none of them was tested."""
        found = [right for clip, right in self.right.items() if clip in clips]
        return sum(found) / len(found) if found else None


def open_tables(source: str, genres: tuple[str, ...], seconds: Sequence[float], work: Path) -> list[Table]:
    """A source's descriptors: those in a table of descriptors, else computed; one table for each length.

    Args:
        source: a table of descriptors (CSV), or a source of audio as `open_source` takes it.
        seconds: lengths of a row; a table of descriptors has whole clips alone.
        work: a folder for the corpus and its features, which later calls find there.

    Raises:
        CorpusError: the source cannot be read, or has rows that cannot be used.
    """
    path = Path(source)
    if path.suffix.lower() == ".csv" and not names_audio(path):
        manifest, values = read_descriptor_table(path, genres, NAMES)
        key = text_digest([values.tobytes().hex(), manifest.to_json()])
        return [Table(values, np.arange(len(values)), manifest, genres, _words(CLIP_SECONDS), key)]
    settings = IngestSettings(genres=genres)
    fingerprint = resolve(source, genres)
    folder = work / text_digest([source, fingerprint, *genres, code_digest()])[:32]
    corpus = folder / "corpus"
    if not (corpus / "corpus.json").is_file():
        ingest(source, fingerprint, settings, corpus)
    return [_computed(corpus, folder / f"features-{one:g}", one) for one in seconds]


def _computed(corpus: Path, folder: Path, seconds: float) -> Table:
    representation: Representation = FAMILY.representation(ShallowSettings(window_seconds=seconds))
    if not (folder / "features.json").is_file():
        extract(corpus, representation, folder, device="cpu")
    features = Features.open(folder)
    manifest = pd.read_parquet(corpus / MANIFEST)
    place = pd.Series(np.arange(len(manifest)), manifest["clip_id"])
    clips = features.index["clip_id"].map(place).to_numpy(np.int64)
    rows = features.array(np.arange(len(features)))
    document = features.document
    return Table(rows, clips, manifest, document.genres, _words(seconds), document.fingerprint)


def _words(seconds: float) -> str:
    return f"{seconds:g} s"


def outer_folds(table: Table, protocol: str, seed: int) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Masks of the rows to train and tune on, and of those to test, of each fold of a protocol.

    Raises:
        CorpusError: the protocol does not fit these clips.
        SettingsError: there is no such protocol.
    """
    from sklearn.model_selection import StratifiedKFold

    if protocol not in PROTOCOLS:
        raise SettingsError(f"There is no protocol {protocol!r}; there are {', '.join(PROTOCOLS)}.")
    manifest, labels = table.manifest, table.labels
    if protocol in ("chunk-random", "random-ten-fold"):
        by_clip = protocol == "random-ten-fold"
        what = table.clip_labels if by_clip else labels
        folds = min(OUTER_FOLDS, int(np.bincount(what).max()))
        part = np.zeros(len(what), np.int64)
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        for number, (_, out) in enumerate(splitter.split(what, what)):
            part[out] = number
        return _of_folds(part[table.clips] if by_clip else part)
    known = gtzan.is_gtzan(manifest["clip_id"], manifest["seconds"])
    if protocol == "artist" and not (known and len(manifest) > GTZAN_ENOUGH):
        part = folds_of(_rows(table, protocol), GROUPED_FOLDS, seed)
        if part.max(initial=-1) < 1:
            raise CorpusError("No genre has two artists or recordings: there is no artist to hold out.")
        return _of_folds(part)
    if protocol == "artist":
        splits = [assign(manifest, protocol, fold, seed, table.genres, known) for fold in range(gtzan.FOLDS)]
    else:
        splits = [assign(manifest, protocol, 0, seed, table.genres, known)]
    found = []
    for made in splits:
        order = made.manifest.set_index("clip_id")["split"]
        split = manifest["clip_id"].map(order).to_numpy()[table.clips]
        found.append((np.isin(split, ["train", "validation"]), split == "test"))
    return found


GTZAN_ENOUGH = 500
"""Clips from which GTZAN's published artist folds are used: a small part of it has genres of one artist."""


def _of_folds(part: NDArray[np.int64]) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    return [(part != number, part == number) for number in range(int(part.max()) + 1)]


def _rows(table: Table, protocol: str) -> Rows:
    """The table's rows, with groups that leak as the protocol does."""
    groups = {
        "chunk-random": np.arange(len(table.features)),
        "random-ten-fold": table.clips,
        "random": table.clips,
    }
    return Rows(table.features, table.labels, table.clips, groups.get(protocol, table.groups))


def measure(
    table: Table,
    classifier: str,
    how: Search,
    protocol: str,
    *,
    folds: int = 3,
    trials: int = 12,
    seed: int = 42,
    storage: Path | None = None,
) -> Result:
    """Search, fit and test one classifier under one protocol.

    Args:
        folds: of the search's cross-validation, within the training rows.
        trials: of a Bayesian search.
        storage: a folder for unfinished searches.

    Raises:
        CorpusError: the protocol does not fit these clips.
        SettingsError: there is no such classifier or protocol.
    """
    began = time.monotonic()
    estimators.kind(classifier)
    rows, genres = _rows(table, protocol), len(table.genres)
    logits = np.full((len(rows), genres), np.nan)
    parameters = []
    for number, (train, test) in enumerate(outer_folds(table, protocol, seed)):
        inner = rows.take(train)
        name = f"{_key(table, classifier, how, protocol, folds, trials, seed)}-{number}.journal"
        file = None if storage is None else storage / name
        found = search(classifier, inner, genres, how, folds=folds, trials=trials, seed=seed, storage=file)
        if file is not None:
            file.unlink(missing_ok=True)
        parameters.append(found.parameters)
        with one_thread():
            fitted = fit(classifier, found.parameters, inner, seed)
            logits[test] = fitted.logits(rows.features[test], genres)
    tested = np.isfinite(logits[:, 0])
    predicted = logits[tested].argmax(axis=1)
    return Result(
        classifier=classifier,
        length=table.length,
        search=how,
        protocol=protocol,
        rows=int(tested.sum()),
        rows_right=int((predicted == rows.labels[tested]).sum()),
        clips=len(np.unique(rows.clips[tested])),
        right=_clips_right(table, *predicted_labels(rows.clips[tested], logits[tested])),
        parameters=tuple(parameters),
        seconds=time.monotonic() - began,
    )


def _clips_right(table: Table, clips: NDArray[np.int64], predicted: NDArray[np.int64]) -> dict[str, bool]:
    right = predicted == table.clip_labels[clips]
    names = table.manifest["clip_id"].to_numpy(str)[clips]
    return {str(name): bool(one) for name, one in zip(names, right, strict=True)}


def _key(table: Table, *settings: Any) -> str:
    return text_digest([table.fingerprint, table.length, *map(str, settings), code_digest()])[:32]


def study(
    tables: Sequence[Table],
    classifiers: Sequence[str] = estimators.NAMES,
    searches: Sequence[Search] = ("grid", "bayesian"),
    protocols: Sequence[str] = PROTOCOLS,
    *,
    folds: int = 3,
    trials: int = 12,
    seed: int = 42,
    on_result: OnResult | None = None,
) -> tuple[list[Result], list[str]]:
    """Measure every combination; those that were measured before, in an interrupted study, are read.

    Returns:
        The results, and sentences on what could not be measured.

    Raises:
        SettingsError: there is no such classifier or protocol.
    """
    for name in classifiers:
        estimators.kind(name)
    for name in protocols:
        if name not in PROTOCOLS:
            raise SettingsError(f"There is no protocol {name!r}; there are {', '.join(PROTOCOLS)}.")
    results, notes = [], []
    for table, protocol in _pairs(tables, protocols):
        try:
            outer_folds(table, protocol, seed)
        except CorpusError as error:
            notes.append(f"{protocol}, rows of {table.length}: {error}")
            continue
        for classifier in classifiers:
            for how in searches:
                key = _key(table, classifier, how, protocol, folds, trials, seed)
                kept = home.searches_folder() / f"{key}.json"
                result = _read(kept)
                if result is None:
                    result = measure(
                        table,
                        classifier,
                        how,
                        protocol,
                        folds=folds,
                        trials=trials,
                        seed=seed,
                        storage=home.searches_folder(),
                    )
                    with home.writing(kept.parent):
                        kept.parent.mkdir(parents=True, exist_ok=True)
                        kept.write_text(result.model_dump_json())
                results.append(result)
                if on_result is not None:
                    on_result(result)
    return results, notes


def _pairs(tables: Sequence[Table], protocols: Sequence[str]) -> Iterator[tuple[Table, str]]:
    """Tables and protocols that differ: of whole clips, chunks at random are clips at random."""
    for table in tables:
        whole = len(np.unique(table.clips)) == len(table.clips)
        for protocol in protocols:
            if not (whole and protocol == "chunk-random"):
                yield table, protocol


def _read(path: Path) -> Result | None:
    try:
        return Result.model_validate_json(path.read_text())
    except (OSError, ValueError):
        return None


def markdown(results: Sequence[Result]) -> str:
    """A table with a row a classifier and length and search, a column a protocol: per cent of clips right."""
    protocols = list(dict.fromkeys(result.protocol for result in results))
    common = common_clips(results)
    lines = [
        f"| classifier | row | search | {' | '.join(protocols)} |",
        f"|---|---|---|{'---|' * len(protocols)}",
    ]
    cells = {(one.classifier, one.length, one.search, one.protocol): one for one in results}
    for classifier, length, how in dict.fromkeys((one.classifier, one.length, one.search) for one in results):
        row = []
        for protocol in protocols:
            found = cells.get((classifier, length, how, protocol))
            row.append("" if found is None else _cell(found, common))
        lines.append(f"| {classifier} | {length} | {how} | {' | '.join(row)} |")
    return "\n".join(lines)


def common_clips(results: Sequence[Result]) -> set[str]:
    """Clips that every cross-validated protocol tested: on these, protocols compare."""
    every = [set(one.right) for one in results if one.protocol not in ("random", "fault-filtered")]
    return set.intersection(*every) if every else set()


def _cell(result: Result, common: set[str]) -> str:
    low, high = result.interval
    text = f"{result.accuracy * 100:.1f} ({low * 100:.0f} to {high * 100:.0f})"
    if result.rows != result.clips:
        text += f", rows {result.row_accuracy * 100:.1f}"
    same = result.accuracy_on(common) if len(common) < result.clips else None
    return text if same is None else f"{text}, same {len(common)}: {same * 100:.1f}"


def write_json(results: Sequence[Result], notes: Sequence[str], path: Path) -> None:
    """Write results with their figures, without the single clips.

    Raises:
        GenreflowError: the file cannot be written.
    """
    entries = [
        {
            **result.model_dump(mode="json", exclude={"right"}),
            "accuracy": result.accuracy,
            "accuracy_ci95": result.interval,
            "row_accuracy": result.row_accuracy,
        }
        for result in results
    ]
    try:
        path.write_text(json.dumps({"results": entries, "notes": list(notes)}, indent=2) + "\n")
    except OSError as error:
        raise GenreflowError(f"{path} cannot be written: {error.strerror}.") from error
