"""What tests share: the folder of shared things, and the rule that CI skips nothing."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# a machine under load is slow: an example that takes long is no failure
settings.register_profile("genreflow", deadline=None)
settings.load_profile("genreflow")

os.environ["HF_HUB_OFFLINE"] = "1"  # no test reaches a hub; it is read when huggingface_hub is imported

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"


def need(present: bool, what: str) -> None:
    """Skip where this machine lacks `what`; fail instead in CI, where nothing may be missing."""
    if present:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and CI skips nothing")
    pytest.skip(f"{what} is missing on this machine")


@pytest.fixture(scope="session")
def shared() -> Path:
    """`../shared`: GTZAN clips, a pretrained encoder, reference tables."""
    need(SHARED.is_dir(), "../shared")
    return SHARED


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own state folder."""
    monkeypatch.setenv("GENREFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
