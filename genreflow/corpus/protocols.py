"""Protocols: which clip is in which split, and what is leaky about that split."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from genreflow.core.documents import SPLITS
from genreflow.core.errors import CorpusError, SettingsError
from genreflow.core.genres import GENRES, caseless
from genreflow.corpus import gtzan
from genreflow.corpus.duplicates import clusters, same_what

UNUSED = "unused"

MIN_TEST_CLIPS = 50
"""`auto` takes the fault-filtered lists only if they leave so many test clips, and some of each genre."""

OPTIMISTIC = "Figures are optimistic: a model that recognises artists seems to recognise genres."

GROUPED_SHARES = {"train": 0.65, "validation": 0.15, "test": 0.20}
RANDOM_SHARES = {"train": 0.81, "validation": 0.09, "test": 0.10}
"""The tutorials' 90/10, with validation taken from the 90."""
VALIDATION_SHARE_OF_OTHERS = 0.20
"""Of the clips outside a given test split, where it comes without a validation split."""
FOLDERS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""Split by the name, without case, of the folder above a clip's genre folder."""
MIN_CLIPS_FOR_VALIDATION = 4
"""A genre with fewer clips gives none to validation."""


@dataclass(frozen=True)
class Assignment:
    """A manifest with its columns `split` and `fold`, and notes on the split."""

    manifest: pd.DataFrame
    protocol: str
    """The protocol used: never `auto`."""
    fold: int | None
    leaky: bool
    leak_reason: str | None
    notes: tuple[str, ...]


def assign(
    manifest: pd.DataFrame,
    protocol: str,
    fold: int = 0,
    seed: int = 42,
    genres: tuple[str, ...] = GENRES,
    known: bool | None = None,
) -> Assignment:
    """Give every clip a split (train, validation, test, unused).

    Args:
        manifest: a row a clip with at least `clip_id`, `genre`, `seconds`, `artist` (may be null) and
            `duplicate_cluster` and `near_duplicate_cluster`; `folders` reads `folder`, too: the folder above
            the genre's, empty where there is none.
        protocol: `auto`, `folders`, `fault-filtered`, `artist`, `random`, `grouped` or `all`.
        fold: which fold is the test split, from 0; only `artist` has folds.
        seed: of the splits made here; published lists have none.
        known: whether the clips are GTZAN's; judged by their ids and lengths if None.

    Raises:
        CorpusError: the protocol does not fit these clips.
        SettingsError: there is no such protocol or fold.
    """
    notes = []
    if known is None:
        known = gtzan.is_gtzan(manifest["clip_id"], manifest["seconds"])
    if protocol == "auto":
        protocol, note = _choose(manifest, genres, known)
        notes += [note] if note else []
    if protocol not in PROTOCOLS:
        raise SettingsError(f"There is no protocol {protocol!r}; there are auto, {', '.join(PROTOCOLS)}.")
    if protocol in PUBLISHED and not known:
        raise CorpusError(
            f"The protocol {protocol} is a published list of GTZAN's clips, and these are not GTZAN's. "
            "Use --protocol grouped."
        )
    made = PROTOCOLS[protocol](manifest, fold, seed, genres)
    _require(made, genres)
    notes += [*made.notes, *_label_conflicts(manifest)]
    if protocol in GIVEN:
        notes += _straddling(made.manifest, GIVEN[protocol])
    return replace(made, notes=tuple(notes))


def _choose(manifest: pd.DataFrame, genres: tuple[str, ...], known: bool) -> tuple[str, str | None]:
    """What `auto` means for these clips, and why where it is not plain."""
    folders = _folder_names(manifest)
    given = set(folders.map(FOLDERS))
    if {"train", "test"} <= given:
        return "folders", None
    if not known:
        if "train" in given or "test" in given:
            lacking = "test" if "train" in given else "train"
            return "grouped", (
                f"There is no folder {lacking} beside {', '.join(sorted(set(folders) & set(FOLDERS)))}: the "
                "split is made here."
            )
        return "grouped", None
    splits = manifest["clip_id"].map(gtzan.fault_filtered())
    per_genre = pd.crosstab(manifest["genre"], splits).reindex(index=genres, columns=SPLITS, fill_value=0)
    train, _, test = (int(per_genre[split].sum()) for split in SPLITS)
    if test >= MIN_TEST_CLIPS and (per_genre[["train", "test"]] > 0).all(axis=None):
        return "fault-filtered", None
    return "grouped", (
        f"Of these {len(manifest)} GTZAN clips the fault-filtered lists keep {train} to train and {test} to "
        f"test; at least {MIN_TEST_CLIPS} to test and some of every genre are needed: the split is made here."
    )


