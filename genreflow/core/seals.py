"""Seals of finished artifacts: a file beside the folder that records what lay in it."""

import json
from pathlib import Path

from genreflow.core.digests import file_digest

SEAL_SUFFIX = ".seal.json"
SEALED_BY_DIGEST_BYTES = 1 << 20
"""A seal records the digest of files up to this size, size and modification time of larger ones: every run
checks all seals before it starts."""


def seal(folder: Path) -> None:
    """Write down, in a file beside an artifact that is finished, what lies in it."""
    files = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    seen = {name: _seen(path) for name, path in files.items()}
    seal_file(folder).write_text(json.dumps(seen, indent=2) + "\n")


def verify_seal(folder: Path) -> str | None:
    """What is no longer as it was when the artifact was sealed; None where nothing is.

    Files that came later are no harm. Of a file over a megabyte, a change that leaves size and modification
    time as they were is not seen.
    """
    try:
        sealed = json.loads(seal_file(folder).read_text())
        for name, seen in sealed.items():
            if not (folder / name).is_file():
                return f"{folder / name} is gone"
            if _seen(folder / name) != seen:
                return f"{folder / name} was altered"
    except (OSError, ValueError, AttributeError) as error:
        return f"{seal_file(folder)} cannot be read ({type(error).__name__})"
    return None


def seal_file(folder: Path) -> Path:
    """Where the seal of an artifact lies: beside its folder."""
    return folder.with_name(folder.name + SEAL_SUFFIX)


def _seen(path: Path) -> dict[str, int | str]:
    stat = path.stat()
    if stat.st_size <= SEALED_BY_DIGEST_BYTES:
        return {"bytes": stat.st_size, "sha256": file_digest(path)}
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
