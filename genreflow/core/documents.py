"""The documents that lie in the artifacts passed between steps.

Every artifact is a folder with one JSON document that says what it is and names the fingerprint of what it
was made from, so that a running service can be traced to the exact clips, split, code and run.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from genreflow.core.errors import GenreflowError, NewerDocumentError

SPLITS = ("train", "validation", "test")


class Frozen(BaseModel):
    """A strict, immutable record: unknown keys are refused; a field's docstring is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
"""From the JSON object of one schema version to that of the next."""
NEWER_SCHEMA = "newer_schema"


class Document(Frozen):
    """A record that lies in an artifact folder under a fixed name.

    A change of its fields that older files do not fit raises the schema version: a function is appended to
    `upgrades`, and older files are read through it and those after it.
    """

    file_name: ClassVar[str]
    upgrades: ClassVar[tuple[Upgrade, ...]] = ()
    """The first upgrades schema version 1 to 2, the second 2 to 3, and so on."""

    schema_version: int = Field(default=1, ge=1, strict=True)
    """Of the fields. Files without one, as genreflow 0.1.0 wrote them, have version 1."""

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, data: Any, info: ValidationInfo) -> Any:
        """Upgrade the fields of an older file; what is made in Python has the current schema version."""
        if not isinstance(data, dict):
            return data
        current = len(cls.upgrades) + 1
        version = data.get("schema_version", 1 if info.mode == "json" else current)
        if type(version) is not int or version < 1:
            return data
        if version > current:
            raise PydanticCustomError(
                NEWER_SCHEMA,
                "schema version {version}, and this genreflow reads versions up to {current}",
                {"version": version, "current": current},
            )
        for upgrade in cls.upgrades[version - 1 :]:
            data = upgrade(data)
        return data | {"schema_version": current}

    def write(self, folder: Path) -> None:
        """Write the document into `folder`, created where missing."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.file_name).write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the document of `folder`.

        Raises:
            NewerDocumentError: a newer genreflow wrote it.
            GenreflowError: the file is missing or is not such a document.
        """
        path = Path(folder) / cls.file_name
        if not path.is_file():
            raise GenreflowError(f"{folder} has no {cls.file_name}: it is not a genreflow {cls.__name__}.")
        try:
            return cls.model_validate_json(path.read_text())
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == NEWER_SCHEMA:
                raise NewerDocumentError(
                    f"{path} was written by a newer genreflow ({first['msg']}): upgrade genreflow."
                ) from error
            where = ".".join(str(part) for part in first["loc"])
            raise GenreflowError(
                f"{path} is not a readable {cls.__name__}: {where + ': ' if where else ''}{first['msg']}."
            ) from error


class InputSpec(Frozen):
    """A model's input: how windows are cut from a waveform and represented, in training and in serving."""

    sample_rate: int
    """Hertz at which windows are cut."""
    window_seconds: float
    hop_seconds: float
    """From one window's start to the next; the last window is aligned to the end."""
    extend: Literal["repeat", "silence"]
    """What a clip shorter than a window is extended with."""
    representation: str
    """A name in `genreflow.features.REPRESENTATIONS`."""
    parameters: dict[str, int | float | bool | str] = {}

    @property
    def window_samples(self) -> int:
        return round(self.window_seconds * self.sample_rate)

    @property
    def hop_samples(self) -> int:
        return round(self.hop_seconds * self.sample_rate)


class Representation(Frozen):
    """What extraction computes of a clip's windows. Canonical: equal texts, equal features of equal clips."""

    kind: str
    """A name in `genreflow.backbones.KINDS`."""
    input_spec: InputSpec
    stage: str = "inputs"
    """What a row is: `inputs` (the representation itself), or a backbone's frozen stage by its name."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    backbone: str | None = None
    """Where the frozen stage's weights are loaded from."""
    digest: str | None = None
    """What identifies those weights: the digest of a folder's files, or a hub id with its commit."""
    parameters: dict[str, Any] = {}
    """What else decides the stage's output."""

    def canonical(self) -> str:
        """As one line of JSON with sorted keys."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


SPLIT_FIELDS = ("protocol", "fold", "seed", "leaky", "leak_reason", "counts")


def _without_split(data: dict[str, Any]) -> dict[str, Any]:
    """Schema version 1, of genreflow 0.1.0, held the split, which is a document of its own now."""
    clips = {} if "clips" in data else {"clips": sum(data.get("counts", {}).values())}
    return {key: value for key, value in data.items() if key not in SPLIT_FIELDS} | clips


class CorpusDocument(Document):
    """What a corpus is. Beside it: `clips/` (memory-mapped Arrow), tables `manifest` and `quarantine`."""

    file_name: ClassVar[str] = "corpus.json"
    upgrades: ClassVar[tuple[Upgrade, ...]] = (_without_split,)
    fingerprint: str
    """sha256 over the sorted (clip id, clip sha256, genre, folder) and the label order."""
    source: str
    source_fingerprint: str
    synthetic: bool
    genres: tuple[str, ...]
    clips: int
    quarantined: int
    duplicate_clusters: int
    """Clusters of two clips or more with the same audio."""
    near_duplicate_clusters: int = 0
    """Clusters of clips with the same recording, but not all with the same audio."""
    notes: tuple[str, ...] = ()
    code_version: str


class SplitDocument(Document):
    """What a split is. Beside it: `split.parquet`, a row a clip: clip_id, split, fold and its groups."""

    file_name: ClassVar[str] = "split.json"
    fingerprint: str
    """sha256 over the corpus's fingerprint and the sorted (clip id, split, fold)."""
    corpus_fingerprint: str
    protocol: str
    """The protocol used: never `auto`."""
    fold: int | None
    seed: int
    leaky: bool
    leak_reason: str | None
    """Why figures on this split are optimistic, in a sentence; None on a leak-free split."""
    counts: dict[str, int]
    """Clips per split, `unused` included."""
    notes: tuple[str, ...] = ()
    code_version: str


