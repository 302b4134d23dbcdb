"""What every model family offers to extraction, fitting, packaging and prediction; it needs no torch."""

import difflib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from genreflow.core.documents import Frozen, InputSpec, ModelDocument, Representation
from genreflow.core.errors import ModelError, SettingsError

if TYPE_CHECKING:
    from genreflow.corpus.splitting import Split
    from genreflow.extraction import Features

TransformersForm = Literal["stock", "own_code"]
"""Whether transformers loads a model with its own code, or with code beside it that has to be trusted."""

OnLog = Callable[[int, dict[str, float]], None]
"""Called with the optimiser step and the figures of a point of the curves."""

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(n, *input shape) float32 → (n, genres) logits; their softmax is the probabilities before calibration."""


RUN_SETTINGS = ("checkpoint_uri", "checkpoint_seconds", "resume")
"""Training settings that say where and how a fit runs, and change nothing of its result."""
RUN_SETTINGS_VARIABLE = "GENREFLOW_RUN_SETTINGS"
"""In which a pipeline passes them on as JSON: as an argument they would enter the step's cache key."""


class FamilySettings(Frozen):
    """A family's own settings (what `--set model.…` reaches), all with defaults."""

    views: int = Field(default=0, ge=0)
    """Augmented copies of each training clip besides the clean one; made in the fit, and kept."""


@dataclass(frozen=True)
class FitContext:
    """All that a fit is given."""

    features: "Features"
    """With the split assigned: `features.index` has the columns `split` and `group`."""
    split: "Split"
    split_folder: Path
    corpus: Path | None
    """What features and split are of; None where augmented views need none."""
    genres: tuple[str, ...]
    """In the order of the logits."""
    settings: Any
    """Of the family's `settings_type`, checked."""
    training: Any
    """Of the family's `training_type`, checked and complete."""
    out: Path
    """The folder that gets the family's native files."""
    on_log: OnLog | None
    run_id: str | None
    """The MLflow run that the fit belongs to."""

    @property
    def stage(self) -> str:
        """What a row of the features is: `inputs`, or a backbone's frozen stage by its name."""
        return self.features.document.representation.stage


class FitResult(Frozen):
    """What a fit found, beside the files that it wrote."""

    temperature: float
    """Of the softmax; 1.0 where nothing was there to calibrate with."""
    calibration: str | None
    """What the temperature was fitted on, such as `validation clips`; None where it was not fitted."""
    training: dict[str, Any]
    """Facts for the model's document: epochs run, device, windows, notes."""


