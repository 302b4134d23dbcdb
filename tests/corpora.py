"""Small corpora on disk, made from waveforms, for tests of what stands on a corpus."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genreflow.core.digests import text_digest
from genreflow.core.documents import SPLITS, CorpusDocument, SplitDocument
from genreflow.corpus.duplicates import near_pairs
from genreflow.corpus.ingest import ingest, resolve
from genreflow.corpus.settings import CorpusSettings
from genreflow.corpus.splitting import COLUMNS, TABLE, split
from genreflow.corpus.store import (
    MANIFEST,
    MANIFEST_TYPES,
    NEAR_DUPLICATES,
    QUARANTINE,
    QUARANTINE_COLUMNS,
    ClipWriter,
    quantise,
)

Clip = tuple[str, str, NDArray[np.float32], int]
"""Genre, split, samples (n,) and their rate in hertz."""


def write_corpus(folder: Path, clips: Sequence[Clip], genres: tuple[str, ...]) -> Path:
    """Write a corpus artifact of these clips."""
    rows = []
    with ClipWriter(folder) as writer:
        for number, (genre, _, samples, rate) in enumerate(clips):
            clip_id = f"{genre}.{number:05d}"
            writer.write(clip_id, rate, quantise(samples)[0])
            rows.append(
                {
                    "clip_id": clip_id,
                    "genre": genre,
                    "sha256": text_digest([clip_id, str(samples.tobytes())]),
                    "source": f"{genre}/{clip_id}.wav",
                    "folder": "",
                    "seconds": len(samples) / rate,
                    "sample_rate": rate,
                    "channels": 1,
                    "format": "wav",
                    "artist": None,
                    "title": None,
                    "duplicate_cluster": clip_id,
                    "near_duplicate_cluster": clip_id,
                    "rms_dbfs": -20.0,
                    "peak_dbfs": -3.0,
                }
            )
    manifest = pd.DataFrame(rows)[list(MANIFEST_TYPES)].astype(MANIFEST_TYPES)
    manifest.to_parquet(folder / MANIFEST, index=False)
    near_pairs(manifest, []).to_parquet(folder / NEAR_DUPLICATES, index=False)
    pd.DataFrame(columns=list(QUARANTINE_COLUMNS)).to_parquet(folder / QUARANTINE, index=False)
    document = CorpusDocument(
        fingerprint=text_digest([row["sha256"] for row in rows]),
        source="test",
        source_fingerprint="test",
        synthetic=True,
        genres=genres,
        clips=len(rows),
        quarantined=0,
        duplicate_clusters=0,
        code_version="test",
    )
    document.write(folder)
    write_split(split_of(folder), document, manifest, [split for _, split, _, _ in clips])
    return folder


def split_of(corpus: Path) -> Path:
    """Where `write_corpus` leaves the split of a corpus."""
    return corpus.with_name(f"{corpus.name}-split")


def write_split(
    folder: Path, corpus: CorpusDocument, manifest: pd.DataFrame, splits: Sequence[str], **fields: Any
) -> None:
    """Write a split artifact of a corpus: one split a row of the manifest."""
    write_split_table(folder, corpus.fingerprint, manifest, splits, **fields)


def write_split_table(
    folder: Path, corpus_fingerprint: str, clips: pd.DataFrame, splits: Sequence[str], **fields: Any
) -> None:
    """Write a split artifact: a row a clip, with at least `clip_id` and `duplicate_cluster`."""
    table = clips.assign(split=list(splits), fold=None, artist_group=None, folder="")
    if "near_duplicate_cluster" not in table:
        table["near_duplicate_cluster"] = table["duplicate_cluster"]
    table[list(COLUMNS)].astype(COLUMNS).to_parquet(folder_of(folder) / TABLE, index=False)
    given: dict[str, Any] = {
        "fingerprint": text_digest([corpus_fingerprint, *splits]),
        "corpus_fingerprint": corpus_fingerprint,
        "protocol": "grouped",
        "fold": None,
        "seed": 0,
        "leaky": False,
        "leak_reason": None,
        "counts": {name: list(splits).count(name) for name in (*SPLITS, "unused")},
        "code_version": "test",
    }
    SplitDocument(**(given | fields)).write(folder)


def ingest_and_split(source: Path | str, settings: CorpusSettings, out: Path) -> Path:
    """The corpus of a source at `out`, and its split where `split_of` says."""
    ingest(str(source), resolve(str(source), settings.genres), settings.ingest(), out)
    split(out, settings.split(), split_of(out))
    return out


def folder_of(folder: Path) -> Path:
    """The folder, created where missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def tones(
    genres: tuple[str, ...], per_genre: int = 4, seconds: float = 2.5, rate: int = 16_000
) -> list[Clip]:
    """Clips that differ in pitch by genre: of four, two to train, one to validate, one to test."""
    rng = np.random.default_rng(0)
    splits = ("train", "validation", "test", "train")
    clips: list[Clip] = []
    time = np.arange(round(seconds * rate)) / rate
    for number, genre in enumerate(genres):
        for index in range(per_genre):
            tone = 0.3 * np.sin(2 * np.pi * 220 * 2**number * time * rng.uniform(0.97, 1.03))
            samples = tone + rng.normal(0, 0.02, len(time))
            clips.append((genre, splits[index % 4], samples.astype(np.float32), rate))
    return clips
