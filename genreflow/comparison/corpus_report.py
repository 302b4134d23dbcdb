"""The corpus report: the 57 descriptors of clips and of chunks, as one self-contained page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genreflow.comparison import corpus_figures as drawn
from genreflow.comparison.study import Table
from genreflow.core import home
from genreflow.core.digests import code_version
from genreflow.evaluation.exploration import between_share
from genreflow.evaluation.figures import with_unit
from genreflow.evaluation.report import page_environment, pictured
from genreflow.features.descriptors import NAMES

TEMPLATE = "corpus_report.html.j2"
SHOWN = 9
"""Descriptors in box plots, those that differ most between genres."""
PAIRS = 12
"""Strongest correlations in the table."""
LOADINGS = 6
"""Descriptors that are named of a component."""
COMPONENTS = 3
NEIGHBOUR_ROWS = 4000
"""Rows, drawn evenly, whose nearest neighbour is looked for among all."""


@dataclass(frozen=True)
class Column:
    """One descriptor over all rows."""

    name: str
    mean: float
    deviation: float
    smallest: float
    median: float
    largest: float
    between_genres: float
    """Share of the variance that lies between genres, 0 to 1."""
    between_clips: float
    """Share of the variance that lies between clips; 1 where a row is a clip."""


@dataclass(frozen=True)
class Description:
    """What a table of descriptors is like."""

    length: str
    rows: int
    clips: int
    columns: tuple[Column, ...]
    correlation: NDArray[np.float64]
    """(57, 57)"""
    pairs: tuple[tuple[str, str, float], ...]
    """Descriptors that are correlated most."""
    explained: NDArray[np.float64]
    """Share of the variance of each principal component of standardised descriptors."""
    points: NDArray[np.float64]
    """(rows, components)"""
    loadings: tuple[tuple[tuple[str, float], ...], ...]
    """Of each of the first components, the descriptors that weigh most."""
    same_clip: float | None
    """Share of rows whose nearest neighbour is another row of their own clip; None where a row is a clip."""
    same_genre: float
    """Share of rows whose nearest neighbour of another clip has their genre."""


def describe(table: Table) -> Description:
    """Distributions, correlation, principal components and neighbours of a table's rows."""
    values = table.features.astype(np.float64)
    deviations = values.std(axis=0)
    standard = (values - values.mean(axis=0)) / np.where(deviations > 0, deviations, 1)
    correlation = standard.T @ standard / len(standard)
    _, singular, directions = np.linalg.svd(standard, full_matrices=False)
    explained = singular**2 / max(float((singular**2).sum()), np.finfo(float).tiny)
    same_clip, same_genre = _neighbours(table, standard)
    labels, clips = table.labels.astype(str), table.clips.astype(str)
    columns = tuple(
        Column(
            name=name,
            mean=float(values[:, place].mean()),
            deviation=float(deviations[place]),
            smallest=float(values[:, place].min()),
            median=float(np.median(values[:, place])),
            largest=float(values[:, place].max()),
            between_genres=between_share(values[:, place], labels),
            between_clips=between_share(values[:, place], clips),
        )
        for place, name in enumerate(NAMES)
    )
    first, second = np.triu_indices(len(NAMES), 1)
    strongest = np.argsort(-np.abs(correlation[first, second]), kind="stable")[:PAIRS]
    return Description(
        length=table.length,
        rows=len(values),
        clips=len(np.unique(table.clips)),
        columns=columns,
        correlation=correlation,
        pairs=tuple(
            (NAMES[first[one]], NAMES[second[one]], float(correlation[first[one], second[one]]))
            for one in strongest
        ),
        explained=explained,
        points=standard @ directions[:COMPONENTS].T,
        loadings=tuple(_loadings(direction) for direction in directions[:COMPONENTS]),
        same_clip=same_clip,
        same_genre=same_genre,
    )


def _loadings(direction: NDArray[np.float64]) -> tuple[tuple[str, float], ...]:
    heaviest = np.argsort(-np.abs(direction), kind="stable")[:LOADINGS]
    return tuple((NAMES[place], float(direction[place])) for place in heaviest)


def _neighbours(table: Table, standard: NDArray[np.float64]) -> tuple[float | None, float]:
    """Shares of rows whose nearest is of their clip, and whose nearest of another clip is of their genre."""
    chosen = np.unique(np.linspace(0, len(standard) - 1, min(len(standard), NEIGHBOUR_ROWS)).astype(int))
    several = len(np.unique(table.clips)) < len(standard)
    lengths = np.einsum("nf,nf->n", standard, standard)
    of_clip, of_genre = 0, 0
    for rows in np.array_split(chosen, max(1, len(chosen) // 200)):
        distances = lengths[None] - 2 * standard[rows] @ standard.T
        distances[np.arange(len(rows)), rows] = np.inf
        of_clip += int((table.clips[distances.argmin(axis=1)] == table.clips[rows]).sum())
        distances[table.clips[rows][:, None] == table.clips[None]] = np.inf
        of_genre += int((table.labels[distances.argmin(axis=1)] == table.labels[rows]).sum())
    return of_clip / len(chosen) if several else None, of_genre / len(chosen)


def write_corpus_report(tables: Sequence[Table], source: str, path: Path) -> None:
    """Write the page; everything in it is inline.

    Raises:
        GenreflowError: the file cannot be written.
    """
    environment = page_environment(Path(__file__).parent)
    environment.filters |= {"number": _number, "words": with_unit}
    parts = []
    for table in tables:
        found = describe(table)
        ranked = sorted(range(len(NAMES)), key=lambda place: -found.columns[place].between_genres)
        parts.append(
            {
                "found": found,
                "distributions": pictured(
                    drawn.distributions(table.features, table.labels, table.genres, NAMES, ranked[:SHOWN])
                ),
                "correlation": pictured(drawn.correlation(found.correlation, NAMES)),
                "components": pictured(
                    drawn.components(found.points, table.labels, table.genres, found.explained)
                ),
                "ranked": [found.columns[place] for place in ranked],
                "for_90": int(np.searchsorted(np.cumsum(found.explained), 0.9)) + 1,
            }
        )
    counts = tables[0].manifest["genre"].value_counts()
    page = environment.get_template(TEMPLATE).render(
        source=source,
        parts=parts,
        counts=[(genre, int(counts.get(genre, 0))) for genre in tables[0].genres],
        artists=int(tables[0].manifest["artist"].nunique()),
        code_version=code_version(),
        fingerprints=[(table.length, table.fingerprint) for table in tables],
    )
    with home.writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page)


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.3e}"
