"""Disks that are full or cannot be written, for this process or for one command."""

import contextlib
import resource
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import need

NAMESPACE = ["unshare", "--mount", "--map-root-user"]


@contextlib.contextmanager
def little_room(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes until the end of the block: writing fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def read_only(folder: Path) -> list[str]:
    """What to put before a command for which a folder cannot be written, not even by root."""
    place = shlex.quote(str(folder))
    return _mounting(f"mount --bind {place} {place} && mount -o remount,bind,ro {place}")


def small(folder: Path, kilobytes: int) -> list[str]:
    """What to put before a command for which a folder is an empty disk of that size."""
    return _mounting(f"mount -t tmpfs -o size={kilobytes}k tmpfs {shlex.quote(str(folder))}")


def _mounting(mount: str) -> list[str]:
    """The mount is seen by the command alone, and ends with it."""
    done = subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False)
    need(done.returncode == 0, "unshare, or the right to mount")
    return [*NAMESPACE, "sh", "-c", f'{mount} && exec "$@"', "sh"]
