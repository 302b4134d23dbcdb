"""From a trained model to what is served: runtimes, their parity with PyTorch, their latency, a digest."""

import contextlib
import io
import logging
import math
import shutil
import time
import warnings
from collections.abc import Callable
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from genreflow import progress, runtime
from genreflow.artifacts import (
    ModelDocument,
    PackagedDocument,
    PackagingSettings,
    RuntimeReport,
    code_version,
    file_digest,
)
from genreflow.corpus.store import Corpus
from genreflow.errors import HOW_TO_INSTALL_TRAINING, CorpusError, GenreflowError, ModelError
from genreflow.features import hear
from genreflow.runtime import PARITY, Classifier, Precision

if TYPE_CHECKING:
    from torch import nn

PARITY_WINDOWS = 32
"""Real windows on which each runtime is compared with PyTorch fp32."""
REFERENCE_WINDOWS = 8
"""Of these, how many lie in the package for a service to check itself at start-up."""
CALIBRATION_WINDOWS = 128
"""Training windows whose activations set int8's ranges."""
INT8_PARITY_WINDOWS = 200
"""Real windows on which int8 is compared: more than of the others, of which less is to be feared."""
INT8_SPEED = 1.1
"""Times as fast as the fastest other precision, at least: what int8 costs in answers has to pay."""
HEAVY_SHARE = 0.6
"""Of a model's multiplications: where int8 deviates, it is kept to the fewest operations that do so many."""
CHANNEL_AXIS = {"Convolution": 1, "GroupConvolution": 1, "MatMul": -1}
"""Of the results of OpenVINO's operations with weights."""
LATENCY_REPEATS = 15
LATENCY_WARM_UP = 2
LATENCY_SECONDS = 20.0
"""No more time than this goes into one runtime's latency, however slow the model."""
SPARE_SECONDS = 0.1
"""Cut with a window so that resampling cannot leave it a sample short."""

log = logging.getLogger("genreflow")


def package(
    model: Path, corpus: Path, out: Path, settings: PackagingSettings | None = None
) -> PackagedDocument:
    """Package a trained model: native files, OpenVINO IR, reference windows, parity and latency, digest.

    A runtime that cannot be made, or whose answers on real windows differ from PyTorch fp32 by more than
    `runtime.PARITY` allows, is kept in the document with its reason and never served.

    Args:
        model: a folder with `genreflow.json` and the family's native files.
        corpus: where real windows are taken from: validation clips, or training clips where there are none.
        out: the folder to write; created where missing.

    Raises:
        ModelError: the model cannot be loaded or holds a pickle.
        CorpusError: the corpus has no clips to take windows from.
    """
    model, out = Path(model), Path(out)
    settings = settings or PackagingSettings()
    runtime.refuse_pickles(model)
    document = ModelDocument.read(model)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copytree(model, out / runtime.MODEL_FOLDER, dirs_exist_ok=True)

    progress.report("package", "choosing real windows for parity")
    clips = Corpus.open(corpus)
    inputs = real_windows(document, clips, PARITY_WINDOWS)
    progress.report("package", f"answering {len(inputs)} windows with PyTorch in fp32")
    pytorch = runtime.load_pytorch(out / runtime.MODEL_FOLDER, document, "f32", "cpu")
    expected = pytorch.probabilities(pytorch.logits(inputs))
    if not np.isfinite(expected).all():
        raise ModelError(f"The model in {model} does not answer real music with numbers: train it anew.")
    np.savez(
        out / runtime.REFERENCE_FILE,
        inputs=inputs[:REFERENCE_WINDOWS],
        probabilities=expected[:REFERENCE_WINDOWS],
    )

    reports = [measure(lambda: pytorch, "pytorch", "f32", inputs, expected)]
    reports += _pytorch_on_cuda(out / runtime.MODEL_FOLDER, document, inputs, expected)
    reports += _openvino(out, document, inputs, expected)
    if settings.int8:
        reports.append(_int8(out, document, clips, reports))
    for report in reports:
        _tell(report)

    names = sorted(
        path for path in out.rglob("*") if path.is_file() and path.name != PackagedDocument.file_name
    )
    files = {path.relative_to(out).as_posix(): file_digest(path) for path in names}
    packaged = PackagedDocument(
        digest=runtime.model_digest(document, files),
        model=document,
        files=files,
        runtimes=tuple(reports),
        processor=processor(),
        code_version=code_version(),
    )
    packaged.write(out)
    return packaged