class FeaturesDocument(Document):
    """What lies in a features artifact. Beside it: `windows.npy` (memory-mapped), `index.parquet`."""

    file_name: ClassVar[str] = "features.json"
    fingerprint: str
    corpus_fingerprint: str
    representation: Representation
    """What a row is; bfloat16 lies in `windows.npy` as uint16 bit patterns."""
    window_shape: tuple[int, ...]
    windows: int
    genres: tuple[str, ...]
    synthetic: bool
    split_fingerprint: str | None = None
    """The split whose training and validation clips alone were extracted; None where every clip was."""
    code_version: str


def _input_spec_from_hearing(data: dict[str, Any]) -> dict[str, Any]:
    """Schema version 1, of genreflow 0.1.0, called the input specification `hearing`."""
    renamed = {key: value for key, value in data.items() if key != "hearing"}
    return renamed | {"input_spec": data["hearing"]} if "hearing" in data else renamed


class ModelDocument(Document):
    """What a trained model is. Beside it: the native files of its family."""

    file_name: ClassVar[str] = "genreflow.json"
    upgrades: ClassVar[tuple[Upgrade, ...]] = (_input_spec_from_hearing,)
    family: str
    settings: dict[str, Any]
    genres: tuple[str, ...]
    """Label order of the logits."""
    input_spec: InputSpec
    temperature: float
    """Softmax temperature; 1.0 where it was not fitted."""
    calibration: str | None = None
    """What the temperature was fitted on; None where it was not, and of a model of version 0.1.0."""
    training: dict[str, Any]
    """Training settings, complete, and what came of them (epochs run, best epoch, seconds, device)."""
    pretrained: str | None
    """The backbone it began from; None where trained from scratch."""
    pretraining: str | None = None
    """What the backbone was trained on and under which licence, where known."""
    synthetic: bool
    train_clips: dict[str, str]
    """sha256 of every clip trained on, with its duplicate cluster."""
    validation_clips: dict[str, str]
    """sha256 of every clip used for selection, with its duplicate cluster."""
    corpus_fingerprint: str
    split_fingerprint: str | None = None
    """None of a model that version 0.1.0 trained: its corpus held the split."""
    features_fingerprint: str
    protocol: str
    fold: int | None
    leaky: bool
    leak_reason: str | None
    code_version: str
    run_id: str | None
    """The MLflow run that trained it; not part of any digest."""


class PackagingSettings(Frozen):
    """Settings of packaging."""

    int8: bool = False
    """Try int8 on the CPU, calibrated on training windows; served only if it passes parity and is faster."""


class RuntimeReport(Frozen):
    """One runtime's files and what was measured on real windows."""

    name: str
    """A name in `genreflow.inference.backends.BACKENDS`."""
    precision: str
    usable: bool
    """False where it failed parity or, for int8, speed or likelihood: it is not served."""
    reason: str | None = None
    max_probability_difference: float
    """Largest absolute difference to the trained weights in fp32 over the windows compared."""
    decision_agreement: float
    """Share of these windows with the same decision, 0 to 1."""
    latency_ms_p50: float
    latency_ms_p95: float
    """Milliseconds for one window, model only, on the machine that packaged it."""
    nll_increase: float | None = None
    """By how much the mean negative log-likelihood of validation clips is larger than in fp32, in nats.

    None where it was not measured: of int8 alone it is, as the temperature was fitted in fp32.
    """


class Served(Frozen):
    """A runtime with a precision."""

    runtime: str
    """A name in `genreflow.inference.backends.BACKENDS`."""
    precision: str

    @property
    def label(self) -> str:
        """Both names, as reports and messages show them."""
        return f"{self.runtime} {self.precision}"


def _declare_served(data: dict[str, Any]) -> dict[str, Any]:
    """Schema version 1 declared nothing: genreflow 0.1.0 served the fastest usable precision of OpenVINO."""
    if "served" in data:
        return data
    usable = [one for one in data.get("runtimes", ()) if one["name"] == "openvino" and one["usable"]]
    if not usable:
        return data | {"served": {"runtime": "pytorch", "precision": "f32"}}
    fastest = min(usable, key=lambda one: float(one["latency_ms_p50"]))
    return data | {"served": {"runtime": fastest["name"], "precision": fastest["precision"]}}


class PackagedDocument(Document):
    """A model in the form that is served. Beside it: `model/`, `openvino/` or `onnx/`, `reference.npz`."""

    file_name: ClassVar[str] = "packaged.json"
    upgrades: ClassVar[tuple[Upgrade, ...]] = (_declare_served,)
    digest: str
    """sha256 over the weights and what decides the answers: the identity under which it is registered."""
    model: ModelDocument
    files: dict[str, str]
    """sha256 of every file of the folder but this one, by its path in the folder; verified before loading."""
    runtimes: tuple[RuntimeReport, ...]
    served: Served
    """What the model is evaluated, compared and served with; see `genreflow.inference.loading`."""
    processor: str
    """The processor on which parity and latency were measured."""
    code_version: str


class PublishedDocument(Document):
    """What publishing wrote at a place, itself aside."""

    file_name: ClassVar[str] = "published.json"
    version: str
    """In the registry it was published from."""
    digest: str
    """The model's identity: `digest` of its `packaged.json`."""
    files: dict[str, str]
    """sha256 by path."""
    accuracy: float | None = None
    accuracy_ci95: tuple[float, float] | None = None
    """On the test split, as registered; None where not known."""
