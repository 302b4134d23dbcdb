"""How many processors this process may use: of the machine, by affinity, and by its container's limit."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

SYSTEM = Path("/")
V1_CONTROLLERS = ("cpu", "cpu,cpuacct", "cpuacct,cpu")
"""Names under which version 1 of the control groups is mounted."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that limit the threads of PyTorch and of the linear algebra below NumPy and SciPy."""


def available_processors(system: Path = SYSTEM) -> int:
    """Processors that this process may use, at least 1.

    A container's CPU limit is a share of time, not of processors: `os.cpu_count()` and affinity do not show
    it, and more threads than it allows are throttled. A part of a processor counts as one.

    Args:
        system: the root of the file system in which the control groups are read.
    """
    limit = cpu_limit(system)
    processors = len(os.sched_getaffinity(0))
    return processors if limit is None else max(1, min(processors, math.ceil(limit)))


def cpu_limit(system: Path = SYSTEM) -> float | None:
    """Processors' worth of time that the control groups of this process allow; None where they limit nothing.

    Reads `cpu.max` (version 2) and `cpu.cfs_quota_us` (version 1), of the group and of those that it lies in.
    """
    limits = [limit for folder in _groups(system) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def limit_threads() -> None:
    """Set the variables that limit the threads of libraries, where a limit makes them fewer than processors.

    Libraries read them when they are loaded. What is set already stays.
    """
    processors = available_processors()
    if processors < len(os.sched_getaffinity(0)):
        for variable in THREAD_VARIABLES:
            os.environ.setdefault(variable, str(processors))


def _groups(system: Path) -> Iterator[Path]:
    """Folders of this process's control groups; in a container, its own group is the root of what it sees."""
    root = system / "sys/fs/cgroup"
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            mounts = [root, root / "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [root / name for name in V1_CONTROLLERS]
        else:
            continue
        path = PurePosixPath(group.lstrip("/"))
        for mount in mounts:
            for part in (path, *path.parents):
                yield mount / part


def _limit(group: Path) -> float | None:
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # `max` is no limit, and neither is -1
        return None
