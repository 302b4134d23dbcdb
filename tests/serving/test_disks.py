"""Disks that are full or cannot be written: a sentence that says which folder, and what to do."""

import os
import subprocess
from pathlib import Path

import pytest
from disks import read_only, small
from services import CLI, Champion


def sentence(before: list[str], *arguments: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [*before, *CLI, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("genreflow: ")
    assert "unexpected" not in line
    return line


@pytest.mark.parametrize("kilobytes", [4, 40, 600])
def test_a_full_disk_under_bentomls_stores(kilobytes: int, champion: Champion, tmp_path: Path) -> None:
    """At first for the lock, then for the model, then for the bento."""
    stores = tmp_path / "stores"
    stores.mkdir()
    environment = champion.environment | {"BENTOML_HOME": str(stores)}
    said = sentence(small(stores, kilobytes), "build", "--no-page", environment=environment)
    assert str(stores) in said
    assert "No space left on device" in said
    assert "BENTOML_HOME" in said


@pytest.mark.parametrize("store", ["in the state folder", "elsewhere"])
def test_a_state_folder_that_is_read_only(store: str, champion: Champion, tmp_path: Path) -> None:
    home = champion.root / "home" if store == "in the state folder" else tmp_path / "home"
    home.mkdir(exist_ok=True)
    environment = {"GENREFLOW_HOME": str(home)}
    if store == "elsewhere":
        environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{champion.root / 'home' / 'mlflow.db'}"
    said = sentence(read_only(home), "classify", str(champion.song), environment=environment)
    assert str(home) in said
    assert "cannot be written" in said
    assert "GENREFLOW_HOME" in said
