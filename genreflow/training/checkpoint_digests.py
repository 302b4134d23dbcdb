"""Whether a checkpoint's folder is what was written: digests of its files, which are written last."""

import json
from pathlib import Path

from genreflow.core.digests import file_digest

DIGESTS_FILE = "digests.json"


def seal(folder: Path) -> None:
    """Write down the digests of a checkpoint's files: it is whole from now on."""
    write_digests(
        folder,
        {
            path.name: file_digest(path)
            for path in sorted(folder.iterdir())
            if path.is_file() and not path.name.startswith(DIGESTS_FILE)
        },
    )


def write_digests(folder: Path, digests: dict[str, str]) -> None:
    """Write down digests that are known: sha256 by file name."""
    half = folder / f"{DIGESTS_FILE}.half"
    half.write_text(json.dumps(digests, indent=1))
    half.replace(folder / DIGESTS_FILE)


def digests_of(folder: Path) -> dict[str, str] | None:
    """sha256 by file name, as they were written down; None where none were."""
    try:
        digests = json.loads((folder / DIGESTS_FILE).read_text())
    except (OSError, ValueError):
        return None
    return digests if isinstance(digests, dict) else None


def verify_checkpoint(folder: Path) -> str | None:
    """What is wrong with a checkpoint, to follow its name in a sentence; None where it is whole."""
    digests = digests_of(folder)
    if digests is None:
        return "was not written to its end"
    for name, digest in digests.items():
        try:
            if file_digest(folder / name) != digest:
                return f"is damaged: {name} is not what was written"
        except OSError as error:
            return f"is damaged: {name} cannot be read ({error.strerror})"
    return None
