"""Export of a shallow classifier to ONNX: rows of descriptors to logits of all genres."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from genreflow.core.errors import ModelError, one_line
from genreflow.families.shallow.estimators import FLOOR
from genreflow.families.shallow.search import ABSENT_LOGIT, Fitted

OPSET = 18
ML_OPSET = 3
OLD_OPSET = 15
"""onnxmltools' own limit."""


def export(fitted: Fitted, name: str, features: int, genres: int, path: Path) -> None:
    """Write an ONNX model from `inputs` (n, features) float32 to `logits` (n, genres) float32.

    Args:
        name: of the classifier.
        features: values of a row.
        genres: number of genres, also of those that the classifier has never seen.

    Raises:
        ModelError: it cannot be converted.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the converters' own
            model = _converted(fitted.estimator, name, features)
        _append_logits(model, name, fitted.classes.tolist(), genres)
    except ModelError:
        raise
    except Exception as error:  # whatever a converter raises: the model is served by scikit-learn then
        raise ModelError(f"it cannot be converted to ONNX ({one_line(error, first=True)})") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def _converted(estimator: Any, name: str, features: int) -> Any:
    if name == "xgboost":
        from onnxmltools import convert_xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType

        return convert_xgboost(
            estimator, initial_types=[("inputs", FloatTensorType([None, features]))], target_opset=OLD_OPSET
        )
    if name == "knn" and estimator[-1].weights != "uniform":
        # seen with skl2onnx 1.20: 8 % of decisions differ, which parity on few windows may not show
        raise ModelError("skl2onnx weighs neighbours by another power of their distance")
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    options: dict[str, Any] = {"zipmap": False}
    if name == "svm":
        options["raw_scores"] = True  # its decision values: SVC has no probabilities
    return to_onnx(
        estimator,
        initial_types=[("inputs", FloatTensorType([None, features]))],
        options={id(estimator[-1]): options},
        target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
    )


def _append_logits(model: Any, name: str, classes: list[int], genres: int) -> None:
    """Replace the converter's outputs by `logits`: logarithms, and a constant for genres without rows."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    (scores,) = [output.name for output in graph.output if "label" not in output.name]
    column_of = {label: column for column, label in enumerate(classes)}
    columns = np.asarray([column_of.get(label, len(classes)) for label in range(genres)])
    constants: dict[str, np.ndarray[Any, Any]] = {
        "genreflow_floor": np.asarray(FLOOR, np.float32),
        "genreflow_columns": columns.astype(np.int64),
        "genreflow_pads": np.asarray([0, 0, 0, 1], np.int64),
        "genreflow_fill": np.asarray(ABSENT_LOGIT, np.float32),
    }
    nodes = []
    current = scores
    if name != "svm":
        nodes.append(helper.make_node("Max", [current, "genreflow_floor"], ["genreflow_floored"]))
        nodes.append(helper.make_node("Log", ["genreflow_floored"], ["genreflow_log"]))
        current = "genreflow_log"
    nodes.append(helper.make_node("Pad", [current, "genreflow_pads", "genreflow_fill"], ["genreflow_padded"]))
    nodes.append(helper.make_node("Gather", ["genreflow_padded", "genreflow_columns"], ["logits"], axis=1))
    used = {name for node in nodes for name in node.input}
    graph.initializer.extend(
        numpy_helper.from_array(value, key) for key, value in constants.items() if key in used
    )
    graph.node.extend(nodes)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, genres]))
