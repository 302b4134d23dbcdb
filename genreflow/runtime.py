"""From a packaged model to probabilities: windows, batches, a clip's answer, a song's timeline; torch-free.

The unit is the window: the model sees nothing else. A clip's answer is the mean of its windows' probabilities
(and, beside it, their majority vote); a song's timeline is the same windows in order.
"""

import importlib
import json
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from genreflow import devices
from genreflow.artifacts import (
    Hearing,
    ModelDocument,
    PackagedDocument,
    RuntimeReport,
    file_digest,
    text_digest,
)
from genreflow.audio import MAX_SECONDS, cut_windows, decode, plan_windows, resample
from genreflow.errors import HOW_TO_INSTALL_TRAINING, ModelError, SettingsError
from genreflow.features import represent

BATCH_WINDOWS = 8
"""Windows represented and classified at once: bounds the memory of an hour of music."""
MAX_TIMELINE_WINDOWS = 20_000
"""More is a slip of the hop: an hour every 0.2 s."""
PICKLES = frozenset({".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pt2", ".pth"})
"""Endings of files that may hold a pickle, which runs code when loaded."""
MODEL_FOLDER = "model"
OPENVINO_FOLDER = "openvino"
OPENVINO_MODEL = f"{OPENVINO_FOLDER}/model.xml"
OPENVINO_INT8 = f"{OPENVINO_FOLDER}/int8.xml"
"""There only where it earned its place."""
OPENVINO_WEIGHTS = frozenset({f"{OPENVINO_FOLDER}/model.bin", f"{OPENVINO_FOLDER}/int8.bin"})
REFERENCE_FILE = "reference.npz"
SETTINGS_WITHOUT_ANSWERS = frozenset({"views", "backbone"})
"""Family settings that decide how a model is trained but, once its files are written, not what it answers."""

RuntimeName = Literal["openvino", "pytorch"]
RUNTIMES = ("auto", "openvino", "pytorch")
"""What can be asked for."""
Precision = Literal["f32", "bf16", "int8"]
Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(n, *input shape) float32 → (n, genres) logits."""

log = logging.getLogger("genreflow")


@dataclass(frozen=True)
class Parity:
    """How far a runtime may be from fp32 over real windows."""

    probability_difference: float
    """Largest absolute difference of any probability."""
    decision_agreement: float
    """Smallest share of windows with the same genre on top."""


PARITY: dict[str, Parity] = {
    "f32": Parity(1e-3, 1.0),
    "bf16": Parity(0.05, 0.99),  # of a trained Whisper: 0.033 over 300 windows, every decision the same
    "int8": Parity(0.1, 0.99),
}


@dataclass(frozen=True)
class Classification:
    """The answer for one clip."""

    genre: str
    confidence: float
    """The mean probability of `genre` over the windows."""
    probabilities: dict[str, float]
    vote: str
    """The genre on top in most windows; the more probable one where two have as many."""
    seconds: float
    windows: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


class Segment(NamedTuple):
    """A stretch of a song with one genre on top; times in seconds."""

    start: float
    end: float
    genre: str
    probability: float
    """The mean probability of `genre` over the stretch's windows."""


