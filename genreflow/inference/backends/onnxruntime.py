"""ONNX Runtime: a model exported to ONNX, on the CPU, in f32."""

import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from genreflow.core.documents import ModelDocument
from genreflow.core.errors import ModelError, one_line
from genreflow.inference.backends import Backend, Predict
from genreflow.inference.package_files import ONNX_MODEL
from genreflow.inference.parity import Precision

SEVERITY = 3
"""Errors alone are logged."""


class OnnxRuntime(Backend):
    """ONNX Runtime on the CPU."""

    name: ClassVar[str] = "onnxruntime"
    title: ClassVar[str] = "ONNX Runtime"
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    modules: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def precisions(self, device: str = "auto") -> tuple[Precision, ...]:
        return ("f32",)

    def device(self, wanted: str = "auto") -> str:
        return "cpu"

    def load(self, folder: Path, document: ModelDocument, precision: Precision, device: str) -> Predict:
        return load_onnx(folder / ONNX_MODEL)


def load_onnx(path: Path) -> Predict:
    """`predict` over an ONNX file from `inputs` to `logits`.

    Raises:
        ModelError: ONNX Runtime is not installed, or cannot read the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            f"ONNX Runtime is not installed here ({error}): install it with pip install onnxruntime."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SEVERITY
    options.intra_op_num_threads = 1  # a window takes microseconds
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # whatever reading a damaged file raises
        raise ModelError(f"ONNX Runtime cannot load {path}: {one_line(error)}") from error
    lock = threading.Lock()

    def predict(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        with lock:
            return np.asarray(session.run(["logits"], {"inputs": inputs})[0], dtype=np.float32)

    return predict
