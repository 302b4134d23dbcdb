"""Small corpora on disk, made from waveforms, for tests of what stands on a corpus."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genreflow.artifacts import CorpusDocument, text_digest
from genreflow.corpus.duplicates import near_pairs
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
        for number, (genre, split, samples, rate) in enumerate(clips):
            clip_id = f"{genre}.{number:05d}"
            writer.write(clip_id, rate, quantise(samples)[0])
            rows.append(
                {
                    "clip_id": clip_id,
                    "genre": genre,
                    "sha256": text_digest([clip_id, str(samples.tobytes())]),
                    "source": f"{genre}/{clip_id}.wav",
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
                    "split": split,
                    "fold": None,
                }
            )
    manifest = pd.DataFrame(rows).astype(MANIFEST_TYPES)
    manifest.to_parquet(folder / MANIFEST, index=False)
    near_pairs(manifest, []).to_parquet(folder / NEAR_DUPLICATES, index=False)
    pd.DataFrame(columns=list(QUARANTINE_COLUMNS)).to_parquet(folder / QUARANTINE, index=False)
    CorpusDocument(
        fingerprint=text_digest([row["sha256"] for row in rows]),
        source="test",
        source_fingerprint="test",
        synthetic=True,
        protocol="grouped",
        fold=None,
        seed=0,
        leaky=False,
        leak_reason=None,
        genres=genres,
        counts=manifest["split"].value_counts().to_dict(),
        quarantined=0,
        duplicate_clusters=0,
        code_version="test",
    ).write(folder)
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
