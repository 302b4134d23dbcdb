"""What lies in a packaged model's folder: file names, digest, verification, reference windows."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genreflow.core.digests import file_digest, text_digest
from genreflow.core.documents import ModelDocument, PackagedDocument
from genreflow.core.errors import ModelError, one_line

PICKLES = frozenset({".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pt2", ".pth"})
"""Suffixes of files that may hold a pickle, which runs code when loaded."""
MODEL_FOLDER = "model"
OPENVINO_FOLDER = "openvino"
OPENVINO_MODEL = f"{OPENVINO_FOLDER}/model.xml"
OPENVINO_INT8 = f"{OPENVINO_FOLDER}/int8.xml"
"""Present only where int8 is served."""
ONNX_FOLDER = "onnx"
ONNX_MODEL = f"{ONNX_FOLDER}/model.onnx"
OPENVINO_WEIGHTS = frozenset({f"{OPENVINO_FOLDER}/model.bin", f"{OPENVINO_FOLDER}/int8.bin"})
REFERENCE_FILE = "reference.npz"
SETTINGS_WITHOUT_ANSWERS = frozenset({"views", "backbone"})
"""Family settings that decide how a model is trained but, once it is written, not what it predicts."""


def read_reference(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Reference windows (n, *input shape) of a packaged folder, and the trained model's fp32 probabilities.

    Raises:
        ModelError: the file is missing or unreadable.
    """
    path = Path(folder) / REFERENCE_FILE
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["inputs"], arrays["probabilities"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} has no readable reference windows: {one_line(error)}. Package the model anew."
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
                "safetensors, skops, JSON, ONNX and OpenVINO files only. Remove it if you trust the rest."
            )


def model_digest(document: ModelDocument, files: dict[str, str]) -> str:
    """The identity of a packaged model: sha256 over its weights and what else decides its answers.

    Run, timings and training settings are left out, so that an identical retraining has an identical digest.
    So is an exported form, which follows from the weights; but weights served in int8 are another model.

    Args:
        files: sha256 of every file of the packaged folder.
    """
    settings = {key: value for key, value in document.settings.items() if key not in SETTINGS_WITHOUT_ANSWERS}
    return text_digest(
        [
            document.family,
            json.dumps(settings, sort_keys=True),
            json.dumps(document.genres),
            json.dumps(document.input_spec.model_dump(), sort_keys=True),
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


def package_differences(folder: Path, document: PackagedDocument, native: bool = True) -> Iterator[str]:
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
    for part in (MODEL_FOLDER, OPENVINO_FOLDER, ONNX_FOLDER):
        for path in sorted((folder / part).rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and name not in document.files:
                yield f"{name} was added since it was packaged"
    if model_digest(document.model, document.files) != document.digest:
        yield f"{PackagedDocument.file_name} was altered: its digest does not match its content"
