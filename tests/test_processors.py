"""Numeric tests as on other processors: instruction sets that this one has are hidden from the libraries."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genreflow.inference.processor import instruction_set

ROOT = Path(__file__).parent.parent
PYTORCH = ("tests/families", "tests/training")
OPENVINO = "tests/packaging"
AVX512 = {"ATEN_CPU_CAPABILITY": "avx512"}
PROCESSORS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    # without OpenVINO (2026.4): where oneDNN may not use the AVX-512 that is there, it ends in a segmentation
    # fault
    "AVX2": ({"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}, PYTORCH),
    "AVX512_CORE": (AVX512, (*PYTORCH, OPENVINO)),
    "AVX512_CORE_VNNI": (AVX512, (*PYTORCH, OPENVINO)),
}
"""By the limit of oneDNN, which PyTorch and OpenVINO compute with: what else limits, and where tests lie."""
HERE = [limit for limit in PROCESSORS if limit == "AVX2" or "avx512f" in instruction_set().split()]
"""Those up to what this processor has: ATen uses AVX-512 where it is named, and without it ends by SIGILL."""


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("limit", HERE)
def test_numeric_tests_hold_on_other_processors(limit: str) -> None:
    variables, places = PROCESSORS[limit]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "-m", "numeric", *places],
        cwd=ROOT,
        env=environment | variables | {"ONEDNN_MAX_CPU_ISA": limit},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
