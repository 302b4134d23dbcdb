"""Digests of files, texts and of this code: what identifies an artifact's content."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from genreflow.core.version import VERSION


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_md5(path: Path) -> str:
    """md5 of a file's bytes, in hexadecimal: for what others published, never for trust."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def text_digest(parts: Iterable[str]) -> str:
    """sha256 over strings, each ended by a newline, in the order given."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\n")
    return digest.hexdigest()


def code_digest() -> str:
    """sha256 over the library's own Python files: changed code, new cache keys."""
    root = Path(__file__).parent.parent
    files = sorted(root.rglob("*.py"))
    return text_digest(f"{path.relative_to(root).as_posix()} {file_digest(path)}" for path in files)


def code_version() -> str:
    """The version of the library with the first twelve characters of its code digest."""
    return f"{VERSION}+{code_digest()[:12]}"