def real_windows(
    document: ModelDocument,
    corpus: Corpus,
    count: int,
    splits: tuple[str, ...] = ("validation", "train"),
) -> NDArray[np.float32]:
    """Up to `count` windows of real clips, the genres in turn, as the model takes them: (n, *input shape).

    The middle of each clip first; where there are fewer clips than windows asked for, other places of them.

    Args:
        splits: the first that has clips is taken.

    Raises:
        CorpusError: there are no validation and no training clips.
    """
    rows: list[int] = next(filter(None, map(corpus.rows, splits)), [])
    if not rows:
        raise CorpusError(
            "The corpus has neither validation nor training clips, and parity is measured on real windows: "
            "package with the corpus that the model was trained on."
        )
    genres = corpus.manifest["genre"]
    by_genre = [[row for row in rows if genres.iloc[row] == genre] for genre in document.genres]
    in_turn = [row for row in chain.from_iterable(zip_longest(*by_genre)) if row is not None]
    places = [(row, place) for place in (0.5, 0.15, 0.85, 0.3) for row in in_turn]
    places = [
        (row, place)
        for row, place in places
        if place == 0.5 or len(corpus.samples(row)) > _length(document, corpus, row)
    ]
    return np.concatenate([_window(document, corpus, row, place) for row, place in places[:count]])


def _length(document: ModelDocument, corpus: Corpus, row: int) -> int:
    """Samples of a clip that surely hold a window."""
    return round((document.hearing.window_seconds + SPARE_SECONDS) * corpus.sample_rate(row))


def _window(document: ModelDocument, corpus: Corpus, row: int, place: float) -> NDArray[np.float32]:
    samples, rate = corpus.samples(row), corpus.sample_rate(row)
    length = _length(document, corpus, row)
    start = round(max(0, len(samples) - length) * place)
    inputs, _ = hear(document.hearing, samples[start : start + length], rate)
    return inputs[:1]


def export_openvino(model: Path, document: ModelDocument, inputs: NDArray[np.float32], path: Path) -> None:
    """Write a model as OpenVINO IR in fp32: `inputs` (any number of windows, *input shape) to `logits`.

    Args:
        model: the folder with the family's native files.
        inputs: (n, *input shape) real windows, with which the module is traced.

    Raises:
        ModelError: the module cannot be converted.
        GenreflowError: it cannot be written.
    """
    import torch

    from genreflow.families import family

    openvino = runtime.openvino()
    kind = family(document.family)
    module = kind.load(model, kind.settings_type.model_validate(document.settings), document.genres)
    fuse_parametrizations(module)
    # Two windows: tracing with one would turn the batch dimension into a constant wherever it is broadcast.
    example = torch.from_numpy(np.ascontiguousarray(inputs[[0, -1]]))
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            # Tracing warns of every shape check in the model; parity, measured afterwards, is what counts.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            converted = openvino.convert_model(
                _logits_only(module), example_input=example, input=[-1, *inputs.shape[1:]]
            )
    except Exception as error:  # whatever tracing or conversion raises: the model is served by PyTorch then
        raise ModelError(f"it cannot be converted ({_first_line(error)})") from error
    converted.inputs[0].get_tensor().set_names({"inputs"})
    converted.outputs[0].get_tensor().set_names({"logits"})
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        openvino.save_model(converted, path, compress_to_fp16=False)
    except RuntimeError as error:  # it does not tell why
        raise GenreflowError(
            f"OpenVINO could not write {path} ({_first_line(error)}): make room there, and run again."
        ) from error


def quantize(ir: Path, inputs: NDArray[np.float32], path: Path, heavy_alone: bool = False) -> None:
    """Write an OpenVINO IR with int8 weights and activations (NNCF, post-training).

    Args:
        ir: the IR in fp32.
        inputs: (n, *input shape) windows whose activations set the ranges.
        heavy_alone: leave all but the heaviest operations as they are.

    Raises:
        ModelError: NNCF is not installed, or cannot quantise the model.
    """
    openvino = runtime.openvino()
    try:
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParameters, RangeEstimatorParametersSet
    except ImportError as error:
        raise ModelError(f"int8 needs NNCF ({error}): {HOW_TO_INSTALL_TRAINING}.") from error
    nncf.set_log_level(logging.ERROR)
    model = openvino.Core().read_model(ir)
    attends = any(operation.get_type_name() == "ScaledDotProductAttention" for operation in model.get_ops())
    # few operations can afford better ranges, which take twice the time: half the deviation on HuBERT
    ranges = RangeEstimatorParametersSet.MEAN_QUANTILE if heavy_alone else RangeEstimatorParameters()
    try:
        left = light_operations(ir, inputs.shape[1:]) if heavy_alone else []
        with contextlib.redirect_stdout(io.StringIO()):  # it draws progress bars
            quantized = nncf.quantize(
                model,
                nncf.Dataset([window[None] for window in inputs]),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(inputs),
                model_type=nncf.ModelType.TRANSFORMER if attends else None,
                ignored_scope=nncf.IgnoredScope(names=left),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=ranges
                ),
            )
    except (
        Exception
    ) as error:  # whatever NNCF and OpenVINO raise: the model is served in another precision then
        raise ModelError(f"it cannot be quantised ({_first_line(error)})") from error
    openvino.save_model(quantized, path, compress_to_fp16=False)


