"""The `shallow` family: six classifiers of scikit-learn and XGBoost on the 57 descriptors.

A row is a window's descriptors: chunks of 3 s by default, or whole clips (`model.window_seconds=30`).
Parameters are searched by cross-validation on the training clips, artists and recordings on one side.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genreflow.core import progress
from genreflow.core.digests import code_digest, text_digest
from genreflow.core.documents import Frozen, InputSpec, ModelDocument, Representation
from genreflow.core.errors import TrainingError
from genreflow.extraction import Features
from genreflow.families.shallow import estimators, trials
from genreflow.families.shallow.estimators import ClassifierName
from genreflow.families.shallow.search import (
    Found,
    Rows,
    Search,
    check_neighbours,
    clip_score,
    fit,
    folds_of,
    one_thread,
    search,
)
from genreflow.fitting.calibration import ClipMetrics
from genreflow.fitting.contract import (
    RUN_SETTINGS,
    Family,
    FamilySettings,
    FitContext,
    FitResult,
    Predict,
)
from genreflow.training.checkpoint_uri import CheckpointUri

STEP = "fine_tune"


class ShallowSettings(FamilySettings):
    """A classifier on descriptors of windows."""

    classifier: ClassifierName = "svm"
    """`svm` (RBF kernel), `logistic_regression`, `random_forest`, `decision_tree`, `xgboost` or `knn`."""
    window_seconds: float = Field(default=3.0, gt=0)
    """3 cuts a clip of 30 s into ten chunks; 30 describes it as a whole."""
    hop_seconds: float | None = Field(default=None, gt=0)
    """From one window to the next; None is the window's length."""


class ShallowTraining(Frozen):
    """How the classifier's parameters are found."""

    search: Search = "grid"
    """`grid` tries a fixed grid, `bayesian` (Optuna's TPE) draws `trials` from a wider range, `none` takes
    the defaults. What is tried is measured by cross-validation on the training clips."""
    trials: int = Field(default=20, ge=1)
    """Of a Bayesian search."""
    folds: int = Field(default=5, ge=2)
    """Of cross-validation, at most; clips of one artist or one recording lie in one fold."""
    parameters: dict[str, int | float | str] = Field(default_factory=dict)
    """The classifier's own, such as `{n_neighbors: 7}`; what is given here is not searched."""
    checkpoint_uri: CheckpointUri = None
    """Folder (path or file://) under which a search's trials lie, or s3://BUCKET/PREFIX, to which they are
    mirrored from the state folder's `searches`; those alone where None."""
    calibrate: bool = True
    """Fit the softmax temperature on the predictions of cross-validation."""
    seed: int = Field(default=42, ge=0)
    """Of folds, of a Bayesian search and of trees."""


