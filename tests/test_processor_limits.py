"""Processors that a process may use in a container with a CPU limit, which `os.cpu_count()` does not show."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genreflow.core import processors
from genreflow.core.processors import THREAD_VARIABLES, available_processors, cpu_limit, limit_threads
from tests.conftest import need

V1 = Path("/sys/fs/cgroup/cpu")
V2 = Path("/sys/fs/cgroup/cgroup.controllers")


def system(folder: Path, cgroup: str, files: dict[str, str]) -> Path:
    """A root with this /proc/self/cgroup and these files under /sys/fs/cgroup."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        path = folder / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


V2_CONTAINER = ("0::/\n", {"cpu.max": "20000 100000\n"})
V2_HOST = ("0::/kubepods/pod1/c1\n", {"kubepods/pod1/c1/cpu.max": "max 100000\n"})
V2_NESTED = (
    "0::/kubepods/pod1/c1\n",
    {"kubepods/pod1/c1/cpu.max": "max 100000\n", "kubepods/pod1/cpu.max": "150000 100000\n"},
)
V1_CONTAINER = (
    # the path is the host's, and the container sees its own group as the root of what is mounted
    "4:memory:/kubepods/c1\n3:cpu,cpuacct:/kubepods/c1\n",
    {"cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
)
V1_FREE = ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"})
CPUSET = ("1:cpuset:/\n", {"cpu.max": "20000 100000\n"})


@pytest.mark.parametrize(
    ("made", "limit"),
    [
        (V2_CONTAINER, 0.2),
        (V2_HOST, None),
        (V2_NESTED, 1.5),
        (V1_CONTAINER, 0.5),
        (V1_FREE, None),
        (CPUSET, None),
        (("", {}), None),
    ],
    ids=["v2", "v2 unlimited", "v2 of the pod", "v1", "v1 unlimited", "another controller", "none"],
)
def test_the_limit_of_a_container_is_read(
    made: tuple[str, dict[str, str]], limit: float | None, tmp_path: Path
) -> None:
    root = system(tmp_path, *made)
    assert cpu_limit(root) == limit
    processors = len(os.sched_getaffinity(0))
    assert available_processors(root) == (processors if limit is None else min(processors, 1 + (limit > 1)))


def test_a_system_without_control_groups_limits_nothing(tmp_path: Path) -> None:
    assert cpu_limit(tmp_path) is None


COUNT = """
import inspect, json, os, sys
from pathlib import Path
Path(sys.argv[1]).write_text(str(os.getpid()))
from genreflow.core.processors import available_processors, limit_threads
limit_threads()
import numpy as np
import torch
from genreflow.core.openvino import convert_module, save_model
from genreflow.inference.backends.openvino import compile_openvino
model = Path(sys.argv[2]) / "model.xml"
save_model(convert_module(torch.nn.Linear(8, 4).eval(), np.zeros((2, 8), np.float32)), model)
request = inspect.getclosurevars(compile_openvino(model, "f32")).nonlocals["request"]
openvino = request.get_compiled_model().get_property("INFERENCE_NUM_THREADS")
found = {"processors": available_processors(), "torch": torch.get_num_threads(), "openvino": openvino}
print(json.dumps(found))
"""


def test_a_real_control_group_limits_the_threads_of_pytorch_and_openvino(tmp_path: Path) -> None:
    writable = os.access(V1, os.W_OK) and not V2.exists()
    several = len(os.sched_getaffinity(0)) > 1
    need(writable and several, "a writable control group of version 1, or a second processor,")
    group = V1 / f"genreflow-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_quota_us").write_text("50000")
        done = subprocess.run(
            [sys.executable, "-c", COUNT, str(group / "cgroup.procs"), str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            env={name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES},
        )
    finally:
        group.rmdir()
    assert json.loads(done.stdout) == {"processors": 1, "torch": 1, "openvino": 1}


def test_threads_that_a_person_has_set_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(processors, "cpu_limit", lambda *_: 2.0)
    for variable in THREAD_VARIABLES:
        monkeypatch.setenv(variable, "")  # so that it is restored, also where it was not set
        monkeypatch.delenv(variable)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    limit_threads()
    assert [os.environ[variable] for variable in THREAD_VARIABLES] == ["3", "2", "2"]
    for variable in THREAD_VARIABLES:
        monkeypatch.delenv(variable)