def light_operations(ir: Path, shape: tuple[int, ...]) -> list[str]:
    """Names of a model's convolutions and matrix products, but for the heaviest that do `HEAVY_SHARE` of it.

    Args:
        ir: the IR in fp32.
        shape: of one window.
    """
    model = runtime.openvino().Core().read_model(ir)
    model.reshape([1, *shape])
    work = {
        operation.get_friendly_name(): _multiplications(operation)
        for operation in model.get_ops()
        if operation.get_type_name() in CHANNEL_AXIS
    }
    heaviest_first = sorted(work, key=lambda name: -work[name])
    before = np.cumsum([0, *(work[name] for name in heaviest_first)])[:-1]
    return [
        name
        for name, done in zip(heaviest_first, before, strict=True)
        if done >= HEAVY_SHARE * sum(work.values())
    ]


def _multiplications(operation: Any) -> int:
    """Of an operation with constant weights; 0 of one on two activations."""
    weights = operation.input_value(1)
    if weights.get_node().get_type_name() != "Constant":
        return 0
    results = operation.get_output_shape(0)
    channels = results[CHANNEL_AXIS[operation.get_type_name()]]
    return math.prod(weights.get_shape()) * math.prod(results) // channels


def fuse_parametrizations(module: "nn.Module") -> None:
    """Replace parametrised weights (HuBERT's weight norm) by their values: constants to whoever traces."""
    from torch.nn.utils import parametrize

    for part in module.modules():
        if parametrize.is_parametrized(part):
            for name in list(part.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(part, name)


def measure(
    load: Callable[[], Classifier],
    name: Literal["openvino", "pytorch"],
    precision: Precision,
    inputs: NDArray[np.float32],
    expected: NDArray[np.float32],
) -> RuntimeReport:
    """Parity and latency of one runtime on real windows; unusable, with its reason, where it fails.

    Args:
        inputs: (n, *input shape) real windows.
        expected: (n, genres) probabilities in fp32, PyTorch's or (of int8) OpenVINO's.
    """
    try:
        classifier = load()
        probabilities = classifier.probabilities(classifier.logits(inputs))
        p50, p95 = latency(classifier, inputs)
    except Exception as error:  # a runtime that fails is not served; the others are
        return unusable(name, precision, _first_line(error))
    difference = float(np.nan_to_num(np.abs(probabilities - expected), nan=1.0).max())
    agreement = float((probabilities.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return RuntimeReport(
        name=name,
        precision=precision,
        usable=parity_problem(precision, difference, agreement) is None,
        reason=parity_problem(precision, difference, agreement),
        max_probability_difference=difference,
        decision_agreement=agreement,
        latency_ms_p50=p50,
        latency_ms_p95=p95,
    )


def parity_problem(precision: Precision, difference: float, agreement: float) -> str | None:
    """Why answers that far from PyTorch fp32 are not served, or None where they are near enough."""
    allowed = PARITY[precision]
    if difference > allowed.probability_difference:
        return (
            f"its probabilities differ from those in fp32 by up to {difference:.4f}; at most "
            f"{allowed.probability_difference:g} is served"
        )
    if agreement < allowed.decision_agreement:
        return (
            f"it decides as fp32 does on {agreement:.1%} of the windows; at least "
            f"{allowed.decision_agreement:.0%} is served"
        )
    return None


def unusable(name: Literal["openvino", "pytorch"], precision: Precision, reason: str) -> RuntimeReport:
    """The report of a runtime that gives no answers here."""
    return RuntimeReport(
        name=name,
        precision=precision,
        usable=False,
        reason=reason,
        max_probability_difference=1.0,
        decision_agreement=0.0,
        latency_ms_p50=0.0,
        latency_ms_p95=0.0,
    )


def latency(classifier: Classifier, inputs: NDArray[np.float32]) -> tuple[float, float]:
    """Milliseconds for one window, model only: median and 95th percentile of up to `LATENCY_REPEATS`."""
    began = time.perf_counter()
    for repeat in range(LATENCY_WARM_UP):
        classifier.logits(inputs[repeat % len(inputs)][None])
    times: list[float] = []
    while len(times) < LATENCY_REPEATS and (not times or time.perf_counter() - began < LATENCY_SECONDS):
        window = inputs[len(times) % len(inputs)][None]
        start = time.perf_counter()
        classifier.logits(window)
        times.append((time.perf_counter() - start) * 1e3)
    p50, p95 = np.percentile(times, [50, 95])
    return float(p50), float(p95)


def processor() -> str:
    """This machine's processor by name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown processor")


def _openvino(
    out: Path, document: ModelDocument, inputs: NDArray[np.float32], expected: NDArray[np.float32]
) -> list[RuntimeReport]:
    progress.report("package", "exporting to OpenVINO")
    path = out / runtime.OPENVINO_MODEL
    try:
        export_openvino(out / runtime.MODEL_FOLDER, document, inputs, path)
    except ModelError as error:
        log.warning("This model is not served by OpenVINO: %s.", error)
        return [unusable("openvino", precision, str(error)) for precision in ("f32", "bf16")]
    native = runtime.openvino_precisions()
    reports = []
    for precision in ("f32", "bf16"):
        if precision not in native:
            reports.append(
                unusable("openvino", precision, f"the processor that packaged it has no {precision}")
            )
            continue
        progress.report("package", f"measuring OpenVINO in {precision}")

        def compiled(precision: Precision = precision) -> Classifier:
            return Classifier(document, runtime.compile_openvino(path, precision), "openvino", precision)

        reports.append(measure(compiled, "openvino", precision, inputs, expected))
    return reports


def _int8(out: Path, document: ModelDocument, clips: Corpus, others: list[RuntimeReport]) -> RuntimeReport:
    """int8 where it earns its place: it decides alike on more windows, and is faster than any other.

    Of the whole model or, where that deviates too far, of its heaviest operations alone.
    """
    rivals = [one for one in others if one.name == "openvino" and one.usable]
    if not any(one.precision == "f32" for one in rivals):
        return unusable("openvino", "int8", "OpenVINO does not serve this model in f32 either")
    if "int8" not in runtime.openvino_precisions():
        return unusable("openvino", "int8", "the processor that packaged it has no int8")
    calibration = real_windows(document, clips, CALIBRATION_WINDOWS, ("train", "validation"))
    # few validation clips are little evidence: training clips, easier as they are, fill up
    unseen = real_windows(document, clips, INT8_PARITY_WINDOWS)
    inputs = np.concatenate([unseen, calibration])[:INT8_PARITY_WINDOWS]
    f32 = Classifier(
        document, runtime.compile_openvino(out / runtime.OPENVINO_MODEL, "f32"), "openvino", "f32"
    )
    expected = f32.probabilities(f32.logits(inputs))
    fastest = min(rivals, key=lambda one: one.latency_ms_p50)
    path = out / runtime.OPENVINO_INT8
    reasons: list[str] = []
    for what, heavy_alone in (("all of it", False), ("its heaviest operations alone", True)):
        progress.report("package", f"quantising to int8 by {len(calibration)} windows: {what}")
        try:
            quantize(out / runtime.OPENVINO_MODEL, calibration, path, heavy_alone)
        except ModelError as error:
            return unusable("openvino", "int8", str(error))
        progress.report("package", f"comparing int8 on {len(inputs)} windows")
        load = lambda: Classifier(  # noqa: E731
            document, runtime.compile_openvino(path, "int8"), "openvino", "int8"
        )
        report = measure(load, "openvino", "int8", inputs, expected)
        slow = _too_slow(report, fastest)
        if report.usable and slow is None:
            return report
        for part in (path, path.with_suffix(".bin")):
            part.unlink()
        reasons.append(f"{what}: {report.reason or slow}")
        if report.usable:
            break
    return report.model_copy(update={"usable": False, "reason": "; ".join(reasons)})


def _too_slow(report: RuntimeReport, fastest: RuntimeReport) -> str | None:
    if report.latency_ms_p50 * INT8_SPEED <= fastest.latency_ms_p50:
        return None
    return (
        f"{report.latency_ms_p50:.1f} ms a window is not {INT8_SPEED:g} times as fast as "
        f"{fastest.precision} with {fastest.latency_ms_p50:.1f} ms"
    )


def _pytorch_on_cuda(
    model: Path, document: ModelDocument, inputs: NDArray[np.float32], expected: NDArray[np.float32]
) -> list[RuntimeReport]:
    """PyTorch in bf16, as it is served on CUDA, where this machine has it."""
    import torch

    if not torch.cuda.is_available():
        return []
    progress.report("package", "measuring PyTorch in bf16 on CUDA")
    load = lambda: runtime.load_pytorch(model, document, "bf16", "cuda")  # noqa: E731
    return [measure(load, "pytorch", "bf16", inputs, expected)]


def _logits_only(module: "nn.Module") -> "nn.Module":
    from torch import Tensor, nn

    class LogitsOnly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, inputs: Tensor) -> Any:
            return self.module(inputs).logits

    return LogitsOnly().eval()


def _tell(report: RuntimeReport) -> None:
    where = f"{report.name} {report.precision}"
    if report.usable:
        text = (
            f"{where}: {report.latency_ms_p50:.1f} ms a window, probabilities within "
            f"{report.max_probability_difference:.1g} of fp32"
        )
    else:
        text = f"{where} is not served: {report.reason}"
    progress.report("package", text)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