@dataclass(frozen=True)
class Timeline:
    """A song's windows in order."""

    starts: NDArray[np.float64]
    """(windows,) seconds."""
    ends: NDArray[np.float64]
    """(windows,) seconds; the last is the song's end."""
    probabilities: NDArray[np.float32]
    """(windows, genres)."""
    genres: tuple[str, ...]

    def smoothed(self) -> NDArray[np.float32]:
        """(windows, genres): each window averaged with all that sound at its middle."""
        middles = (self.starts + self.ends) / 2
        # starts and ends both rise, so the windows that sound at a moment are a run of neighbours
        first = np.searchsorted(self.ends, middles, side="left")
        past = np.searchsorted(self.starts, middles, side="right")
        sums = np.zeros((len(self.starts) + 1, len(self.genres)))
        sums[1:] = self.probabilities.cumsum(axis=0, dtype=np.float64)
        return ((sums[past] - sums[first]) / (past - first)[:, None]).astype(np.float32)

    def segments(self) -> list[Segment]:
        """Stretches of one top genre, in order and without gaps, from the song's start to its end.

        Overlapping windows are averaged first; a boundary lies midway between the middles of the two windows
        that differ.
        """
        smoothed = self.smoothed()
        top = smoothed.argmax(axis=1)
        middles = (self.starts + self.ends) / 2
        changes = np.flatnonzero(np.diff(top)) + 1
        firsts = [0, *changes.tolist()]
        lasts = [*changes.tolist(), len(top)]
        bounds = [float(self.starts[0])]
        bounds += [float(middles[change - 1] + middles[change]) / 2 for change in changes]
        bounds.append(float(self.ends[-1]))
        return [
            Segment(
                bounds[run],
                bounds[run + 1],
                self.genres[top[first]],
                float(smoothed[first:last, top[first]].mean()),
            )
            for run, (first, last) in enumerate(zip(firsts, lasts, strict=True))
        ]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, segments included."""
        return {
            "genres": list(self.genres),
            "starts": self.starts.tolist(),
            "ends": self.ends.tolist(),
            "probabilities": self.probabilities.tolist(),
            "segments": [segment._asdict() for segment in self.segments()],
        }


class Classifier:
    """A model ready to answer: what it is, how it hears, and `predict` from inputs to logits."""

    def __init__(
        self,
        document: ModelDocument,
        predict: Predict,
        runtime: str,
        precision: str,
        device: str = "cpu",
    ) -> None:
        self.document = document
        self.runtime = runtime
        self.precision = precision
        self.device = device
        self.notes: tuple[str, ...] = ()
        """What was not as wished when it was loaded, a sentence each."""
        self.pace = float("inf")
        """Seconds that a window took this model at best: what it takes where nothing else is in its way."""
        self._predict = predict

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, *input shape) float32 → (n, genres) float32, in batches of at most `BATCH_WINDOWS`."""
        batches = []
        for start in range(0, len(inputs), BATCH_WINDOWS):
            batch = np.ascontiguousarray(inputs[start : start + BATCH_WINDOWS])
            began = time.perf_counter()
            batches.append(np.asarray(self._predict(batch), dtype=np.float32))
            self.pace = min(self.pace, (time.perf_counter() - began) / len(batch))
        return np.concatenate(batches)

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """softmax(logits / temperature) over the last axis."""
        return softmax(logits / self.document.temperature)

    def listen(
        self, samples: NDArray[np.float32], sample_rate: int, hop_seconds: float | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Logits of a waveform's windows.

        Args:
            samples: (n,) float32 mono at `sample_rate` Hz.
            hop_seconds: from window to window; the model's own where None.

        Returns:
            (windows, genres) logits, and the windows' starts in seconds (windows,).
        """
        batches = [
            (self.logits(inputs), starts)
            for inputs, starts in hear_in_batches(self.document.hearing, samples, sample_rate, hop_seconds)
        ]
        return np.concatenate([logits for logits, _ in batches]), np.concatenate(
            [starts for _, starts in batches]
        )

    def classify(self, file: Path | str | bytes) -> Classification:
        """The genre of an audio file, given by its path or its bytes.

        Raises:
            AudioError: the file is missing or is no audio.
        """
        audio = decode(_source(file))
        return self.classify_samples(audio.samples, audio.sample_rate)

    def classify_samples(self, samples: NDArray[np.float32], sample_rate: int) -> Classification:
        """The genre of a waveform (n,) at `sample_rate` Hz."""
        logits, _ = self.listen(samples, sample_rate)
        return classification(self.probabilities(logits), self.document.genres, len(samples) / sample_rate)

    def timeline(self, file: Path | str | bytes, hop_seconds: float | None = None) -> Timeline:
        """A song's genre over time, a window every `hop_seconds`.

        Raises:
            AudioError: the file is missing or is no audio.
        """
        audio = decode(_source(file))
        return self.timeline_samples(audio.samples, audio.sample_rate, hop_seconds)

    def timeline_samples(
        self, samples: NDArray[np.float32], sample_rate: int, hop_seconds: float | None = None
    ) -> Timeline:
        """The timeline of a waveform (n,) at `sample_rate` Hz."""
        check_hop(hop_seconds, len(samples) / sample_rate)
        logits, starts = self.listen(samples, sample_rate, hop_seconds)
        window = self.document.hearing.window_seconds
        seconds = len(samples) / sample_rate
        return timeline(self.probabilities(logits), starts, window, self.document.genres, seconds)

    def check_reference(self, folder: Path) -> float:
        """Largest absolute difference, on this processor, to the probabilities that lie in a packaged folder.

        Raises:
            ModelError: the folder has no readable reference windows.
        """
        inputs, expected = read_reference(folder)
        return float(np.abs(self.probabilities(self.logits(inputs)) - expected).max())


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities along the last axis, without overflow."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)


def classification(
    probabilities: NDArray[np.float32], genres: tuple[str, ...], seconds: float
) -> Classification:
    """The answer for a clip from its windows' probabilities (windows, genres)."""
    mean = probabilities.mean(axis=0)
    top = int(mean.argmax())
    return Classification(
        genre=genres[top],
        confidence=float(mean[top]),
        probabilities={genre: float(share) for genre, share in zip(genres, mean, strict=True)},
        vote=genres[majority(probabilities)],
        seconds=seconds,
        windows=len(probabilities),
    )


def timeline(
    probabilities: NDArray[np.float32],
    starts: NDArray[np.float64],
    window_seconds: float,
    genres: tuple[str, ...],
    seconds: float,
) -> Timeline:
    """The timeline of a song of so many seconds from its windows' probabilities (windows, genres)."""
    ends = np.minimum(starts + window_seconds, seconds)
    ends[-1] = seconds  # a small rest is left unheard, but belongs to the song
    return Timeline(starts, ends, probabilities, genres)


def check_hop(hop_seconds: float | None, seconds: float = 0.0) -> None:
    """Refuse a hop that is none, or that cuts a song of so many seconds into too many windows.

    Raises:
        SettingsError: says what is wrong with it.
    """
    if hop_seconds is not None and not 0 < hop_seconds <= MAX_SECONDS:
        raise SettingsError(
            f"A timeline's hop is more than 0 and at most {MAX_SECONDS:g} seconds, not {hop_seconds:g}."
        )
    if hop_seconds and seconds / hop_seconds > MAX_TIMELINE_WINDOWS:
        raise SettingsError(
            f"A hop of {hop_seconds:g} s cuts {seconds:.0f} s of music into more than {MAX_TIMELINE_WINDOWS} "
            "windows; take a longer one."
        )


def majority(probabilities: NDArray[np.float32]) -> int:
    """The class on top in most windows (windows, classes); of equals, the one more probable on the mean."""
    votes = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
    return int(np.lexsort((probabilities.mean(axis=0), votes))[-1])


def load(
    folder: Path | str,
    runtime: str = "auto",
    precision: Precision | None = None,
    device: str = "auto",
) -> Classifier:
    """Load a packaged model (`packaged.json`), verified first, or a trained one (`genreflow.json`, PyTorch).

    Args:
        runtime: `auto` takes OpenVINO where it was packaged and is usable here, else PyTorch.
        precision: `f32`, `bf16` or `int8` (OpenVINO only); where None, OpenVINO takes the fastest that parity
            allowed and this processor has, PyTorch takes bf16 on CUDA.
        device: of PyTorch: `auto`, `cpu` or `cuda`.

    Raises:
        ModelError: the folder is no model, was altered, or has no runtime that works as asked.
    """
    folder = Path(folder)
    _check_runtime(runtime)
    if precision is not None and precision not in PARITY:
        raise SettingsError(f"There is no precision {precision!r}; there are {', '.join(PARITY)}.")
    if not folder.is_dir():
        raise ModelError(f"There is no folder {folder}: name the folder of a trained or packaged model.")
    refuse_pickles(folder)
    if (folder / PackagedDocument.file_name).is_file():
        return _load_packaged(folder, runtime, precision, device)
    if not (folder / ModelDocument.file_name).is_file():
        names = f"neither {PackagedDocument.file_name} nor {ModelDocument.file_name}"
        raise ModelError(f"{folder} is no model: it has {names}.")
    if runtime == "openvino":
        raise ModelError(f"{folder} is a trained model that is not packaged yet: package it, or use PyTorch.")
    return load_pytorch(folder, ModelDocument.read(folder), precision, device)


def load_checked(folder: Path | str, runtime: str = "auto") -> Classifier:
    """Load a packaged model as a service does: its reference windows are answered again on this processor.

    Where bf16 or int8 does not give the packaged answers here, f32 is taken, with a warning; another warning
    says where PyTorch was asked for and has no GPU.

    Raises:
        ModelError: the model cannot be loaded, or f32 does not give the packaged answers either.
    """
    classifier = _load_agreeing(Path(folder), runtime)
    reports = PackagedDocument.read(Path(folder)).runtimes
    note = shortfall(reports, classifier.device, classifier.precision) if runtime == "pytorch" else None
    if note is not None:
        log.warning("%s: %s", folder, note)
        classifier.notes += (note,)
    return classifier


def _load_agreeing(folder: Path, runtime: str) -> Classifier:
    classifier = load(folder, runtime)
    difference = classifier.check_reference(folder)
    if difference <= PARITY[classifier.precision].probability_difference:
        return classifier
    if classifier.precision != "f32":
        note = (
            f"{classifier.runtime} in {classifier.precision} is {difference:.4f} off the packaged answers "
            "on this processor: serving in f32."
        )
        log.warning("%s: %s", folder, note)
        classifier = load(folder, runtime, "f32")
        classifier.notes += (note,)
        difference = classifier.check_reference(folder)
    if not difference <= PARITY["f32"].probability_difference:  # NaN is not
        raise ModelError(
            f"{folder} does not give its packaged answers here: with {classifier.runtime} in f32 "
            f"a probability is {difference:.4f} off. Package it anew here."
        )
    return classifier


def choose_runtime(reports: tuple[RuntimeReport, ...], wanted: str, cuda: Callable[[], bool]) -> RuntimeName:
    """The runtime that a packaged model is to be served by.

    `auto` is OpenVINO wherever it serves the model, but PyTorch where that was measured on CUDA to be usable
    and faster, and CUDA is here.

    Args:
        cuda: whether this machine has it; asked only where it matters, for PyTorch takes seconds to import.

    Raises:
        SettingsError: there is no such runtime.
        ModelError: OpenVINO is wanted and does not serve this model.
    """
    _check_runtime(wanted)
    usable = [one.latency_ms_p50 for one in reports if one.name == "openvino" and one.usable]
    if wanted == "openvino" and not usable:
        raise ModelError(f"{_without_openvino(reports)}: take the runtime pytorch or auto.")
    if wanted != "auto":
        return "pytorch" if wanted == "pytorch" else "openvino"
    on_cuda = _bf16_on_cuda(reports)
    faster = on_cuda is not None and on_cuda.usable and on_cuda.latency_ms_p50 < min(usable, default=math.inf)
    return "pytorch" if not usable or (faster and cuda()) else "openvino"


def pytorch_precision(reports: tuple[RuntimeReport, ...], device: str) -> Precision:
    """What PyTorch serves in on a device: bf16 on CUDA, unless that failed its parity, else f32."""
    measured = _bf16_on_cuda(reports)
    refused = measured is not None and not measured.usable
    return "bf16" if device == "cuda" and not refused else "f32"


def shortfall(reports: tuple[RuntimeReport, ...], device: str, precision: str) -> str | None:
    """What to say where PyTorch was chosen and does not answer on CUDA in bf16; None where it does.

    Where OpenVINO does not serve the model, that is the reason for PyTorch, and no GPU is expected.
    """
    if not any(one.name == "openvino" and one.usable for one in reports):
        return f"{_without_openvino(reports)}: using PyTorch."
    if device != "cuda":
        return "A GPU was expected, but PyTorch sees no CUDA device here: it answers on the CPU, in f32."
    measured = _bf16_on_cuda(reports)
    if precision == "f32" and measured is not None and not measured.usable:
        return f"PyTorch answers on CUDA in f32, for bf16 is not served: {measured.reason}."
    return None


def _bf16_on_cuda(reports: tuple[RuntimeReport, ...]) -> RuntimeReport | None:
    """PyTorch's report in bf16, which there is only where the model was packaged on a machine with CUDA."""
    return next((one for one in reports if (one.name, one.precision) == ("pytorch", "bf16")), None)


def _without_openvino(reports: tuple[RuntimeReport, ...]) -> str:
    reasons = [f"in {one.precision}, {one.reason}" for one in reports if one.name == "openvino"]
    return f"OpenVINO does not serve this model ({'; '.join(reasons) or 'it was not packaged for it'})"


def _check_runtime(name: str) -> None:
    if name not in RUNTIMES:
        raise SettingsError(f"There is no runtime {name!r}; there are auto, openvino and pytorch.")


def load_pytorch(
    folder: Path,
    document: ModelDocument,
    precision: Precision | None = None,
    device: str = "auto",
    reports: tuple[RuntimeReport, ...] = (),
) -> Classifier:
    """A classifier over PyTorch from the native files of `folder`; on CUDA where there is one, there in bf16.

    Args:
        reports: of a packaged model: what was measured of bf16, where it was.

    Raises:
        ModelError: PyTorch is not installed, or the files do not fit.
        SettingsError: there is no such device here.
    """
    try:
        import torch

        from genreflow.families import family
    except ImportError as error:
        raise ModelError(
            f"{folder} needs PyTorch, which is not installed here ({error}): {HOW_TO_INSTALL_TRAINING}, or "
            "package the model for OpenVINO."
        ) from error

    if precision == "int8":
        raise SettingsError("PyTorch serves no int8: take f32 or bf16, or the runtime openvino.")
    kind = family(document.family)
    try:
        settings = kind.settings_type.model_validate(document.settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(
            f"{folder} was made by another version of genreflow: its setting "
            f"{'.'.join(map(str, first['loc']))} does not fit this one ({first['msg']}). Train it anew."
        ) from error
    module = kind.load(folder, settings, document.genres)
    place = torch.device(devices.choose(device))
    chosen = precision or pytorch_precision(reports, place.type)
    module = module.to(place).eval()

    def predict(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        autocast = torch.autocast(place.type, torch.bfloat16, enabled=chosen == "bf16")
        with torch.inference_mode(), autocast:
            logits = module(torch.from_numpy(inputs).to(place)).logits
        return np.asarray(logits.float().cpu().numpy(), dtype=np.float32)

    return Classifier(document, predict, "pytorch", chosen, place.type)


def openvino() -> Any:
    """OpenVINO, which reports its use to its makers unless their `openvino_telemetry` is not to be found."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")


def compile_openvino(path: Path, precision: Precision) -> Predict:
    """Compile an OpenVINO IR for this processor.

    The precision is always set: OpenVINO's default is bf16 wherever the processor has it. What an int8 IR
    leaves unquantised is computed in bf16 where the processor has it, else in f32.

    Raises:
        ModelError: OpenVINO cannot read or compile the file.
    """
    ov = openvino()
    hint = ov.properties.hint
    float_type = ov.Type.f32
    if precision == "bf16" or (precision == "int8" and "bf16" in openvino_precisions()):
        float_type = ov.Type.bf16
    try:
        compiled = ov.Core().compile_model(
            path,
            "CPU",
            {
                hint.inference_precision: float_type,
                hint.performance_mode: hint.PerformanceMode.LATENCY,
            },
        )
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot load {path}: {error}") from error
    request = compiled.create_infer_request()
    # One request uses every core; a lock keeps a service's threads from sharing its buffers.
    lock = threading.Lock()

    def predict(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        with lock:
            return np.array(request.infer([inputs])[0], dtype=np.float32)

    return predict


def openvino_precisions() -> tuple[Precision, ...]:
    """What this processor computes natively in OpenVINO, fastest first."""
    native = openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    fastest_first: tuple[Precision, ...] = ("int8", "bf16", "f32")
    return tuple(one for one in fastest_first if one == "f32" or one.upper() in native)


def read_reference(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Reference windows (n, *input shape) of a packaged folder and PyTorch's fp32 probabilities (n, genres).

    Raises:
        ModelError: the file is missing or unreadable.
    """
    path = Path(folder) / REFERENCE_FILE
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["inputs"], arrays["probabilities"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} has no readable reference windows: {error}. Package the model anew."
        ) from error


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder with a file that may run code when loaded.

    Raises:
        ModelError: names the file.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        # The weights of an OpenVINO IR are called .bin, too; OpenVINO reads them as plain numbers.
        if path.suffix.lower() in PICKLES and name.as_posix() not in OPENVINO_WEIGHTS:
            raise ModelError(
                f"{folder} holds {name}, which may be a pickle and run code when loaded: genreflow loads "
                "safetensors, JSON and OpenVINO files only. Remove it if you trust the rest."
            )


def model_digest(document: ModelDocument, files: dict[str, str]) -> str:
    """The identity of a packaged model: sha256 over its weights and what else decides its answers.

    Run, timings and training settings are left out, so that an identical retraining has an identical digest.
    So is OpenVINO's IR, which follows from the weights; but weights served in int8 are another model.

    Args:
        files: sha256 of every file of the packaged folder.
    """
    settings = {key: value for key, value in document.settings.items() if key not in SETTINGS_WITHOUT_ANSWERS}
    return text_digest(
        [
            document.family,
            json.dumps(settings, sort_keys=True),
            json.dumps(document.genres),
            json.dumps(document.hearing.model_dump(), sort_keys=True),
            repr(document.temperature),
            *(f"{name} {digest}" for name, digest in sorted(native_files(files).items())),
            *(["int8"] if OPENVINO_INT8 in files else []),
        ]
    )


def native_files(files: dict[str, str]) -> dict[str, str]:
    """Of a packaged folder's files with their sha256, those of the family, by their name in `model/`."""
    prefix = f"{MODEL_FOLDER}/"
    names = {path.removeprefix(prefix): digest for path, digest in files.items() if path.startswith(prefix)}
    return {name: digest for name, digest in names.items() if name != ModelDocument.file_name}


def problems(folder: Path, document: PackagedDocument, native: bool = True) -> Iterator[str]:
    """What differs between a packaged folder and its document, a sentence each; nothing where all is well.

    Args:
        native: whether the family's own files have to be there; OpenVINO does not read them.
    """
    for name, expected in sorted(document.files.items()):
        path = folder / name
        if not path.is_file():
            if native or not name.startswith(f"{MODEL_FOLDER}/"):
                yield f"{name} is missing"
        elif file_digest(path) != expected:
            yield f"{name} was altered since it was packaged"
    for part in (MODEL_FOLDER, OPENVINO_FOLDER):
        for path in sorted((folder / part).rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and name not in document.files:
                yield f"{name} was added since it was packaged"
    if model_digest(document.model, document.files) != document.digest:
        yield f"{PackagedDocument.file_name} was altered: its digest does not fit what it says"


def _load_packaged(folder: Path, runtime: str, precision: Precision | None, device: str) -> Classifier:
    document = PackagedDocument.read(folder)
    chosen, reason = _choose_openvino(document.runtimes, precision) if runtime != "pytorch" else (None, "")
    wrong = next(problems(folder, document, native=chosen is None), None)
    if wrong is not None:
        raise ModelError(
            f"The packaged model in {folder} is not what it was: {wrong}. Fetch or package it anew."
        )
    if chosen is not None:
        path = folder / (OPENVINO_INT8 if chosen == "int8" else OPENVINO_MODEL)
        return Classifier(document.model, compile_openvino(path, chosen), "openvino", chosen)
    notes: tuple[str, ...] = ()
    if runtime != "pytorch":
        if runtime == "openvino":
            raise ModelError(f"The packaged model in {folder} cannot be served by OpenVINO here: {reason}.")
        note = f"OpenVINO does not serve this model here ({reason}): using PyTorch."
        log.warning("%s: %s", folder, note)
        notes = (note,)
    classifier = load_pytorch(folder / MODEL_FOLDER, document.model, precision, device, document.runtimes)
    classifier.notes = notes
    return classifier


def _choose_openvino(
    reports: tuple[RuntimeReport, ...], precision: Precision | None
) -> tuple[Precision | None, str]:
    """The precision to serve in, or None with the reason."""
    native = openvino_precisions()
    wanted = native if precision is None else (precision,)
    reasons = []
    for choice in wanted:
        report = next((one for one in reports if one.name == "openvino" and one.precision == choice), None)
        if choice not in native:
            reasons.append(f"this processor has no {choice}")
        elif report is None:
            if precision is not None or choice != "int8":  # which is an option
                reasons.append(f"it was not packaged in {choice}")
        elif not report.usable:
            reasons.append(f"in {choice}, {report.reason}")
        else:
            return choice, ""
    return None, "; ".join(reasons)


def hear_in_batches(
    hearing: Hearing, samples: NDArray[np.float32], sample_rate: int, hop_seconds: float | None
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float64]]]:
    """What `features.hear` gives, at most `BATCH_WINDOWS` windows at a time: inputs and starts in seconds."""
    waveform = resample(samples, sample_rate, hearing.sample_rate)
    window = hearing.window_samples
    hop = hearing.hop_samples if hop_seconds is None else max(1, round(hop_seconds * hearing.sample_rate))
    if len(waveform) <= window:
        windows, starts = cut_windows(waveform, window, hop, hearing.extend)
        yield represent(hearing, windows), starts / hearing.sample_rate
        return
    plan = plan_windows(len(waveform), window, hop)
    every = np.lib.stride_tricks.sliding_window_view(waveform, window)
    for first in range(0, len(plan), BATCH_WINDOWS):
        starts = plan[first : first + BATCH_WINDOWS]
        yield represent(hearing, every[starts]), starts / hearing.sample_rate


def _source(file: Path | str | bytes) -> Path | bytes:
    return Path(file) if isinstance(file, str) else file
