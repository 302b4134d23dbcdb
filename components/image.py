"""The image that every component runs in. Its name carries the code: KFP's cache looks at the name only."""

import hashlib
import importlib.metadata
import os
from pathlib import Path

from packaging.requirements import Requirement

from genreflow.artifacts import text_digest
from genreflow.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("genreflow", "components", "serving")
LOCK = "requirements.lock"
DIGITS = 12


def image(root: Path = ROOT) -> str:
    """`genreflow:<version>-<digest of the code under root and of its lock>`, the same on every machine."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    lock = root / LOCK
    digest.update(lock.read_bytes() if lock.is_file() else b"")
    return f"genreflow:{VERSION}-{digest.hexdigest()[:DIGITS]}"


IMAGE = image()


def cluster_image() -> str:
    """What pods run in: `GENREFLOW_IMAGE` where set, else `IMAGE`.

    A prebuilt image has to be named by digest, or by a tag that changes with its content: a step behind an
    unchanged name is taken from the cache.
    """
    return os.environ.get("GENREFLOW_IMAGE") or IMAGE


def subprocess_image(packages: list[str] | None = None) -> str:
    """What stands for an image where steps are processes of this machine: this code with these packages.

    Args:
        packages: `name==version` of what is installed; `installed_packages()` where None.
    """
    packages = installed_packages() if packages is None else packages
    return f"{IMAGE}-{text_digest(packages)[:DIGITS]}"


def installed_packages() -> list[str]:
    """`name==version`, as installed here, of all that the library's core and its training stand on."""
    found = []
    for line in importlib.metadata.requires("genreflow") or []:
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate({"extra": "train"}):
            try:
                found.append(f"{need.name}=={importlib.metadata.version(need.name)}")
            except importlib.metadata.PackageNotFoundError:
                found.append(f"{need.name} is not installed")
    return sorted(found)
