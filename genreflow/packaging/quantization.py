"""Post-training quantisation to int8 (NNCF), kept only where it is as good and faster."""

import contextlib
import io
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genreflow.core import progress
from genreflow.core.documents import ModelDocument, RuntimeReport
from genreflow.core.errors import HOW_TO_INSTALL_TRAINING, ModelError, one_line
from genreflow.core.openvino import import_openvino
from genreflow.corpus.store import Corpus
from genreflow.inference.backends.openvino import OpenVino
from genreflow.inference.classifier import Classifier
from genreflow.inference.package_files import OPENVINO_INT8, OPENVINO_MODEL
from genreflow.packaging.measurement import measure, unusable
from genreflow.packaging.windows import real_windows

CALIBRATION_WINDOWS = 128
"""Training windows whose activations set int8's ranges."""
INT8_PARITY_WINDOWS = 200
"""Real windows on which int8 is compared: more than of the others, which deviate less."""
INT8_SPEED = 1.1
"""Times as fast as the fastest other precision, at least: int8 loses accuracy and has to be worth it."""
INT8_NLL_INCREASE = 0.02
"""Nats by which the negative log-likelihood of validation clips may be larger than in fp32.

The temperature was fitted to fp32's logits: what int8 loses of it shows here, before it shows in a decision.
exp(0.02) is 1.02: on average the true genre is given 2 % less of its probability, which is less than another
training seed changes.
"""
INT8_NLL_CLIPS = 200
"""Clips at most over which it is measured, spread over the split."""
SMALLEST_PROBABILITY = 1e-12
HEAVY_SHARE = 0.6
"""Of a model's multiplications: where int8 deviates, it is kept to the fewest operations that do so many."""
CHANNEL_AXIS = {"Convolution": 1, "GroupConvolution": 1, "MatMul": -1}
"""Of the results of OpenVINO's operations with weights."""


def quantize_where_better(
    out: Path, document: ModelDocument, clips: Corpus, others: list[RuntimeReport], reference: Classifier
) -> RuntimeReport:
    """The report of int8: usable where it predicts like fp32, as well calibrated, and faster than any other.

    Of the whole model or, where that deviates too far, of its heaviest operations alone.

    Args:
        others: reports of the other runtimes and precisions.
        reference: the trained weights in fp32.
    """
    name = OpenVino.name
    rivals = [one for one in others if one.name == name and one.usable]
    if not any(one.precision == "f32" for one in rivals):
        return unusable(name, "int8", "OpenVINO does not serve this model in f32 either")
    if "int8" not in OpenVino().precisions():
        return unusable(name, "int8", "the processor that packaged it has no int8")
    calibration = real_windows(document, clips, CALIBRATION_WINDOWS, ("train", "validation"))
    # few validation clips are little evidence: training clips, easier as they are, fill up
    unseen = real_windows(document, clips, INT8_PARITY_WINDOWS)
    inputs = np.concatenate([unseen, calibration])[:INT8_PARITY_WINDOWS]
    expected = reference.probabilities(reference.logits(inputs))
    f32 = Classifier(document, OpenVino().load(out, document, "f32", "cpu"), name, "f32")
    fastest = min(rivals, key=lambda one: one.latency_ms_p50)
    path = out / OPENVINO_INT8
    reasons: list[str] = []
    for what, heavy_alone in (("all of it", False), ("its heaviest operations alone", True)):
        progress.report("package", f"quantising to int8 by {len(calibration)} windows: {what}")
        try:
            quantize(out / OPENVINO_MODEL, calibration, path, heavy_alone)
        except ModelError as error:
            return unusable(name, "int8", str(error))
        progress.report("package", f"comparing int8 on {len(inputs)} windows")

        def load() -> Classifier:
            return Classifier(document, OpenVino().load(out, document, "int8", "cpu"), name, "int8")

        report = measure(load, name, "int8", inputs, expected)
        slow = _too_slow(report, fastest)
        if report.usable and slow is None:
            report = _calibrated(report, load(), f32, clips)
            if report.usable:
                return report
        for part in (path, path.with_suffix(".bin")):
            part.unlink()
        reasons.append(f"{what}: {report.reason or slow}")
        if report.usable:
            break
    return report.model_copy(update={"usable": False, "reason": "; ".join(reasons)})


def _calibrated(report: RuntimeReport, int8: Classifier, f32: Classifier, clips: Corpus) -> RuntimeReport:
    """The report with int8's increase of the negative log-likelihood of clips; unusable by it.

    Of validation clips, of training clips where there are none.
    """
    split = "validation" if clips.rows("validation", 1) else "train"
    rows = clips.rows(split, INT8_NLL_CLIPS)
    what = f"{len(rows)} {'validation' if split == 'validation' else 'training'} clips"
    progress.report("package", f"comparing the likelihood of int8 on {what}")
    increase = mean_nll(int8, clips, rows) - mean_nll(f32, clips, rows)
    if increase <= INT8_NLL_INCREASE:
        return report.model_copy(update={"nll_increase": increase})
    reason = (
        f"the negative log-likelihood of {what} is larger by {increase:.3f} nats than in fp32; at most "
        f"{INT8_NLL_INCREASE:g} is served"
    )
    return report.model_copy(update={"nll_increase": increase, "usable": False, "reason": reason})


def mean_nll(classifier: Classifier, clips: Corpus, rows: Sequence[int]) -> float:
    """Mean negative log-likelihood of the true genre over clips, in nats, as the clips are classified."""
    label = {genre: index for index, genre in enumerate(classifier.document.genres)}
    losses = []
    for row in rows:
        logits, _ = classifier.window_logits(clips.samples(row), clips.sample_rate(row))
        chance = classifier.probabilities(logits)[:, label[clips.manifest["genre"].iloc[row]]].mean()
        losses.append(-math.log(max(float(chance), SMALLEST_PROBABILITY)))
    return float(np.mean(losses))


def _too_slow(report: RuntimeReport, fastest: RuntimeReport) -> str | None:
    if report.latency_ms_p50 * INT8_SPEED <= fastest.latency_ms_p50:
        return None
    return (
        f"{report.latency_ms_p50:.1f} ms a window is not {INT8_SPEED:g} times as fast as "
        f"{fastest.precision} with {fastest.latency_ms_p50:.1f} ms"
    )


def quantize(ir: Path, inputs: NDArray[np.float32], path: Path, heavy_alone: bool = False) -> None:
    """Write an OpenVINO IR with int8 weights and activations (NNCF, post-training).

    Args:
        ir: the IR in fp32.
        inputs: (n, *input shape) windows whose activations set the ranges.
        heavy_alone: leave all but the heaviest operations as they are.

    Raises:
        ModelError: NNCF is not installed, or cannot quantise the model.
    """
    openvino = import_openvino()
    try:
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParameters, RangeEstimatorParametersSet
    except ImportError as error:
        raise ModelError(f"int8 needs NNCF ({error}): {HOW_TO_INSTALL_TRAINING}.") from error
    # nncf.set_log_level would do so with every handler at its logger, those of others included
    logging.getLogger("nncf").setLevel(logging.ERROR)
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
        raise ModelError(f"it cannot be quantised ({one_line(error, first=True)})") from error
    openvino.save_model(quantized, path, compress_to_fp16=False)


def light_operations(ir: Path, shape: tuple[int, ...]) -> list[str]:
    """Names of a model's convolutions and matrix products, but for the heaviest that do `HEAVY_SHARE` of it.

    Args:
        ir: the IR in fp32.
        shape: of one window.
    """
    model = import_openvino().Core().read_model(ir)
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
