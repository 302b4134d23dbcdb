"""Cross-validation over the clips outside the test split: every clip predicted by a model of other folds."""

import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genreflow.core.digests import code_version
from genreflow.core.documents import SPLITS, SplitDocument
from genreflow.core.errors import SettingsError
from genreflow.core.progress import report
from genreflow.corpus import protocols
from genreflow.corpus.splitting import TABLE, Split, fingerprint
from genreflow.corpus.store import Corpus
from genreflow.evaluation.predictions import predict
from genreflow.fitting import Family, fine_tuning
from genreflow.inference.loading import load_classifier


@dataclass(frozen=True)
class HeldOut:
    """What cross-validation found."""

    predictions: pd.DataFrame
    """Rows of `predict`, every clip outside the test split once."""
    leak_reason: str | None
    """Why the figures are optimistic; None where artists and recordings never straddle the folds."""


def assign_folds(
    table: pd.DataFrame, groups: pd.Series, folds: int, seed: int
) -> tuple[pd.Series, str | None]:
    """A fold for every clip, whole artists and recordings at a time, genres spread evenly.

    A genre with fewer groups than folds would be missing from the training clips of a fold: its clips are
    held out one by one, in one fold those of one recording.

    Args:
        table: a row a clip: `clip_id`, `genre`, `near_duplicate_cluster`.
        groups: of each row; clips of one artist or one recording share one.

    Returns:
        Fold numbers from 0, and why figures over them are optimistic (None where they are not).

    Raises:
        SettingsError: there are fewer clips than folds in every genre.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    few = groups.groupby(table["genre"]).nunique() < folds
    by_clip = table["genre"].map(few)
    keys = ("group " + groups.astype("str")).where(~by_clip, "clip " + table["near_duplicate_cluster"])
    if keys.groupby(table["genre"]).nunique().max() < folds:
        raise SettingsError(
            f"--folds {folds} needs {folds} different recordings of a genre outside the test split, and no "
            "genre has so many: take fewer folds."
        )
    found = pd.Series(0, table.index)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # a genre with fewer clips than folds lies in some of them only
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, out) in enumerate(splitter.split(table, table["genre"], keys)):
            found.iloc[out] = number
    torn = found.groupby(groups).transform("nunique") > 1
    genres = sorted({str(genre) for genre in table.loc[torn, "genre"]})
    if not genres:
        return found, None
    return found, (
        f"Clips of the same artists lie in several folds in {', '.join(genres)}, as a genre of fewer than "
        f"{folds} artists is divided by clip: the same artists in training and among the held-out clips. "
        f"{protocols.OPTIMISTIC}"
    )


def fold_splits(corpus: Corpus, split: Split, folds: int) -> tuple[list[Split], str | None]:
    """For each fold a split whose test clips are the fold's and in which the test split's clips are unused.

    Where the standard split has validation clips, those of a fold are taken from its training clips, whole
    artists and recordings at a time.

    Returns:
        The splits, and why figures over them are optimistic (None where they are not).
    """
    genres = corpus.manifest.set_index("clip_id")["genre"]
    table = split.table.assign(genre=split.table["clip_id"].map(genres))
    inside = table["split"].isin(("train", "validation"))
    pool = table[inside]
    number, leak_reason = assign_folds(pool, split.groups()[inside], folds, split.document.seed)
    artists = pd.Series(protocols.artist_keys(corpus.manifest).to_numpy(), corpus.manifest["clip_id"])
    splits = []
    for fold in range(folds):
        parts = pd.Series(protocols.UNUSED, table.index)
        parts[inside] = np.where(number == fold, "test", "train")
        if split.document.counts["validation"]:
            artist = table["clip_id"].map(artists)
            parts = protocols.with_validation(table, parts, artist, split.document.seed)
        rows = table.drop(columns="genre").assign(split=parts, fold=pd.array([fold] * len(table), "Int32"))
        counts = Counter(rows["split"])
        document = SplitDocument(
            fingerprint=fingerprint(rows, split.document.corpus_fingerprint),
            corpus_fingerprint=split.document.corpus_fingerprint,
            protocol=split.document.protocol,
            fold=fold,
            seed=split.document.seed,
            leaky=split.document.leaky or leak_reason is not None,
            leak_reason=split.document.leak_reason or leak_reason,
            counts={name: counts[name] for name in (*SPLITS, protocols.UNUSED)},
            code_version=code_version(),
        )
        splits.append(Split(document, rows))
    return splits, leak_reason


def cross_validate(
    family: Family,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    corpus: Path,
    features: Path,
    split: Path,
    folds: int,
    step: str,
) -> HeldOut:
    """Fit a family once a fold, with the same settings, and predict the fold's clips from audio.

    Args:
        features: of every clip (not `resources.extract=split`, which depends on the split).
        folds: 2 or more.
        step: under whose name progress is reported.
    """
    opened, standard = Corpus.open(corpus), Split.open(split)
    tables = []
    splits, leak_reason = fold_splits(opened, standard, folds)
    for fold, parts in enumerate(splits):
        report(step, f"fold {fold + 1} of {folds}: training")
        with tempfile.TemporaryDirectory(prefix="genreflow-fold-") as scratch:
            place, fitted = Path(scratch) / "split", Path(scratch) / "model"
            place.mkdir()
            parts.document.write(place)
            parts.table.to_parquet(place / TABLE, index=False)
            fine_tuning.fine_tune(features, place, fitted, family, dict(model), dict(training), corpus=corpus)
            classifier = load_classifier(fitted)
            of_fold = opened.with_split(parts.document, parts.table)
            report(step, f"fold {fold + 1} of {folds}: predicting the held-out clips")
            tables.append(predict(classifier, of_fold, of_fold.rows("test"), step))
    return HeldOut(pd.concat(tables, ignore_index=True), leak_reason)
