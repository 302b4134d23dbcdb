"""A real MLflow store on SQLite for every test, and candidates to register in it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from candidates import Candidate, Populated, write_corpus, write_evaluation, write_packaged
from corpora import split_of

from genreflow.core import home


@pytest.fixture(scope="session")
def first_use(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A state folder in which a store was made, and what that printed."""
    folder = tmp_path_factory.mktemp("first") / "home"
    code = "from genreflow.registry import store; store.connect(create=True)"
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment | {"GENREFLOW_HOME": str(folder)},
        check=False,
    )
    return folder, done


@pytest.fixture(scope="session")
def migrated(first_use: tuple[Path, object]) -> Path:
    """An empty store with its tables: MLflow takes seconds to make them."""
    return first_use[0] / "mlflow.db"


@pytest.fixture(autouse=True)
def store(migrated: Path, _own_home: None) -> Path:
    """The embedded store of this test's own state folder."""
    path = home.home() / "mlflow.db"
    path.parent.mkdir(parents=True)
    shutil.copy(migrated, path)
    return path


@pytest.fixture
def candidate(tmp_path: Path) -> Callable[..., Candidate]:
    """Make a candidate of its own seed; `model`, `evaluation` and `corpus` change fields of its documents."""

    def make(
        seed: int = 0,
        accuracy: float = 0.8,
        model: dict[str, Any] | None = None,
        evaluation: dict[str, Any] | None = None,
        corpus: dict[str, Any] | None = None,
    ) -> Candidate:
        root = tmp_path / f"candidate {seed}"
        made = Candidate(root / "packaged", root / "evaluation", root / "corpus")
        write_packaged(made.packaged, seed, model or {})
        write_corpus(made.corpus, corpus or {})
        write_evaluation(made.evaluation, made.packaged, accuracy, evaluation or {})
        return made

    return make


@pytest.fixture(scope="session")
def three_versions(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Populated]:
    """The state folder of such a store; its artifacts stay there, its database is copied to each test."""
    from genreflow import registry

    root = tmp_path_factory.mktemp("three")
    (root / "home").mkdir()
    shutil.copy(migrated, root / "home" / "mlflow.db")
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENREFLOW_HOME", str(root / "home"))
        for seed in range(3):
            folders = Candidate(*(root / f"{seed}" / part for part in ("packaged", "evaluation", "corpus")))
            write_packaged(folders.packaged, seed, {"synthetic": seed == 0})
            write_corpus(folders.corpus, {"synthetic": seed == 0})
            write_evaluation(folders.evaluation, folders.packaged, 0.7 + seed / 10, {})
            registry.register(
                folders.packaged, folders.evaluation, folders.corpus, split_of(folders.corpus), None
            )
            made.append(folders)
    return root / "home", Populated(tuple(made))


@pytest.fixture
def populated(three_versions: tuple[Path, Populated], store: Path) -> Populated:
    """This test's own store, with three versions."""
    shutil.copy(three_versions[0] / "mlflow.db", store)
    return three_versions[1]
