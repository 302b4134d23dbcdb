"""What has been published about GTZAN's 1000 clips: md5s, artists, the fault-filtered split, artist folds.

The lists lie in `reference/gtzan`; their sources are named in `reference/README.md`.
"""

import csv
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources

KNOWN_SHARE = 0.9
"""Clips count as GTZAN's where at least this share of their ids are GTZAN's."""
SHORTEST, LONGEST = 29.0, 31.0
"""Seconds that a clip of GTZAN lasts, converted copies included: other music may be named alike."""
FOLDS = 3

_LISTS = {"train": "train_filtered.txt", "validation": "valid_filtered.txt", "test": "test_filtered.txt"}


@cache
def md5s() -> Mapping[str, str]:
    """md5 of the original file by clip id, all 1000 (mirdata)."""
    return {row["clip_id"]: row["md5"] for row in _rows("md5.csv")}


@cache
def artists() -> Mapping[str, tuple[str | None, str | None]]:
    """Artist and title by clip id, None where unknown (Sturm 2012)."""
    return {row["clip_id"]: (row["artist"] or None, row["title"] or None) for row in _rows("artists.csv")}


@cache
def fault_filtered() -> Mapping[str, str]:
    """Split by clip id, 443/197/290 (Kereliuk, Sturm and Larsen 2015); other clips are in no split."""
    lines = {split: _text(name).split() for split, name in _LISTS.items()}
    return {line.split("/")[-1].removesuffix(".wav"): split for split in lines for line in lines[split]}


@cache
def artist_folds() -> Mapping[str, tuple[int, str]]:
    """Fold, from 0, and artist id by clip id, 948 clips (Foleis and Tavares 2020)."""
    return {row["clip_id"]: (int(row["fold"]) - 1, row["artist_id"]) for row in _rows("artist_folds.csv")}


def is_gtzan(clip_ids: Iterable[str], seconds: Iterable[float]) -> bool:
    """Whether nearly all of these clips have the ids and the length of GTZAN's."""
    alike = [
        clip_id in md5s() and SHORTEST <= length <= LONGEST
        for clip_id, length in zip(clip_ids, seconds, strict=True)
    ]
    return bool(alike) and sum(alike) >= KNOWN_SHARE * len(alike)


def _text(name: str) -> str:
    return resources.files("genreflow.corpus").joinpath("reference", "gtzan", name).read_text("utf-8")


def _rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(_text(name).splitlines()))
