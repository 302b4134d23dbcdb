"""Duplicates: clips with the same audio, sample for sample (exact), or with the same recording (near)."""

import hashlib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from genreflow.corpus.fingerprints import Match

NEAR_COLUMNS = ("clip_id", "other_clip_id", "offset_seconds", "similarity")
"""A pair of near duplicates: the other clip begins `offset_seconds` after the first one's beginning."""


def cluster_id(pcm: NDArray[np.int16], sample_rate: int) -> str:
    """sha256 over rate and samples: equal for exact duplicates, also across corpora."""
    digest = hashlib.sha256(f"{sample_rate}\n".encode())
    digest.update(np.ascontiguousarray(pcm, dtype="<i2").data)
    return digest.hexdigest()


def originals(manifest: pd.DataFrame) -> pd.DataFrame:
    """The first clip of every exact cluster, in the manifest's order: what is fingerprinted."""
    return manifest.drop_duplicates("duplicate_cluster")


def near_clusters(manifest: pd.DataFrame, matches: "Sequence[Match]") -> pd.Series:
    """Every clip's near cluster, by the smallest exact id among the clips that matches connect.

    A clip without near duplicates keeps its exact id. The name is the same in two corpora where the
    smallest member lies in both; which clips are joined is complete within a corpus only.

    Args:
        matches: between the rows of `originals(manifest)`, by number.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = originals(manifest)["duplicate_cluster"].to_numpy(str)
    links = coo_array(
        (
            np.ones(len(matches)),
            ([match.first for match in matches], [match.second for match in matches]),
        ),
        shape=(len(names), len(names)),
    )
    _, component = connected_components(links, directed=False)
    smallest = pd.Series(names).groupby(component).transform("min")
    return manifest["duplicate_cluster"].map(dict(zip(names, smallest, strict=True)))


def near_pairs(manifest: pd.DataFrame, matches: "Sequence[Match]") -> pd.DataFrame:
    """The matches by clip id: `NEAR_COLUMNS`, in the manifest's order."""
    ids = originals(manifest)["clip_id"].tolist()
    rows = [(ids[each.first], ids[each.second], each.offset_seconds, each.similarity) for each in matches]
    types = {"clip_id": "str", "other_clip_id": "str", "offset_seconds": "float64", "similarity": "float64"}
    return pd.DataFrame(rows, columns=list(NEAR_COLUMNS)).astype(types)


def clusters(manifest: pd.DataFrame, column: str = "duplicate_cluster") -> list[pd.DataFrame]:
    """The clusters of two clips or more, each a part of the manifest, in the manifest's order.

    Args:
        column: `duplicate_cluster` for exact duplicates, `near_duplicate_cluster` for these and near ones.
    """
    repeated = manifest[manifest.duplicated(column, keep=False)]
    return [part for _, part in repeated.groupby(column, sort=False)]


def seen_in_training(
    manifest: pd.DataFrame, sha256s: Collection[str], exact: Collection[str]
) -> NDArray[np.bool_]:
    """Which clips of a corpus were seen, given the files and exact clusters that were seen.

    By file, by exact duplicate, and by near duplicate wherever one clip of the near cluster was seen, in
    whatever split it lies.
    """
    known = manifest["sha256"].isin(sha256s) | manifest["duplicate_cluster"].isin(exact)
    near = manifest["near_duplicate_cluster"]
    result: NDArray[np.bool_] = near.isin(near[known]).to_numpy(bool)
    return result


def same_what(cluster: pd.DataFrame) -> str:
    """What the clips of a near cluster have in common: the `audio`, or only the `recording`."""
    return "audio" if cluster["duplicate_cluster"].nunique() == 1 else "recording"
