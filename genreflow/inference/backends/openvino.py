"""OpenVINO: an exported model on the CPU, in f32, bf16 or int8."""

import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from genreflow.core.documents import ModelDocument
from genreflow.core.errors import ModelError, one_line
from genreflow.core.openvino import import_openvino
from genreflow.core.processors import available_processors, cpu_limit
from genreflow.inference.backends import Backend, Predict
from genreflow.inference.package_files import OPENVINO_INT8, OPENVINO_MODEL
from genreflow.inference.parity import Precision


class OpenVino(Backend):
    """OpenVINO on the CPU."""

    name: ClassVar[str] = "openvino"
    title: ClassVar[str] = "OpenVINO"

    def precisions(self, device: str = "auto") -> tuple[Precision, ...]:
        return openvino_precisions()

    def device(self, wanted: str = "auto") -> str:
        return "cpu"

    def load(self, folder: Path, document: ModelDocument, precision: Precision, device: str) -> Predict:
        return compile_openvino(
            folder / (OPENVINO_INT8 if precision == "int8" else OPENVINO_MODEL), precision
        )


def compile_openvino(path: Path, precision: Precision) -> Predict:
    """Compile an OpenVINO IR for this processor.

    The precision is always set: OpenVINO's default is bf16 wherever the processor has it. What an int8 IR
    leaves unquantised is computed in bf16 where the processor has it, else in f32.

    Raises:
        ModelError: OpenVINO cannot read or compile the file.
    """
    ov = import_openvino()
    hint = ov.properties.hint
    float_type = ov.Type.f32
    if precision == "bf16" or (precision == "int8" and "bf16" in openvino_precisions()):
        float_type = ov.Type.bf16
    properties = {
        hint.inference_precision: float_type,
        hint.performance_mode: hint.PerformanceMode.LATENCY,
    }
    if cpu_limit() is not None:
        # OpenVINO counts the machine's processors, and a container's limit throttles what is more
        properties[ov.properties.inference_num_threads] = available_processors()
    try:
        compiled = ov.Core().compile_model(path, "CPU", properties)
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot load {path}: {one_line(error)}") from error
    request = compiled.create_infer_request()
    # One request uses every core; a lock keeps a service's threads from sharing its buffers.
    lock = threading.Lock()

    def predict(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        with lock:
            return np.array(request.infer([inputs])[0], dtype=np.float32)

    return predict


def openvino_precisions() -> tuple[Precision, ...]:
    """What this processor computes natively in OpenVINO, fastest first."""
    native = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    fastest_first: tuple[Precision, ...] = ("int8", "bf16", "f32")
    return tuple(one for one in fastest_first if one == "f32" or one.upper() in native)
