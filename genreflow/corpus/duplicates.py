"""Exact duplicates: clips whose decoded audio is the same sample for sample, whatever file it came in."""

import hashlib

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def cluster_id(pcm: NDArray[np.int16], sample_rate: int) -> str:
    """sha256 over rate and samples: equal for duplicates, also across corpora."""
    digest = hashlib.sha256(f"{sample_rate}\n".encode())
    digest.update(np.ascontiguousarray(pcm, dtype="<i2").data)
    return digest.hexdigest()


def clusters(manifest: pd.DataFrame) -> list[pd.DataFrame]:
    """The clusters of two clips or more, each a part of the manifest, in the manifest's order."""
    repeated = manifest[manifest.duplicated("duplicate_cluster", keep=False)]
    return [part for _, part in repeated.groupby("duplicate_cluster", sort=False)]


def conflicts(manifest: pd.DataFrame) -> list[pd.DataFrame]:
    """Clusters whose clips carry different genres: the same audio under two labels."""
    return [part for part in clusters(manifest) if part["genre"].nunique() > 1]
