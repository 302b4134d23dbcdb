"""The `linear` family: logistic regression on a frozen backbone's embeddings, or on the 57 descriptors."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genreflow import backbones
from genreflow.core import progress
from genreflow.core.documents import Frozen, InputSpec, ModelDocument, Representation
from genreflow.core.errors import HOW_TO_INSTALL_TRAINING, ModelError, SettingsError, TrainingError
from genreflow.core.openvino import convert_module, import_openvino, save_model
from genreflow.fitting.calibration import ClipMetrics
from genreflow.fitting.contract import Family, FamilySettings, FitContext, FitResult, Predict

if TYPE_CHECKING:
    import pandas
    from torch import nn

    from genreflow.backbones.transformers.settings import BackboneSettings

STEP = "fine_tune"
WEIGHTS_FILE, CONFIG_FILE, BACKBONE_FOLDER = "model.safetensors", "config.json", "backbone"
ARCHITECTURE = "linear/1"
"""Changes whenever older files no longer fit."""
DESCRIPTORS = "descriptors"
DESCRIPTOR_WINDOW_SECONDS = 10.0
MUSICNN = "musicnn"
NAMED: dict[str, frozenset[str]] = {
    MUSICNN: frozenset({"hop_seconds"}),
    DESCRIPTORS: frozenset({"window_seconds", "hop_seconds"}),
}
"""Backbones that are no checkpoint of transformers, and the settings that apply to each."""
FOLDS = 5
"""Of cross-validation, at most."""
LEAST_GROUPS = 3
"""Artists or recordings of a genre for its clips to be calibrated with: a genre of one artist is left without
training clips, and its clips held out one by one are easier than a new artist's."""
ABSENT_LOGIT = -30.0
"""Of a genre without a training clip: a probability of zero in float32's eyes, and finite."""


class LinearSettings(FamilySettings):
    """Logistic regression on embeddings of a frozen backbone."""

    backbone: str = MUSICNN
    """`musicnn` (pretrained on the Million Song Dataset), `descriptors` (57 of librosa's, no network), or a
    Hugging Face encoder: a hub id or a folder."""
    revision: str | None = None
    """Commit, branch or tag of a hub id; the main branch where None."""
    window_seconds: float | None = Field(default=None, gt=0)
    """None is 10 s for descriptors and waveforms; 30 s for Whisper and 10.24 s for AST, as they were trained.
    musicnn's is always 2.992 s."""
    hop_seconds: float | None = Field(default=None, gt=0)
    """From one window to the next; None is the window's length."""
    normalise: bool | None = None
    """Waveform encoders: zero mean, unit variance for every window; None is the extractor's own choice."""
    layers: Literal["last", "weighted", "inner"] | tuple[int, ...] = "inner"
    """Of a Hugging Face encoder, the hidden states that are pooled, side by side: see family `encoder`."""
    normalise_layers: bool = False
    """Layer norm, without parameters, of every hidden state before pooling."""
    pooling: Literal["mean", "mean_std"] = "mean_std"
    """Over the frames of a segment."""
    segments: int = Field(default=6, ge=1)
    """The number of equal segments of a window that are pooled and classified on their own; the window's
    logits are the mean of their log-probabilities."""


class LinearTraining(Frozen):
    """How logistic regression is fitted (what `--set training.…` reaches)."""

    C: float = Field(default=0.1, gt=0)
    """Inverse strength of the L2 penalty on standardised features. Each clip counts as one sample."""
    max_iter: int = Field(default=3000, ge=1)
    """Most iterations of the solver (L-BFGS)."""
    rows: Literal["clips", "windows"] = "clips"
    """What a training row is: the mean embedding of a clip, or each window (of several segments, each
    segment), weighted so that all clips count the same."""
    class_weights: bool = False
    """Weigh genres by the inverse of their number of training clips."""
    calibrate: bool = True
    """Fit the softmax temperature by cross-validation on the training clips, artists and recordings apart."""
    seed: int = Field(default=42, ge=0)
    """Of the folds of cross-validation; the fit itself has no randomness."""