def _folders(manifest: pd.DataFrame, fold: int, seed: int, genres: tuple[str, ...]) -> Assignment:
    """As the clips lie in folders of the source; without a validation folder, it is taken from training."""
    names = _folder_names(manifest)
    split = names.map(FOLDERS).fillna(UNUSED)
    if not {"train", "test"} <= set(split):
        found = ", ".join(sorted(set(manifest["folder"]) - {""})) if "folder" in manifest else ""
        raise CorpusError(
            "The protocol folders needs folders train and test, and may use val (valid, validation), with "
            f"genre folders in them; this source has {found or 'none of them'}. Use --protocol grouped."
        )
    notes = []
    if unused := sorted(set(manifest["folder"][split == UNUSED])):
        listed = ", ".join(name or "the source itself" for name in unused)
        notes.append(
            f"{int((split == UNUSED).sum())} clips lie in {listed}, which is none of the folders "
            f"{', '.join(FOLDERS)}: they are not used."
        )
    if "validation" not in set(split):
        split = with_validation(manifest, split, artist_keys(manifest), seed)
        notes.append(
            f"There is no validation folder: {int((split == 'validation').sum())} clips of the training "
            "folder select the model; known artists and duplicates are kept on one side."
        )
    made = replace(_assignment(manifest, split, "folders"), notes=tuple(notes))
    crossing = {
        "known artists": _crossing(made.manifest, artist_keys(manifest)),
        "recordings": _crossing(made.manifest, manifest["near_duplicate_cluster"]),
    }
    if not any(crossing.values()):
        return made
    counted = " and ".join(f"{count} {what}" for what, count in crossing.items() if count)
    reason = f"The folders have clips of {counted} both in training or validation and in test. {OPTIMISTIC}"
    return replace(made, leaky=True, leak_reason=reason)


def _folder_names(manifest: pd.DataFrame) -> pd.Series:
    """The last part of each clip's folder, without case; empty where there is none."""
    if "folder" not in manifest:
        return pd.Series("", manifest.index)
    return manifest["folder"].fillna("").str.replace("\\", "/").str.split("/").str[-1].str.casefold()


def with_validation(
    manifest: pd.DataFrame, split: pd.Series, artist: Iterable[Hashable], seed: int
) -> pd.Series:
    """`split` with validation taken from training, whole artists and duplicates at a time.

    Args:
        artist: of each clip of `manifest`, None where unknown.
    """
    others = manifest[split == "train"]
    artists = pd.Series(list(artist), manifest.index, dtype="object")[others.index]
    groups = joined(others, artists, others["near_duplicate_cluster"])
    shares = {"train": 1 - VALIDATION_SHARE_OF_OTHERS, "validation": VALIDATION_SHARE_OF_OTHERS}
    allocated = split.copy()
    allocated.loc[others.index] = _allocate(others, groups, shares, seed)
    return allocated


def _fault_filtered(manifest: pd.DataFrame, fold: int, seed: int, genres: tuple[str, ...]) -> Assignment:
    split = manifest["clip_id"].map(gtzan.fault_filtered()).fillna(UNUSED)
    return _assignment(manifest, split, "fault-filtered")


def _artist(manifest: pd.DataFrame, fold: int, seed: int, genres: tuple[str, ...]) -> Assignment:
    """The fold is the test split; validation is taken from the other folds, whole artists at a time."""
    if not 0 <= fold < gtzan.FOLDS:
        raise SettingsError(f"The artist protocol has folds 0 to {gtzan.FOLDS - 1}, not {fold}.")
    listed = gtzan.artist_folds()
    folds = [listed[name][0] if name in listed else None for name in manifest["clip_id"]]
    splits = [UNUSED if each is None else "test" if each == fold else "train" for each in folds]
    artist = [listed[name][1] if name in listed else None for name in manifest["clip_id"]]
    split = with_validation(manifest, pd.Series(splits, manifest.index), artist, seed)
    return replace(_assignment(manifest.assign(fold=pd.array(folds, "Int32")), split, "artist"), fold=fold)


