"""Native files of family `shallow`: skops or XGBoost's JSON, read by the version that wrote them."""

import io
import json
import re
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from genreflow.core.errors import HOW_TO_INSTALL_TRAINING, ModelError, one_line
from genreflow.families.shallow.search import Fitted

CONFIG_FILE, SKOPS_FILE, XGBOOST_FILE = "config.json", "model.skops", "model.json"
ARCHITECTURE = "shallow/1"
"""Changes whenever older files no longer fit."""
TRUSTED = ("sklearn.tree._tree.Tree",)
"""Types beyond those that skops trusts by itself; the folder's digests are verified before it is read."""
SCHEMA = "schema.json"
ADDRESS = re.compile(r'(?<="__id__": )\d+|(?<=")\d+(?=\.np[yz]")')
ADDRESS_NAME = re.compile(r"^\d+(?=\.np[yz]$)")
"""Where a skops archive has addresses in memory: of objects in its schema, and in names of arrays."""
PACKAGES = {SKOPS_FILE: "scikit-learn", XGBOOST_FILE: "xgboost-cpu"}
"""Whose exact version a file is read by: neither guarantees to read what another version wrote."""


def save(name: str, fitted: Fitted, features: int, folder: Path) -> None:
    """Write a fitted classifier and what it is.

    Args:
        name: of the classifier.
        features: values of a row.
    """
    file = XGBOOST_FILE if name == "xgboost" else SKOPS_FILE
    if file == XGBOOST_FILE:
        fitted.estimator.save_model(folder / file)
    else:
        import skops.io

        (folder / file).write_bytes(_reproducible(skops.io.dumps(fitted.estimator)))
    config = {
        "architecture": ARCHITECTURE,
        "classifier": name,
        "classes": fitted.classes.tolist(),
        "features": features,
        "file": file,
        "version": metadata.version(PACKAGES[file]),
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _reproducible(archive: bytes) -> bytes:
    """A skops archive without the times and addresses in memory that differ from one fit to an equal one.

    A model's identity is the digest of its files: fitted anew on the same clips it is the same model.
    """
    numbers: dict[str, str] = {}

    def numbered(found: "re.Match[str]") -> str:
        return numbers.setdefault(found[0], str(len(numbers)))

    with zipfile.ZipFile(io.BytesIO(archive)) as given:
        schema = ADDRESS.sub(numbered, given.read(SCHEMA).decode())
        members = {ADDRESS_NAME.sub(numbered, name): given.read(name) for name in given.namelist()}
    members[SCHEMA] = schema.encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as written:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name)  # of 1980
            entry.compress_type = zipfile.ZIP_DEFLATED
            written.writestr(entry, members[name])
    return buffer.getvalue()


def load(folder: Path, genres: tuple[str, ...]) -> tuple[Fitted, dict[str, Any]]:
    """Read what `save` wrote: the classifier and its configuration.

    Raises:
        ModelError: files are missing, unreadable, of another version or of other genres.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_text())
        architecture, file, version = config["architecture"], config["file"], config["version"]
        classes = np.asarray(config["classes"], np.int64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} holds no readable shallow model ({CONFIG_FILE}): {error}") from error
    if architecture != ARCHITECTURE or file not in PACKAGES:
        raise ModelError(
            f"{folder} holds {architecture}, and this version reads {ARCHITECTURE}: train it anew."
        )
    _check_version(folder, PACKAGES[file], version)
    if len(classes) and int(classes.max()) >= len(genres):
        raise ModelError(
            f"The classifier in {folder} has a genre {classes.max() + 1}, and its document {len(genres)}."
        )
    return Fitted(_read(folder / file), classes), config


def _check_version(folder: Path, package: str, version: str) -> None:
    try:
        installed = metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            f"{folder} needs {package} {version}, which is not installed here: {HOW_TO_INSTALL_TRAINING}."
        ) from error
    if installed != version:
        raise ModelError(
            f"{folder} was written by {package} {version}, and {installed} is installed, which may read it "
            f"wrongly: install {package}=={version}, or train it anew."
        )


def _read(path: Path) -> Any:
    try:
        if path.name == XGBOOST_FILE:
            from xgboost import XGBClassifier

            estimator = XGBClassifier(n_jobs=1)
            estimator.load_model(path)
            return estimator
        import skops.io

        return skops.io.load(path, trusted=list(TRUSTED))
    except Exception as error:  # whatever reading a damaged or hostile file raises
        raise ModelError(f"{path} cannot be read: {one_line(error)}.") from error
