"""OpenVINO as this library loads it, and models written in its intermediate representation."""

import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genreflow.core.errors import GenreflowError, ModelError, one_line

if TYPE_CHECKING:
    from torch import nn


def import_openvino() -> Any:
    """The `openvino` module, without its telemetry: a missing `openvino_telemetry` turns it off."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")


def convert_module(module: "nn.Module", inputs: NDArray[np.float32]) -> Any:
    """An OpenVINO model of a torch module in fp32, from inputs to outputs with any number of rows.

    Args:
        module: in evaluation mode; one tensor in, one tensor out.
        inputs: (n, *input shape) real windows, with which the module is traced.

    Raises:
        ModelError: the module cannot be converted.
    """
    import torch

    openvino = import_openvino()
    # Two windows: tracing with one would turn the batch dimension into a constant wherever it is broadcast.
    example = torch.from_numpy(np.ascontiguousarray(inputs[[0, -1]]))
    try:
        with torch.inference_mode(), warnings.catch_warnings(), _root_logger_kept():
            # Tracing warns of every shape check in the model; parity, measured afterwards, is what counts.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            return openvino.convert_model(module, example_input=example, input=[-1, *inputs.shape[1:]])
    except Exception as error:  # whatever tracing or conversion raises: the model is served by PyTorch then
        raise ModelError(f"it cannot be converted ({one_line(error, first=True)})") from error


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Give the root logger back its level, filters and handlers after a block.

    OpenVINO's converter (2026.4) raises the level to ERROR, and restores it only where the conversion
    succeeds: after one that failed, no warning of this process would be logged.
    """
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers


def save_model(model: Any, path: Path) -> None:
    """Write an OpenVINO model of one input and one output, named `inputs` and `logits`, in fp32.

    Raises:
        GenreflowError: it cannot be written.
    """
    model.inputs[0].get_tensor().set_names({"inputs"})
    model.outputs[0].get_tensor().set_names({"logits"})
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import_openvino().save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:  # without a reason
        raise GenreflowError(
            f"OpenVINO could not write {path} ({one_line(error, first=True)}): make room there, and "
            "run again."
        ) from error
