"""How far candidates agree on the same clips, and what the mean of the best few would predict."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from genreflow.core.documents import Frozen
from genreflow.evaluation.predictions import probability_columns


class Agreement(Frozen):
    """Shares of the test clips, for every pair of candidates in the order of `names`."""

    names: tuple[str, ...]
    same: tuple[tuple[float, ...], ...]
    """With the same predicted genre; 1 on the diagonal."""
    either_right: tuple[tuple[float, ...], ...]
    """That at least one of the two predicts correctly; a candidate's accuracy on the diagonal."""


def agreement(clips: Mapping[str, pd.DataFrame]) -> Agreement:
    """Of tables with `clip_id`, `genre` and `predicted`, by candidate.

    Raises:
        ValueError: the tables are of different clips.
    """
    ordered = {name: _ordered(table) for name, table in clips.items()}
    tables = list(ordered.values())
    if any(list(table["clip_id"]) != list(tables[0]["clip_id"]) for table in tables):
        raise ValueError("Candidates are compared on the same clips, and these tables are of different ones.")
    predicted = [table["predicted"].to_numpy() for table in tables]
    right = [(table["predicted"] == table["genre"]).to_numpy() for table in tables]
    return Agreement(
        names=tuple(clips),
        same=tuple(tuple(float(np.mean(a == b)) for b in predicted) for a in predicted),
        either_right=tuple(tuple(float(np.mean(a | b)) for b in right) for a in right),
    )


def ensemble(clips: Sequence[pd.DataFrame], genres: Sequence[str]) -> pd.DataFrame:
    """Clip rows of the mean of several candidates' clip probabilities, laid out as the first table's."""
    tables = [_ordered(table) for table in clips]
    columns = probability_columns(genres)
    mean = np.mean([table[columns].to_numpy(float) for table in tables], axis=0)
    answers = [genres[label] for label in mean.argmax(axis=1)]
    return tables[0].assign(predicted=answers, **{name: mean[:, at] for at, name in enumerate(columns)})


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values("clip_id").reset_index(drop=True)
