"""Export of a trained model to the form that its family is served in: OpenVINO's IR, or ONNX."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genreflow.core.documents import ModelDocument
from genreflow.families import family
from genreflow.inference.package_files import ONNX_MODEL, OPENVINO_MODEL


def export(model: Path, document: ModelDocument, inputs: NDArray[np.float32], out: Path) -> None:
    """Write a model in its family's exported form into `out`, the packaged model's folder.

    Raises:
        ModelError: the model cannot be converted.
        GenreflowError: it cannot be written.
    """
    if family(document.family).exported_runtime == "onnxruntime":
        family(document.family).export_onnx(model, document, inputs, out / ONNX_MODEL)
    else:
        export_openvino(model, document, inputs, out / OPENVINO_MODEL)


def export_openvino(model: Path, document: ModelDocument, inputs: NDArray[np.float32], path: Path) -> None:
    """Write a model as OpenVINO IR in fp32: `inputs` (any number of windows, *input shape) to `logits`.

    Args:
        model: the folder with the family's native files.
        inputs: (n, *input shape) real windows, with which a torch module is traced.

    Raises:
        ModelError: the model cannot be converted.
        GenreflowError: it cannot be written.
    """
    family(document.family).export_openvino(model, document, inputs, path)
