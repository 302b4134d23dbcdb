"""The image that every component runs in. Its name carries the code: KFP's cache looks at the name only."""

import hashlib
import os
from pathlib import Path

from genreflow.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("genreflow", "components", "serving")
DIGITS = 12


def image() -> str:
    """`GENREFLOW_IMAGE` where set, else `genreflow:<version>-<digest of the code>`.

    A prebuilt image has to be named by digest, or by a tag that changes with its content: a step behind an
    unchanged name is taken from the cache.
    """
    return os.environ.get("GENREFLOW_IMAGE") or f"genreflow:{VERSION}-{_code_digest()}"


def _code_digest() -> str:
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:DIGITS]


IMAGE = image()
