"""The documents that lie in the artifacts passed between steps, and digests of what lies beside them.

Every artifact is a folder with one JSON document that says what it is and names the fingerprint of what it
was made from, so that a running service can be traced to the exact clips, split, code and run.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from genreflow.errors import GenreflowError
from genreflow.version import VERSION

SPLITS = ("train", "validation", "test")
SEAL_SUFFIX = ".seal.json"
SEALED_BY_DIGEST_BYTES = 1 << 20
"""Of larger files a seal has size and modification time: every run looks at all seals before it starts."""


class Frozen(BaseModel):
    """A strict, immutable record: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Document(Frozen):
    """A record that lies in an artifact folder under a fixed name."""

    file_name: ClassVar[str]

    def write(self, folder: Path) -> None:
        """Write the document into `folder`, created where missing."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.file_name).write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the document of `folder`.

        Raises:
            GenreflowError: the file is missing or is not such a document.
        """
        path = Path(folder) / cls.file_name
        if not path.is_file():
            raise GenreflowError(f"{folder} has no {cls.file_name}: it is not a genreflow {cls.__name__}.")
        try:
            return cls.model_validate_json(path.read_text())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise GenreflowError(
                f"{path} is not a readable {cls.__name__}: {where + ': ' if where else ''}{first['msg']}."
            ) from error


class Hearing(Frozen):
    """How a model hears: what is cut from a waveform and what becomes of it, in training and in serving."""

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


class CorpusDocument(Document):
    """What a corpus is. Beside it: `clips/` (memory-mapped Arrow), tables `manifest` and `quarantine`."""

    file_name: ClassVar[str] = "corpus.json"
    fingerprint: str
    """sha256 over the sorted (clip id, clip sha256, genre, split, fold) and the label order."""
    source: str
    source_fingerprint: str
    synthetic: bool
    protocol: str
    fold: int | None
    seed: int
    leaky: bool
    leak_reason: str | None
    """Why figures on this split flatter, in a sentence; None on an honest split."""
    genres: tuple[str, ...]
    counts: dict[str, int]
    """Clips per split, `unused` included."""
    quarantined: int
    duplicate_clusters: int
    """Clusters of two clips or more with the same audio."""
    near_duplicate_clusters: int = 0
    """Clusters of clips with the same recording, but not all with the same audio."""
    notes: tuple[str, ...] = ()
    code_version: str


class FeaturesDocument(Document):
    """What lies in a features artifact. Beside it: `windows.npy` (memory-mapped), `index.parquet`."""

    file_name: ClassVar[str] = "features.json"
    fingerprint: str
    corpus_fingerprint: str
    family: str
    settings: dict[str, Any]
    """The family's settings, complete."""
    hearing: Hearing
    backbone: str | None
    """What identifies the content of the pretrained weights; None from scratch."""
    stage: str
    """What a row is: `inputs` (the representation), or a family's frozen part by name (`front_end`, …)."""
    dtype: Literal["float32", "float16", "bfloat16"]
    """bfloat16 lies in `windows.npy` as uint16 bit patterns."""
    window_shape: tuple[int, ...]
    windows: int
    genres: tuple[str, ...]
    synthetic: bool
    protocol: str
    fold: int | None
    leaky: bool
    leak_reason: str | None
    code_version: str


class ModelDocument(Document):
    """What a trained model is. Beside it: the native files of its family."""

    file_name: ClassVar[str] = "genreflow.json"
    family: str
    settings: dict[str, Any]
    genres: tuple[str, ...]
    """Label order of the logits."""
    hearing: Hearing
    temperature: float
    """Softmax temperature fitted on the validation clips; 1.0 where there was none."""
    training: dict[str, Any]
    """Training settings, complete, and what came of them (epochs run, best epoch, seconds, device)."""
    pretrained: str | None
    """The backbone it began from; None where trained from scratch."""
    synthetic: bool
    train_clips: dict[str, str]
    """sha256 of every clip trained on, with its duplicate cluster."""
    validation_clips: dict[str, str]
    """sha256 of every clip used for selection, with its duplicate cluster."""
    corpus_fingerprint: str
    features_fingerprint: str
    protocol: str
    fold: int | None
    leaky: bool
    leak_reason: str | None
    code_version: str
    run_id: str | None
    """The MLflow run that trained it; not part of any digest."""


class PackagingSettings(Frozen):
    """What a person may set about packaging."""

    int8: bool = False
    """Try int8 on the CPU, calibrated on training windows; served only where it earns its place."""


class RuntimeReport(Frozen):
    """One runtime's files and what was measured on real windows."""

    name: Literal["openvino", "pytorch"]
    precision: str
    usable: bool
    """False where it has not earned its place, by parity or, of int8, by speed: it is not served."""
    reason: str | None = None
    max_probability_difference: float
    """Largest absolute difference to fp32 (PyTorch; of int8, OpenVINO) over the windows compared."""
    decision_agreement: float
    """Share of these windows with the same decision, 0 to 1."""
    latency_ms_p50: float
    latency_ms_p95: float
    """Milliseconds for one window, model only, on the machine that packaged it."""


class PackagedDocument(Document):
    """A model in the form that is served. Beside it: `model/`, `openvino/`, `reference.npz`."""

    file_name: ClassVar[str] = "packaged.json"
    digest: str
    """sha256 over the weights and what decides the answers: the identity under which it is registered."""
    model: ModelDocument
    files: dict[str, str]
    """sha256 of every file of the folder but this one, by its path in the folder; verified before loading."""
    runtimes: tuple[RuntimeReport, ...]
    processor: str
    """The processor on which parity and latency were measured."""
    code_version: str


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_md5(path: Path) -> str:
    """md5 of a file's bytes, in hexadecimal: for what others published, never for trust."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def text_digest(parts: Iterable[str]) -> str:
    """sha256 over strings, each ended by a newline, in the order given."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\n")
    return digest.hexdigest()


def seal(folder: Path) -> None:
    """Write down, in a file beside an artifact that is finished, what lies in it."""
    files = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    seen = {name: _seen(path) for name, path in files.items()}
    _seal_of(folder).write_text(json.dumps(seen, indent=2) + "\n")


def broken_seal(folder: Path) -> str | None:
    """What is no longer as it was when the artifact was sealed; None where nothing is.

    Files that came later are no harm. Of a file over a megabyte, a change that leaves size and modification
    time as they were is not seen.
    """
    try:
        sealed = json.loads(_seal_of(folder).read_text())
        for name, seen in sealed.items():
            if not (folder / name).is_file():
                return f"{folder / name} is gone"
            if _seen(folder / name) != seen:
                return f"{folder / name} was altered"
    except (OSError, ValueError, AttributeError) as error:
        return f"{_seal_of(folder)} cannot be read ({type(error).__name__})"
    return None


def _seal_of(folder: Path) -> Path:
    return folder.with_name(folder.name + SEAL_SUFFIX)


def _seen(path: Path) -> dict[str, int | str]:
    stat = path.stat()
    if stat.st_size <= SEALED_BY_DIGEST_BYTES:
        return {"bytes": stat.st_size, "sha256": file_digest(path)}
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def code_digest() -> str:
    """sha256 over the library's own Python files: changed code, new cache keys."""
    root = Path(__file__).parent
    files = sorted(root.rglob("*.py"))
    return text_digest(f"{path.relative_to(root).as_posix()} {file_digest(path)}" for path in files)


def code_version() -> str:
    """The version of the library with the first twelve characters of its code digest."""
    return f"{VERSION}+{code_digest()[:12]}"