def _random(manifest: pd.DataFrame, fold: int, seed: int, genres: tuple[str, ...]) -> Assignment:
    """By clip, stratified, as the tutorials do: nothing keeps an artist or a repeated clip on one side."""
    split = _allocate(manifest, pd.Series(np.arange(len(manifest)), manifest.index), RANDOM_SHARES, seed)
    made = manifest.assign(split=split)
    artists = _crossing(made, artist_keys(made))
    repeated = _crossing(made, made["near_duplicate_cluster"])
    reason = "The split is random by clip: clips of one artist lie in training and in test"
    reason += f" ({artists} known artists do" if artists else " (artists unknown or none here"
    reason += f", and {repeated} repeated recordings)" if repeated else ")"
    return replace(
        _assignment(manifest, split, "random"),
        leaky=True,
        leak_reason=f"{reason}. {OPTIMISTIC}",
    )


def _grouped(manifest: pd.DataFrame, fold: int, seed: int, genres: tuple[str, ...]) -> Assignment:
    """Stratified; duplicates and known artists stay on one side.

    A genre that would so be left without training or test clips (all of one artist) is split by clip: leaky.
    """
    artist = artist_keys(manifest)
    single = [
        genre
        for genre, part in artist.groupby(manifest["genre"])
        if part.notna().all() and part.nunique() == 1
    ]
    by_clip: set[str] = set()
    while True:
        keys = artist.where(~manifest["genre"].isin(by_clip), None)
        groups = joined(manifest, keys, manifest["near_duplicate_cluster"])
        made = _assignment(manifest, _allocate(manifest, groups, GROUPED_SHARES, seed), "grouped")
        lacking = set(_lacking(made.manifest, genres, ("train", "test"))) - by_clip
        if not lacking:
            break
        by_clip |= lacking
    unknown = int(artist.isna().sum())
    if unknown:
        which = (
            "No clip's artist is known"
            if unknown == len(manifest)
            else f"The artist of {unknown} clips is unknown"
        )
        notes = (f"{which}; each clip counts as an artist of its own.",)
        made = replace(made, notes=notes)
    if not by_clip:
        return made
    listed = ", ".join(genre for genre in genres if genre in by_clip)
    why = (
        f"{len(single)} of {len(genres)} genres are one artist each ({', '.join(single)})"
        if single
        else f"keeping artists together would leave {listed} without training or test clips"
    )
    return replace(
        made,
        leaky=True,
        leak_reason=(
            f"{why}; {listed} were therefore split by clip, with the same artists in training and in test. "
            f"{OPTIMISTIC}"
        ),
    )


def _all(manifest: pd.DataFrame, fold: int, seed: int, genres: tuple[str, ...]) -> Assignment:
    split = pd.Series("train", manifest.index)
    return replace(
        _assignment(manifest, split, "all"),
        leaky=True,
        leak_reason="every clip was trained on",
        notes=("Every clip trains: there is nothing here to select or to test a model on.",),
    )


PROTOCOLS: dict[str, Callable[[pd.DataFrame, int, int, tuple[str, ...]], Assignment]] = {
    "folders": _folders,
    "fault-filtered": _fault_filtered,
    "artist": _artist,
    "random": _random,
    "grouped": _grouped,
    "all": _all,
}
PUBLISHED = ("fault-filtered", "artist")
"""Lists of GTZAN's clips, kept as published."""
GIVEN = dict.fromkeys(PUBLISHED, "The published split") | {"folders": "The split by folders"}
"""Protocols whose splits are kept as they are given, as sentences name them."""


def _assignment(manifest: pd.DataFrame, split: pd.Series, protocol: str) -> Assignment:
    folds = manifest["fold"] if "fold" in manifest else pd.Series(pd.NA, manifest.index)
    made = manifest.assign(split=split.astype("str"), fold=folds.astype("Int32"))
    return Assignment(made, protocol, None, False, None, ())


def _allocate(manifest: pd.DataFrame, groups: pd.Series, shares: dict[str, float], seed: int) -> pd.Series:
    """Whole groups to splits, each genre near its shares: the largest first, each where it fits best.

    Ties between groups of one size are drawn by `seed`; the order of rows does not matter.
    """
    labels = sorted(manifest["genre"].unique())
    ordered = manifest.assign(group=groups).sort_values("clip_id")
    counts: dict[Hashable, np.ndarray] = {}
    for group, genre in zip(ordered["group"], ordered["genre"], strict=True):
        counts.setdefault(group, np.zeros(len(labels), int))[labels.index(genre)] += 1
    order = np.random.default_rng(seed).permutation(len(counts))
    pairs = list(counts.items())
    lots = [pairs[place] for place in order]
    lots.sort(key=lambda lot: -lot[1].sum())

    totals = np.sum(list(counts.values()), axis=0)
    target = {split: _target(totals, split, share) for split, share in shares.items() if split != "train"}
    target["train"] = totals - sum(target.values())
    # on a tie training first, then test
    names = [split for split in ("train", "test", "validation") if split in shares]
    wanted = np.stack([target[split] for split in names]).astype(float)
    filled = np.zeros_like(wanted)
    chosen = {}
    for group, row in lots:
        best = int(np.argmin((row * (2 * (filled - wanted) + row)).sum(axis=1)))
        filled[best] += row
        chosen[group] = names[best]
    return groups.map(chosen)


