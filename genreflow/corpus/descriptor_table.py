"""A table of descriptors without audio, such as the published `features_30_sec.csv`: read and checked."""

import shlex
from pathlib import Path

import numpy as np
import pandas as pd

from genreflow.core.errors import CorpusError, one_line
from genreflow.core.genres import genre_named
from genreflow.corpus import gtzan
from genreflow.corpus.sources.base import check_counts, genres_hint, listed
from genreflow.corpus.sources.table import has_descriptors

NAME, LENGTH, LABEL = "filename", "length", "label"
RATE = 22_050
"""Hertz of `length`, which is in samples."""


def read_descriptor_table(
    table: Path, genres: tuple[str, ...], names: tuple[str, ...]
) -> tuple[pd.DataFrame, np.ndarray]:
    """Read a table of descriptors (CSV): a row a clip.

    Args:
        genres: a row whose label is none of them is refused.
        names: of the descriptors, in the order of the result.

    Returns:
        A manifest: clip_id, genre, seconds, artist (GTZAN's clips alone), duplicate_cluster and
        near_duplicate_cluster (rows with equal descriptors); and the descriptors (n, len(names)) float32.

    Raises:
        CorpusError: the table cannot be read, is of another kind, columns are missing, values are no numbers,
            a label is no genre or a genre has fewer than two clips.
    """
    try:
        found = pd.read_csv(table, encoding="utf-8-sig", dtype={NAME: str, LABEL: str}, skipinitialspace=True)
    except FileNotFoundError:
        raise CorpusError(f"There is no table {table}.") from None
    except OSError as error:
        raise CorpusError(f"{table} cannot be read: {error.strerror}.") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise CorpusError(f"{table} is not readable as CSV in UTF-8: {one_line(error)}.") from error
    missing = [name for name in (NAME, LABEL, *names) if name not in found.columns]
    there = [str(name) for name in found.columns]
    if missing and not has_descriptors(there):
        raise CorpusError(
            f"{table} is no table of descriptors: it has the columns {listed(there)}, and a table of "
            f"descriptors has {NAME}, {LABEL} and those {len(names)} of features_30_sec.csv. Where it names "
            f"audio files: --source {shlex.quote(f'{table}?path=COLUMN&label=COLUMN')}."
        )
    if missing:
        raise CorpusError(
            f"{table} is no complete table of descriptors: it lacks the columns {listed(missing)}. It needs "
            f"{NAME}, {LABEL} and the {len(names)} descriptors of features_30_sec.csv."
        )
    if found.empty:
        raise CorpusError(f"{table} has no rows.")
    values = found[list(names)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        line, column = (int(place[0]) for place in np.nonzero(bad))
        raise CorpusError(
            f"{table}, line {line + 2}: {names[column]} is no finite number; {int(bad.any(axis=1).sum())} of "
            f"{len(found)} rows have such values. Remove them, or compute the descriptors anew."
        )
    labels = found[LABEL].fillna("")
    matched = [genre_named(label, genres) for label in labels]
    unknown = sorted({label for label, genre in zip(labels, matched, strict=True) if genre is None})
    if unknown:
        raise CorpusError(
            f"{table} has the labels {listed(unknown)}, which are not among the genres {', '.join(genres)}."
            f"{genres_hint(unknown)}"
        )
    clip_ids = found[NAME].fillna("").str.replace(r"\.\w{1,5}$", "", regex=True)
    repeated = clip_ids[clip_ids.duplicated()]
    if len(repeated):
        raise CorpusError(
            f"{table} has {repeated.iloc[0]} in {int((clip_ids == repeated.iloc[0]).sum())} rows: a row is a "
            "whole clip, each with a name of its own. Chunks of a clip are cut from its audio."
        )
    counts = pd.Series(matched).value_counts()
    check_counts({genre: int(counts.get(genre, 0)) for genre in genres}, str(table), "row")
    artists = gtzan.artists()
    alike = found.groupby(list(names), sort=False).ngroup().astype(str)
    seconds = found[LENGTH] / RATE if LENGTH in found.columns else 0.0
    manifest = pd.DataFrame(
        {
            "clip_id": clip_ids,
            "genre": matched,
            "seconds": seconds,
            "artist": [artists[clip][0] if clip in artists else None for clip in clip_ids],
            "duplicate_cluster": alike,
            "near_duplicate_cluster": alike,
        }
    )
    return manifest, values.astype(np.float32)
