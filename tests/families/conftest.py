"""Corpora for the families that are trained from scratch."""

from pathlib import Path

import pytest
from fitted import short_corpus, synthetic_corpus


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENREFLOW_HOME", str(home))
        return synthetic_corpus(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_corpus(tmp_path_factory.mktemp("short"))
