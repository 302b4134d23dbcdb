"""From features and a split to a fitted model with its document, whatever its family."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from genreflow.core import home
from genreflow.core.digests import code_version
from genreflow.core.documents import ModelDocument, Representation
from genreflow.core.errors import SettingsError, TrainingError
from genreflow.corpus.splitting import Split
from genreflow.extraction import AugmentedViews, Features, augmented_views
from genreflow.fitting.contract import Family, FitContext, OnLog, training_settings

STEP = "fine_tune"


def open_context(
    features: Path,
    split: Path,
    out: Path,
    family: Family,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    on_log: OnLog | None = None,
    run_id: str | None = None,
    corpus: Path | None = None,
) -> FitContext:
    """Open features and split, and check that a fit of this family can begin; make its augmented views.

    Raises:
        SettingsError: a training setting does not exist or does not fit, or `views` has no corpus.
        TrainingError: there is nothing to learn from, or the features are of another representation.
    """
    rows, assigned = Features.open(features), Split.open(split)
    rows.assign(assigned)
    _check_learnable(rows.index.iloc[np.asarray(rows.rows("train", view=0), dtype=np.int64)])
    settings = family.settings(model)
    chosen = training_settings(family, settings, training)
    if family.representation(settings) != rows.document.representation:
        raise TrainingError(
            f"These features are not what {family.name} is trained on with these settings, or its backbone "
            f"{family.pretrained(settings)} has changed: extract them again."
        )
    if settings.views:
        rows.add_views(_views(rows.document.representation, split, corpus, settings.views, chosen))
    return FitContext(
        features=rows,
        split=assigned,
        split_folder=Path(split),
        corpus=corpus,
        genres=rows.document.genres,
        settings=settings,
        training=chosen,
        out=Path(out),
        on_log=on_log,
        run_id=run_id,
    )


def _views(
    representation: Representation, split: Path, corpus: Path | None, views: int, training: Any
) -> AugmentedViews:
    """Augmented copies of the training clips, made where they are missing.

    Raises:
        SettingsError: there is no corpus to make them of.
    """
    if corpus is None:
        raise SettingsError(f"model.views = {views} needs the corpus that the features were extracted from.")
    device = getattr(training, "device", "auto")
    return augmented_views(corpus, split, representation, views, home.views_folder(), device, step=STEP)


def fine_tune(
    features: Path,
    split: Path,
    out: Path,
    family: Family,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    on_log: OnLog | None = None,
    run_id: str | None = None,
    corpus: Path | None = None,
) -> ModelDocument:
    """Fit a family on features, and write the model into `out`.

    Args:
        features: a features artifact.
        split: a split of the same corpus.
        out: folder for the family's native files and `genreflow.json`.
        family: from `genreflow.families.family`.
        model: the family's settings; what is not given is its default.
        training: what differs from the defaults of the family's training settings.
        on_log: called with points of the curves (see the family's `fit`).
        run_id: the MLflow run that this training belongs to, kept in the document.
        corpus: the corpus artifact that features and split are of; read only where `views` is above 0.

    Raises:
        SettingsError: a training setting does not exist or does not fit, or `views` has no corpus.
        TrainingError: there is nothing to learn from, the fit diverged, or memory ran out.
    """
    context = open_context(features, split, out, family, model, training, on_log, run_id, corpus)
    return fit(family, context)


def fit(family: Family, context: FitContext) -> ModelDocument:
    """Fit a family in an opened context, and write the model into `context.out`.

    Raises:
        TrainingError: the fit diverged, or memory ran out.
    """
    began = time.monotonic()
    out = context.out
    out.mkdir(parents=True, exist_ok=True)
    result = family.fit(context)
    rows, document, parts = context.features, context.features.document, context.split.document
    train = rows.index.iloc[np.asarray(rows.rows("train"), dtype=np.int64)]
    validation = rows.index.iloc[np.asarray(rows.rows("validation", view=0), dtype=np.int64)]
    trained = ModelDocument(
        family=family.name,
        settings=context.settings.model_dump(mode="json"),
        genres=document.genres,
        input_spec=document.representation.input_spec,
        temperature=result.temperature,
        calibration=result.calibration,
        training={
            **context.training.model_dump(mode="json"),
            **result.training,
            "windows": len(train),
            "seconds": time.monotonic() - began,
        },
        pretrained=family.pretrained(context.settings),
        pretraining=family.pretraining(context.settings),
        synthetic=document.synthetic,
        train_clips=_clips(train),
        validation_clips=_clips(validation),
        corpus_fingerprint=document.corpus_fingerprint,
        features_fingerprint=document.fingerprint,
        split_fingerprint=parts.fingerprint,
        protocol=parts.protocol,
        fold=parts.fold,
        leaky=parts.leaky,
        leak_reason=parts.leak_reason,
        code_version=code_version(),
        run_id=context.run_id,
    )
    trained.write(out)
    return trained


def _check_learnable(train: pandas.DataFrame) -> None:
    """Raise TrainingError where training could learn nothing."""
    if train.empty:
        raise TrainingError(
            "There are no training windows in these features: every clip was left out or is in another "
            "split. Look at the corpus's quarantine and protocol."
        )
    genres = sorted(train["genre"].unique())
    if len(genres) == 1:
        raise TrainingError(
            f"All training clips are {genres[0]}: a classifier needs two genres at least. "
            "Add clips of other genres or choose another protocol."
        )


def _clips(index: pandas.DataFrame) -> dict[str, str]:
    """sha256 → duplicate cluster of the clips in some rows of an index."""
    clips = index.drop_duplicates("sha256").sort_values("sha256")
    return dict(zip(clips["sha256"], clips["duplicate_cluster"], strict=True))