@dataclass(frozen=True)
class Affine:
    """Standardisation and logistic regression as one layer: logits = features · weightᵀ + bias."""

    weight: NDArray[np.float32]
    """(genres, features)"""
    bias: NDArray[np.float32]
    """(genres,)"""

    def window_logits(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """(windows, segments, features) to (windows, genres): of segments, the mean log-probability."""
        logits = embeddings @ self.weight.T + self.bias
        if logits.shape[1] == 1:
            first: NDArray[np.float32] = logits[:, 0]
            return first
        from scipy.special import log_softmax

        mean: NDArray[np.float32] = log_softmax(logits, axis=-1).mean(axis=1)
        return mean


class Linear(Family):
    """Logistic regression (scikit-learn) on the embeddings of a frozen backbone; fitted in seconds."""

    name: ClassVar[str] = "linear"
    title: ClassVar[str] = "logistic regression on a frozen backbone's embeddings, or on audio descriptors"
    settings_type: ClassVar[type[FamilySettings]] = LinearSettings
    training_type: ClassVar[type[Frozen]] = LinearTraining
    named_backbones: ClassVar[tuple[str, ...]] = tuple(NAMED)
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "`model.backbone` `musicnn`": {"backbone": MUSICNN},
        "`model.backbone` `descriptors`": {"backbone": DESCRIPTORS},
        "`model.backbone` a Hugging Face encoder": {"backbone": "ntu-spml/distilhubert"},
    }

    def representation(self, settings: LinearSettings) -> Representation:
        _check(settings)
        if settings.backbone == DESCRIPTORS:
            from genreflow.features.descriptors import SAMPLE_RATE

            seconds = settings.window_seconds or DESCRIPTOR_WINDOW_SECONDS
            spec = InputSpec(
                sample_rate=SAMPLE_RATE,
                window_seconds=seconds,
                hop_seconds=settings.hop_seconds or seconds,
                extend="repeat",
                representation=DESCRIPTORS,
            )
            return Representation(kind="none", input_spec=spec)
        if settings.backbone == MUSICNN:
            from genreflow.backbones.musicnn.stage import represent as represent_musicnn

            return represent_musicnn(settings.hop_seconds)
        from genreflow.backbones.transformers.stage import represent

        return represent(_encoder(settings), "pooled")

    def pinned(self, settings: LinearSettings) -> LinearSettings:
        """The settings with the commit of a hub id as their revision."""
        if settings.backbone in NAMED:
            return settings
        from genreflow.backbones.transformers import checkpoint

        revision = checkpoint.pinned(_encoder(settings)).revision
        return settings.model_copy(update={"revision": revision})

    def prepare(self, settings: LinearSettings) -> None:
        """Fetch musicnn's weights where they are not on this machine; see `genreflow weights fetch`."""
        if settings.backbone == MUSICNN:
            from genreflow.backbones.musicnn import weights

            weights.load()

    def training_defaults(self, settings: LinearSettings) -> dict[str, Any]:
        return {"rows": "clips" if settings.backbone == MUSICNN else "windows"}

    def fit(self, context: FitContext) -> FitResult:
        """Fit on all training rows.

        Raises:
            TrainingError: features are not finite.
        """
        samples = _Samples.of(context)
        progress.report(STEP, f"fitting logistic regression on {samples.clips} clips")
        affine, iterations = _fit(samples, np.ones(len(samples.index), bool), context.training)
        held_out = _cross_validate(samples, context.training) if context.training.calibrate else None
        validation = _validate(affine, context)
        if context.on_log is not None:
            points = {"cv": held_out and held_out.figures, "eval": validation}
            figures = {
                f"{name}_{key}": value
                for name, found in points.items()
                for key, value in (found or {}).items()
            }
            context.on_log(iterations, figures)
        representation = context.features.document.representation
        _save(affine, representation, context.out)
        return FitResult(
            temperature=1.0 if held_out is None else held_out.temperature,
            calibration=None if held_out is None else held_out.words,
            training={
                "used_device": "cpu",
                "iterations": iterations,
                "cross_validation": held_out and held_out.figures,
                "validation": validation,
                "selection": "none: no setting is selected",
                "notes": [],
            },
        )

    def load(
        self,
        folder: Path,
        settings: LinearSettings,
        genres: tuple[str, ...],
        precision: Literal["f32", "bf16"] = "f32",
        device: str = "cpu",
    ) -> Predict:
        affine, config = _read(folder, genres)
        if config["kind"] == "none":
            return lambda inputs: affine.window_logits(inputs[:, None])
        module = _with_torch(folder, affine, config)
        import torch

        module = module.to(device)

        def predict(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
            autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")
            with torch.inference_mode(), autocast:
                logits = module(torch.from_numpy(inputs).to(device))
            return np.asarray(logits.float().cpu().numpy(), dtype=np.float32)

        return predict

    def export_openvino(
        self, folder: Path, document: ModelDocument, inputs: NDArray[np.float32], path: Path
    ) -> None:
        affine, config = _read(folder, document.genres)
        if config["kind"] == "none":
            save_model(_openvino_affine(affine), path)
        else:
            save_model(convert_module(_with_torch(folder, affine, config), inputs), path)

    def pretrained(self, settings: LinearSettings) -> str | None:
        return None if settings.backbone == DESCRIPTORS else settings.backbone

    def pretraining(self, settings: LinearSettings) -> str | None:
        if settings.backbone != MUSICNN:
            return None
        from genreflow.backbones.musicnn.stage import PRETRAINING

        return PRETRAINING


FAMILY = Linear()


def _encoder(settings: LinearSettings) -> "BackboneSettings":
    """The settings of a Hugging Face encoder."""
    from genreflow.backbones.transformers.settings import BackboneSettings

    return BackboneSettings.model_validate(settings.model_dump(exclude={"views"}))


def _check(settings: LinearSettings) -> None:
    """Refuse settings that the chosen backbone does not read."""
    applicable = NAMED.get(settings.backbone)
    if applicable is None:
        return
    for name, field in LinearSettings.model_fields.items():
        if name in ("backbone", "views") or name in applicable:
            continue
        if getattr(settings, name) != field.default:
            raise SettingsError(
                f"model.{name} does not apply to the backbone {settings.backbone}: leave it at its default."
            )


@dataclass(frozen=True)
class _Samples:
    """Training windows as embeddings, with the clip of each."""

    embeddings: NDArray[np.float32]
    """(windows, segments, features)"""
    index: "pandas.DataFrame"
    """A row a window: clip_id, label, group, view."""
    genres: int

    @classmethod
    def of(cls, context: FitContext) -> "_Samples":
        rows = context.features.rows("train")
        stored = context.features.array(rows)
        segments = stored.shape[1] if stored.ndim > 2 else 1
        embeddings = stored.reshape(len(stored), segments, -1)
        if not np.isfinite(embeddings).all():
            raise TrainingError("The features hold values that are not finite: extract them again.")
        columns = ["clip_id", "label", "group", "view"]
        index = context.features.index.iloc[rows][columns].reset_index(drop=True)
        return cls(embeddings, index, len(context.genres))

    @property
    def clips(self) -> int:
        return int(self.index["clip_id"].nunique())


def _fit(samples: _Samples, chosen: NDArray[np.bool_], training: LinearTraining) -> tuple[Affine, int]:
    """Standardise and fit on the chosen windows; the affine layer and the solver's iterations."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    index = samples.index[chosen].reset_index(drop=True)
    embeddings = samples.embeddings[chosen].astype(np.float64)
    if training.rows == "clips":
        keys = index.groupby(["clip_id", "view"], sort=False).ngroup().to_numpy()
        counts = np.bincount(keys)[:, None]
        features = np.zeros((len(counts), embeddings.shape[2]))
        np.add.at(features, keys, embeddings.mean(axis=1))
        features /= counts
        index = index.drop_duplicates(["clip_id", "view"])
    else:
        segments = embeddings.shape[1]
        features = embeddings.reshape(len(index) * segments, -1)
        index = index.loc[index.index.repeat(segments)]
    labels = index["label"].to_numpy(np.int64)
    weights = 1 / index.groupby("clip_id")["clip_id"].transform("size").to_numpy(np.float64)
    scaler = StandardScaler().fit(features, sample_weight=weights)
    model = LogisticRegression(
        C=training.C,
        max_iter=training.max_iter,
        class_weight="balanced" if training.class_weights else None,
    )
    # BLAS's threads spin while they wait for each other: beside busy programs one is 20 times as fast as two
    with threadpool_limits(1, user_api="blas"):
        model.fit(scaler.transform(features), labels, sample_weight=weights)
    coefficients, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn fits the second genre's log-odds alone
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    weight = np.zeros((samples.genres, features.shape[1]))
    bias = np.full(samples.genres, ABSENT_LOGIT)
    weight[model.classes_] = coefficients / scaler.scale_
    bias[model.classes_] = intercept - weight[model.classes_] @ scaler.mean_
    iterations = int(np.max(model.n_iter_))
    return Affine(weight.astype(np.float32), bias.astype(np.float32)), iterations


@dataclass(frozen=True)
class _HeldOut:
    """Predictions of training clips by models fitted without their artist and recording."""

    temperature: float
    folds: int
    apart: str
    """What is never on both sides of a fold, in words."""
    figures: dict[str, float]

    @property
    def words(self) -> str:
        return (
            f"{self.folds}-fold cross-validation of {self.figures['clips']:.0f} training clips, {self.apart}"
        )


def _cross_validate(samples: _Samples, training: LinearTraining) -> _HeldOut | None:
    """The temperature from out-of-fold predictions; None where no clip can be held out.

    Clips of genres with fewer than `LEAST_GROUPS` groups are held out one by one and not calibrated with,
    unless there are no others.
    """
    clips = samples.index[samples.index["view"] == 0].drop_duplicates("clip_id")
    per_genre = clips.groupby("label")["group"].transform("nunique")
    grouped, apart = per_genre >= LEAST_GROUPS, "artists and recordings apart"
    if not grouped.any():
        grouped, apart = per_genre > 0, f"by clip: no genre has {LEAST_GROUPS} artists"
        groups = clips["clip_id"]
    else:
        groups = clips["group"].astype("str").where(grouped, clips["clip_id"])
    folds = min(FOLDS, int(groups.groupby(clips["label"]).nunique().max()))
    if folds < 2:
        return None
    fold_of = dict(zip(clips["clip_id"], _folds(clips["label"], groups, folds, training.seed), strict=True))
    fold = samples.index["clip_id"].map(fold_of).to_numpy()
    clean = (samples.index["view"] == 0).to_numpy()
    labels = samples.index["label"].to_numpy()
    counted = samples.index["clip_id"].isin(clips.loc[grouped, "clip_id"]).to_numpy() & clean
    logits = np.zeros((len(labels), samples.genres), np.float32)
    for number in range(folds):
        progress.report(STEP, "cross-validating", done=number, total=folds)
        rest = fold != number
        if len(np.unique(labels[rest])) < 2:
            return None
        counted &= rest | np.isin(labels, labels[rest])
        out = ~rest & clean
        logits[out] = _fit(samples, rest, training)[0].window_logits(samples.embeddings[out])
    if not counted.any():
        return None
    metrics = ClipMetrics.of(samples.index[counted])
    temperature = metrics.temperature(logits[counted])
    log_probabilities = metrics.log_probabilities(logits[counted], temperature)
    figures = {
        "clips": float(len(metrics.clip_labels)),
        "accuracy": float((log_probabilities.argmax(axis=1) == metrics.clip_labels).mean()),
        "mean_confidence": float(np.exp(log_probabilities.max(axis=1)).mean()),
        "loss": float(metrics.negative_log_likelihood(logits[counted], temperature).mean()),
    }
    progress.report(
        STEP,
        f"cross-validated on {figures['clips']:.0f} clips, {apart}: "
        f"accuracy {figures['accuracy']:.3f}, mean confidence {figures['mean_confidence']:.3f} "
        f"at temperature {temperature:.2f}",
    )
    return _HeldOut(temperature, folds, apart, figures)


def _folds(labels: "pandas.Series", groups: "pandas.Series", folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each clip: whole groups, genres spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    found = np.zeros(len(labels), np.int64)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # a genre with fewer clips than folds is expected: its clips lie in some of them
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, out) in enumerate(splitter.split(labels, labels, groups)):
            found[out] = number
    return found


def _validate(affine: Affine, context: FitContext) -> dict[str, float] | None:
    """Clip-level figures of the validation clips, at temperature 1; None where there are none."""
    features = context.features
    rows = features.rows("validation", view=0)
    if not len(rows):
        return None
    stored = features.array(rows)
    embeddings = stored.reshape(len(stored), stored.shape[1] if stored.ndim > 2 else 1, -1)
    metrics = ClipMetrics.of(features.index.iloc[rows])
    log_probabilities = metrics.log_probabilities(affine.window_logits(embeddings))
    return {
        "accuracy": float((log_probabilities.argmax(axis=1) == metrics.clip_labels).mean()),
        "loss": float(-log_probabilities[np.arange(len(log_probabilities)), metrics.clip_labels].mean()),
    }


def _save(affine: Affine, representation: Representation, folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": affine.weight, "bias": affine.bias}, folder / WEIGHTS_FILE)
    kind = "none" if representation.stage == "inputs" else representation.kind
    config = {"architecture": ARCHITECTURE, "kind": kind, "parameters": representation.parameters}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if kind != "none":
        backbones.save_stage(representation, folder / BACKBONE_FOLDER)


def _read(folder: Path, genres: tuple[str, ...]) -> tuple[Affine, dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        config = json.loads((folder / CONFIG_FILE).read_text())
        architecture = config["architecture"]
        tensors = load_file(folder / WEIGHTS_FILE)
        affine = Affine(tensors["weight"], tensors["bias"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(
            f"{folder} holds no readable linear model ({CONFIG_FILE}, {WEIGHTS_FILE}): {error}"
        ) from error
    if architecture != ARCHITECTURE:
        raise ModelError(
            f"{folder} holds {architecture}, and this version reads {ARCHITECTURE}: train it anew."
        )
    if affine.weight.shape[0] != len(genres) or affine.bias.shape != (len(genres),):
        raise ModelError(
            f"The weights in {folder} are of {len(affine.bias)} genres, and its document has {len(genres)}."
        )
    return affine, config


def _with_torch(folder: Path, affine: Affine, config: dict[str, Any]) -> "nn.Module":
    """Backbone and affine layer as one module, (batch, *input shape) to logits (batch, genres)."""
    try:
        import torch
        from torch import nn
    except ImportError as error:
        raise ModelError(
            f"{folder} needs PyTorch, which is not installed here ({error}): {HOW_TO_INSTALL_TRAINING}, or "
            "package the model for OpenVINO."
        ) from error

    class LinearClassifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbones.load_module(
                config["kind"], config["parameters"], folder / BACKBONE_FOLDER
            )
            self.linear = nn.Linear(affine.weight.shape[1], affine.weight.shape[0])
            self.linear.weight = nn.Parameter(torch.from_numpy(affine.weight))
            self.linear.bias = nn.Parameter(torch.from_numpy(affine.bias))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            embeddings: torch.Tensor = self.backbone(inputs)
            if embeddings.ndim == 2:
                logits: torch.Tensor = self.linear(embeddings)
                return logits
            by_segment = self.linear(embeddings.flatten(2))
            if by_segment.shape[1] == 1:
                return by_segment[:, 0]
            return nn.functional.log_softmax(by_segment, dim=-1).mean(dim=1)

    return LinearClassifier().eval().requires_grad_(False)


def _openvino_affine(affine: Affine) -> Any:
    """The affine layer alone as an OpenVINO model, made without torch."""
    openvino = import_openvino()
    from openvino import opset13

    inputs = opset13.parameter([-1, affine.weight.shape[1]], np.float32, name="inputs")
    product = opset13.matmul(inputs, opset13.constant(affine.weight), False, True)
    logits = opset13.add(product, opset13.constant(affine.bias))
    return openvino.Model([logits], [inputs], "linear")