def _target(totals: np.ndarray, split: str, share: float) -> np.ndarray:
    """Clips wanted of each genre: the rounded share, and at least one where there are enough."""
    enough = totals >= (MIN_CLIPS_FOR_VALIDATION if split == "validation" else 2)
    return np.where(enough, np.maximum(1, np.rint(totals * share)), 0)


def artist_keys(manifest: pd.DataFrame) -> pd.Series:
    """Artists as they compare: without case, spacing and forms of Unicode; None where unknown."""
    plain = [
        None if pd.isna(artist) else " ".join(caseless(artist).split()) or None
        for artist in manifest["artist"]
    ]
    return pd.Series(plain, manifest.index, dtype="object")


def joined(manifest: pd.DataFrame, *keys: Iterable[Hashable]) -> pd.Series:
    """A group number for each clip: clips that share a key's value, directly or through others, share it."""
    parent = list(range(len(manifest)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for key in keys:
        seen: dict[Hashable, int] = {}
        for row, value in enumerate(key):
            if not pd.isna(value):
                parent[root(row)] = root(seen.setdefault(value, row))
    return pd.Series([root(row) for row in range(len(manifest))], manifest.index)


def _lacking(manifest: pd.DataFrame, genres: tuple[str, ...], splits: tuple[str, ...]) -> list[str]:
    """Genres without a clip in one of `splits`."""
    table = pd.crosstab(manifest["genre"], manifest["split"])
    table = table.reindex(index=genres, columns=list(splits), fill_value=0)
    return [genre for genre in genres if (table.loc[genre] == 0).any()]


def _require(made: Assignment, genres: tuple[str, ...]) -> None:
    """Refuse a split that cannot train, or cannot test."""
    if untrained := _lacking(made.manifest, genres, ("train",)):
        raise CorpusError(
            f"The protocol {made.protocol} leaves no training clip of {', '.join(untrained)} here. "
            "Use --protocol grouped, or add clips."
        )
    if made.protocol == "all":
        return
    untested = _lacking(made.manifest, genres, ("test",))
    if untested and (made.protocol not in GIVEN or len(untested) == len(genres)):
        raise CorpusError(
            f"The protocol {made.protocol} leaves no test clip of {', '.join(untested)}: "
            "its clips are all the same recording, or too few. Add clips, or leave the genre out."
        )


def _crossing(manifest: pd.DataFrame, key: pd.Series) -> int:
    """How many values of `key` lie both in training or validation and in test."""
    learned = set(key[manifest["split"].isin(["train", "validation"])].dropna())
    return len(learned & set(key[manifest["split"] == "test"].dropna()))


def _straddling(manifest: pd.DataFrame, split: str) -> list[str]:
    """What a given split leaves on both sides: reported, not repaired.

    Args:
        split: how a sentence that begins with it names the split.
    """
    notes = []
    for cluster in clusters(manifest, "near_duplicate_cluster"):
        splits = set(cluster["split"]) - {UNUSED}
        if len(splits) > 1:
            where = ", ".join(f"{c} ({s})" for c, s in zip(cluster["clip_id"], cluster["split"], strict=True))
            notes.append(f"{split} has the same {same_what(cluster)} on both sides: {where}.")
    artists = _crossing(manifest, artist_keys(manifest))
    if artists:
        by = "by the files' tags" if split == GIVEN["folders"] else "by Sturm's index"
        notes.append(f"{split} has {artists} artists ({by}) in training or validation and in test.")
    if lacking := _lacking(manifest, tuple(manifest["genre"].unique()), ("test",)):
        notes.append(f"{split} leaves no test clip of {', '.join(lacking)} here.")
    return notes


def _label_conflicts(manifest: pd.DataFrame) -> list[str]:
    return [
        f"The same {same_what(cluster)} under several genres: {', '.join(cluster['clip_id'])}."
        for cluster in clusters(manifest, "near_duplicate_cluster")
        if cluster["genre"].nunique() > 1
    ]
