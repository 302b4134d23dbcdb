"""Train candidate: one family of a comparison, fitted, packaged and evaluated."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genreflow.core import progress
from genreflow.core.documents import SplitDocument
from genreflow.core.seals import seal_file
from genreflow.steps.evaluate import evaluate
from genreflow.steps.fine_tune import fine_tune
from genreflow.steps.package import package
from genreflow.steps.reporting import report_step

if TYPE_CHECKING:
    from genreflow.comparison.candidate import CandidateDocument

STEP = "train_candidate"


def train_candidate(
    corpus: Path,
    features: Path,
    split: Path,
    out: Path,
    settings: Mapping[str, Any],
    backbone: str,
    packaging: Mapping[str, Any],
    runtime: str = "auto",
    experiment: str = "genreflow",
    folds: int = 0,
) -> "CandidateDocument":
    """Fit a family, package it, evaluate it as it is served; predict what it is chosen by; measure it.

    One step of the pipeline, as each costs a Kubernetes workflow some 50 kB: as steps of their own, those of
    six families would not fit into one.

    Args:
        corpus: the corpus artifact's folder.
        features: the features artifact's folder.
        split: the split artifact's folder.
        out: the candidate artifact's folder; see `genreflow.comparison.candidate`.
        settings: the candidate's: its `name`, `family` (of `genreflow.families.families()`), `model` (the
            family's own settings) and `training` (of the family's `training_type`).
        backbone: from `resolve_candidates`.
        packaging: of `PackagingSettings`.
        runtime: the one to be served; `auto` is the fastest that passed parity.
        experiment: the MLflow experiment of the run that is opened here.
        folds: of a cross-validation over the clips outside the test split; 0 for none.

    Raises:
        SettingsError: the split leaves nothing to choose by, or no test clips; or it cannot be divided into
            so many folds.
    """
    from genreflow.comparison import candidate
    from genreflow.comparison.folds import cross_validate, fold_splits
    from genreflow.corpus.splitting import Split
    from genreflow.corpus.store import Corpus
    from genreflow.families import family as family_named
    from genreflow.fitting import run_settings

    inputs = {"corpus": corpus, "features": features, "split": split}
    with report_step(STEP, out, **inputs), progress.report_as(STEP):
        name, family = settings["name"], settings["family"]
        model, training = settings["model"], settings["training"]
        candidate.check_choosable(SplitDocument.read(split), folds)
        if folds:  # refused before the fit where they cannot be made
            fold_splits(Corpus.open(corpus), Split.open(split), folds)
        fitted = out / "fitted"
        document = fine_tune(
            features,
            split,
            fitted,
            family,
            model,
            training,
            experiment,
            corpus=corpus,
            backbone=backbone,
            child_run=True,  # the platform's run is the comparison's
        )
        packaged, evaluation = out / candidate.PACKAGED, out / candidate.EVALUATION
        package(fitted, corpus, split, packaged, packaging, runtime)
        shutil.rmtree(fitted)  # the packaged model has its files
        evaluate(packaged, corpus, split, evaluation)
        for folder in (fitted, packaged, evaluation):
            seal_file(folder).unlink()  # the candidate has one of its own
        held_out = None
        if folds:
            kind = family_named(family)
            given = {key: value for key, value in training.items() if key not in run_settings(kind)}
            held_out = cross_validate(kind, document.settings, given, corpus, features, split, folds, STEP)
        return candidate.describe(
            name,
            out,
            corpus,
            split,
            document.run_id,
            None if held_out is None else held_out.predictions,
            folds,
            None if held_out is None else held_out.leak_reason,
            STEP,
        )