class Family(ABC):
    """One kind of model. Stateless: settings come in with every call.

    A family is one module or package in `genreflow/families` whose `FAMILY` is an instance, or one that an
    installed distribution names under the entry points `genreflow.families`. Command line, settings
    reference, profiles and documentation read its attributes. Its module imports torch in functions only.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    """What it is, in a few words."""
    settings_type: ClassVar[type[FamilySettings]]
    """Of the section `model`."""
    training_type: ClassVar[type[Frozen]]
    """Of the section `training`."""
    named_backbones: ClassVar[tuple[str, ...]] = ()
    """Values of the setting `backbone` that are neither a folder nor a hub id."""
    native_runtime: ClassVar[str] = "pytorch"
    """The backend (a name in `genreflow.inference.backends`) that runs the family's own files by `load`."""
    exported_runtime: ClassVar[str] = "openvino"
    """The backend that runs what the family is exported to: `openvino` or `onnxruntime`."""
    variants: ClassVar[dict[str, dict[str, Any]]] = {}
    """Settings with `training_defaults` of their own, by a description for the settings reference."""

    def settings(self, values: Mapping[str, Any]) -> Any:
        """This family's settings from values such as `--set model.…` gives; what is not given is its default.

        Raises:
            SettingsError: a key does not exist, or a value does not fit.
        """
        try:
            return self.settings_type.model_validate(dict(values))
        except ValidationError as error:
            problems = "; ".join(
                f"model.{'.'.join(map(str, problem['loc']))} = {problem['input']!r}: {problem['msg']}"
                for problem in error.errors()
            )
            raise SettingsError(f"These are no settings of the family {self.name}: {problems}.") from error

    @abstractmethod
    def representation(self, settings: Any) -> Representation:
        """What extraction computes for this family: its input specification and frozen stage.

        Reads the backbone's configuration and the digest of its weights where there is one.

        Raises:
            ModelError: there is no such backbone.
            SettingsError: the settings do not fit it.
        """

    def pinned(self, settings: Any) -> Any:
        """The settings with the backbone's present version in them, so that later steps load the same one."""
        return settings

    def backbone_digest(self, settings: Any) -> str | None:
        """What identifies the pretrained weights that training begins from; None from scratch.

        The representation names those of its frozen stage alone: where no stage is frozen, it names none.

        Raises:
            ModelError: there is no such backbone.
        """
        return self.representation(settings).digest

    def input_spec(self, settings: Any) -> InputSpec:
        """The input specification of `representation`."""
        return self.representation(settings).input_spec

    def prepare(self, settings: Any) -> None:  # noqa: B027 — most families need nothing here
        """Fetch what extraction and fitting need onto this machine; called before a run is started.

        Raises:
            ModelError: it cannot be had.
        """

    @abstractmethod
    def training_defaults(self, settings: Any) -> dict[str, Any]:
        """What this family changes of `training_type`'s own defaults."""

    @abstractmethod
    def fit(self, context: FitContext) -> FitResult:
        """Fit a model on the training rows and write its native files: safetensors, JSON, no pickle.

        Raises:
            TrainingError: there is nothing to learn from, or the fit diverged.
        """

    @abstractmethod
    def load(
        self,
        folder: Path,
        settings: Any,
        genres: tuple[str, ...],
        precision: Literal["f32", "bf16"] = "f32",
        device: str = "cpu",
    ) -> Predict:
        """`predict` over the native files that `fit` wrote, frozen part included.

        Raises:
            ModelError: files are missing or do not fit, or what they need is not installed.
        """

    def export_openvino(
        self, folder: Path, document: ModelDocument, inputs: NDArray[np.float32], path: Path
    ) -> None:
        """Write the model of `folder` as OpenVINO IR in fp32: `inputs` to `logits`.

        Args:
            folder: with the family's native files.
            inputs: (n, *input shape) real windows.

        Raises:
            ModelError: the model cannot be converted.
            GenreflowError: it cannot be written.
        """
        raise ModelError(f"the family {self.name} has no form for OpenVINO")

    def export_onnx(
        self, folder: Path, document: ModelDocument, inputs: NDArray[np.float32], path: Path
    ) -> None:
        """Write the model of `folder` as ONNX in fp32, as `export_openvino` does.

        Raises:
            ModelError: the model cannot be converted.
        """
        raise ModelError(f"the family {self.name} has no form for ONNX Runtime")

    def export_transformers(self, model: Path, document: ModelDocument, out: Path) -> TransformersForm | None:
        """Write what `transformers.pipeline("audio-classification")` loads; None where there is no such form.

        Its answer for one window is the classifier's, temperature included.

        Args:
            model: a folder with the family's native files.
        """
        return None

    def pretrained(self, settings: Any) -> str | None:
        """The pretrained backbone; None where every weight is fitted from scratch."""
        return None

    def pretraining(self, settings: Any) -> str | None:
        """What the backbone was trained on and under which licence, for cards and reports, where known."""
        return None


def run_settings(family: Family) -> dict[str, Any]:
    """Those of `RUN_SETTINGS` that the environment gives and the family's training settings have.

    Raises:
        SettingsError: the variable does not hold a JSON object.
    """
    text = os.environ.get(RUN_SETTINGS_VARIABLE) or "{}"
    try:
        given = dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{RUN_SETTINGS_VARIABLE} does not hold a JSON object: {text!r}.") from error
    return {name: value for name, value in given.items() if name in family.training_type.model_fields}


def training_settings(family: Family, settings: Any, given: Mapping[str, Any]) -> Any:
    """The family's `training_type`: its defaults, changed by `training_defaults`, changed by what is given.

    Raises:
        SettingsError: a key does not exist (the nearest is named) or a value does not fit.
    """
    known = family.training_type.model_fields
    for key in given:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)
            raise SettingsError(f"There is no training setting {key!r}; the nearest is {nearest[0]!r}.")
    try:
        return family.training_type.model_validate({**family.training_defaults(settings), **given})
    except ValidationError as error:
        problems = "; ".join(
            f"training.{'.'.join(map(str, problem['loc']))} = {problem['input']!r}: {problem['msg']}"
            for problem in error.errors()
        )
        raise SettingsError(f"Training settings do not fit: {problems}.") from error
