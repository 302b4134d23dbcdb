"""The champion and the service that the tests of this folder share."""

from collections.abc import Iterator

import pytest
from services import Champion, Service, crowned, running


@pytest.fixture(scope="session")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Champion:
    """A registered champion with its bento; to be copied by whoever changes it."""
    return crowned(tmp_path_factory.mktemp("champion"))


@pytest.fixture(scope="session")
def service(champion: Champion) -> Iterator[Service]:
    """One service for all tests that leave it as it was."""
    with running(champion) as service:
        yield service