class Shallow(Family):
    """SVM, logistic regression, random forest, decision tree, XGBoost or k-NN on descriptors."""

    name: ClassVar[str] = "shallow"
    title: ClassVar[str] = "SVM, logistic regression, trees, XGBoost or k-NN on audio descriptors"
    settings_type: ClassVar[type[FamilySettings]] = ShallowSettings
    training_type: ClassVar[type[Frozen]] = ShallowTraining
    native_runtime: ClassVar[str] = "sklearn"
    exported_runtime: ClassVar[str] = "onnxruntime"

    def representation(self, settings: ShallowSettings) -> Representation:
        from genreflow.features.descriptors import SAMPLE_RATE

        spec = InputSpec(
            sample_rate=SAMPLE_RATE,
            window_seconds=settings.window_seconds,
            hop_seconds=settings.hop_seconds or settings.window_seconds,
            extend="repeat",
            representation="descriptors",
        )
        return Representation(kind="none", input_spec=spec)

    def training_defaults(self, settings: ShallowSettings) -> dict[str, Any]:
        return {}

    def fit(self, context: FitContext) -> FitResult:
        """Search the parameters, fit on all training rows, calibrate on the rows that were held out.

        Raises:
            SettingsError: the classifier has no such parameter.
            TrainingError: there are fewer rows of a genre than neighbours, or features are not finite.
        """
        name, training, genres = context.settings.classifier, context.training, context.genres
        rows = training_rows(context)
        estimators.check_parameters(name, training.parameters)
        if training.search == "none" or "n_neighbors" in training.parameters:
            check_neighbours(name, training.parameters, rows, genres)
        with trials.opened(_search_key(context), training.checkpoint_uri) as kept:
            result = self._fit(context, rows, kept)
            kept.clear()
        result.training["notes"] += kept.notes
        return result

    def _fit(self, context: FitContext, rows: Rows, kept: trials.Trials) -> FitResult:
        name, training, genres = context.settings.classifier, context.training, context.genres
        found, notes = _search(context, rows, kept)
        check_neighbours(name, found.parameters, rows, genres)
        progress.report(STEP, f"fitting {name} with {_words(found.parameters)} on {len(rows)} windows")
        with one_thread():
            fitted = fit(name, found.parameters, rows, training.seed)
        apart = "recordings apart" if notes else "artists and recordings apart"
        temperature, calibration, held_out = _calibrate(rows, found, training, apart)
        validation = _validate(context, lambda features: fitted.logits(features, len(genres)))
        if context.on_log is not None:
            points = {"cv": held_out, "eval": validation}
            figures = {
                f"{prefix}_{key}": value
                for prefix, values in points.items()
                for key, value in (values or {}).items()
            }
            context.on_log(found.trials, figures)
        from genreflow.families.shallow import files

        files.save(name, fitted, rows.features.shape[1], context.out)
        return FitResult(
            temperature=temperature,
            calibration=calibration,
            training={
                "used_device": "cpu",
                "found_parameters": found.parameters,
                "searched": found.trials,
                "cross_validation": held_out,
                "validation": validation,
                "selection": f"{training.search} search by cross-validation on training clips",
                "notes": notes,
            },
        )

    def load(
        self,
        folder: Path,
        settings: ShallowSettings,
        genres: tuple[str, ...],
        precision: Literal["f32", "bf16"] = "f32",
        device: str = "cpu",
    ) -> Predict:
        from genreflow.families.shallow import files

        fitted, _ = files.load(folder, genres)

        def predict(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
            return fitted.logits(inputs, len(genres)).astype(np.float32)

        return predict

    def export_onnx(
        self, folder: Path, document: ModelDocument, inputs: NDArray[np.float32], path: Path
    ) -> None:
        from genreflow.families.shallow import files, onnx_export

        fitted, config = files.load(folder, document.genres)
        onnx_export.export(fitted, config["classifier"], config["features"], len(document.genres), path)


FAMILY = Shallow()


def training_rows(context: FitContext) -> Rows:
    """The training windows of a fit, augmented copies among them.

    Raises:
        TrainingError: features are not finite.
    """
    rows = context.features.rows("train")
    features = context.features.array(rows)
    if not np.isfinite(features).all():
        raise TrainingError("The features hold values that are not finite: extract them again.")
    index = context.features.index.iloc[rows]
    return Rows(
        features,
        index["label"].to_numpy(np.int64),
        index["clip_id"].astype("category").cat.codes.to_numpy(np.int64),
        index["group"].to_numpy(np.int64),
        (index["view"] > 0).to_numpy(),
    )


def _search(context: FitContext, rows: Rows, kept: trials.Trials) -> tuple[Found, list[str]]:
    """Search by artists and recordings; by recordings alone where no genre has two artists, with a note."""
    training, notes = context.training, []
    if folds_of(rows, training.folds, training.seed).max(initial=-1) < 1:
        table = context.split.table.set_index("clip_id")["near_duplicate_cluster"]
        index = context.features.index.iloc[context.features.rows("train")]
        recordings = index["clip_id"].map(table).astype("category").cat.codes.to_numpy(np.int64)
        rows = replace(rows, groups=recordings)
        notes.append("No genre has two artists: clips of one artist lay on both sides of cross-validation.")
        progress.report(STEP, notes[-1])

    def on_trial(done: int, total: int, best: float) -> None:
        kept.push()
        progress.report(STEP, f"searching: best {best:.3f} of held-out clips", done=done, total=total)

    found = search(
        context.settings.classifier,
        rows,
        len(context.genres),
        training.search,
        folds=training.folds,
        trials=training.trials,
        seed=training.seed,
        storage=kept.file,
        fixed=training.parameters,
        on_trial=on_trial,
    )
    return found, notes


def _search_key(context: FitContext) -> str:
    """A digest of all that decides what a search finds: one of the same inputs goes on from its trials."""
    return text_digest(
        (
            context.features.document.fingerprint,
            context.split.document.fingerprint,
            context.settings.model_dump_json(),
            context.training.model_dump_json(exclude=set(RUN_SETTINGS)),
            code_digest(),
        )
    )[:32]


def _calibrate(
    rows: Rows, found: Found, training: ShallowTraining, apart: str
) -> tuple[float, str | None, dict[str, float] | None]:
    """Temperature, on what it was fitted in words, and the figures of cross-validation."""
    known = np.isfinite(found.logits[:, 0])
    if not known.any():
        return 1.0, None, None
    _, clips = np.unique(rows.clips[known], return_inverse=True)
    metrics = ClipMetrics(clips.astype(np.int64), rows.labels[known])
    logits = found.logits[known].astype(np.float32)
    temperature = metrics.temperature(logits) if training.calibrate else 1.0
    log_probabilities = metrics.log_probabilities(logits, temperature)
    figures = {
        "clips": float(len(metrics.clip_labels)),
        "accuracy": clip_score(rows, found.logits),
        "mean_confidence": float(np.exp(log_probabilities.max(axis=1)).mean()),
        "loss": float(metrics.negative_log_likelihood(logits, temperature).mean()),
    }
    words = f"cross-validation of {figures['clips']:.0f} training clips, {apart}"
    progress.report(
        STEP,
        f"cross-validated on {figures['clips']:.0f} clips: accuracy {figures['accuracy']:.3f}, "
        f"mean confidence {figures['mean_confidence']:.3f} at temperature {temperature:.2f}",
    )
    return temperature, words if training.calibrate else None, figures


def _validate(context: FitContext, predict: Any) -> dict[str, float] | None:
    """Clip-level figures of the validation clips, at temperature 1; None where there are none."""
    features: Features = context.features
    rows = features.rows("validation", view=0)
    if not len(rows):
        return None
    metrics = ClipMetrics.of(features.index.iloc[rows])
    log_probabilities = metrics.log_probabilities(predict(features.array(rows)).astype(np.float32))
    return {
        "accuracy": float((log_probabilities.argmax(axis=1) == metrics.clip_labels).mean()),
        "loss": float(-log_probabilities[np.arange(len(log_probabilities)), metrics.clip_labels].mean()),
    }


def _words(parameters: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value if isinstance(value, str) else format(value, '.4g')}"
        for key, value in parameters.items()
    )
