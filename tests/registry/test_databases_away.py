"""A real PostgreSQL under the registry that stops or stands still, directly and behind a tracking server."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import servers

from genreflow import registry
from genreflow.core.errors import RegistryUnavailableError
from genreflow.registry import store
from pipelines import doctor

pytestmark = pytest.mark.timeout(900)


@contextmanager
def standing_still(port: int) -> Iterator[None]:
    """The processes that listen on that port take connections and answer none."""
    (listener,) = {
        one.pid
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid
    }
    processes = [psutil.Process(listener), *psutil.Process(listener).children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def away_within_seconds(what: str) -> None:
    """Every use is refused with that sentence, and none takes longer than the stated seconds."""
    uses: tuple[Callable[[], object], ...] = (
        registry.check,
        registry.versions,
        lambda: registry.fetch("champion"),
        lambda: registry.open_run("genreflow", {}),
        doctor._store,
    )
    for use in uses:
        began = time.monotonic()
        with pytest.raises(RegistryUnavailableError, match=what) as caught:
            use()
        assert time.monotonic() - began < store.REACH_SECONDS + 2, use
        assert "secret" not in str(caught.value)


def test_a_database_that_goes_away_is_reported_directly_and_behind_a_server(
    postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers.postgresql() as direct:  # of its own, to be stopped
        port = urlsplit(direct).port
        assert port is not None
        server = servers.mlflow_server(tmp_path, direct)
        with server as server_port:
            behind = f"http://127.0.0.1:{server_port}"
            for address in (direct, behind):
                monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
                registry.check()
                assert registry.versions() == []
            with standing_still(port):
                monkeypatch.setenv("MLFLOW_TRACKING_URI", direct)
                away_within_seconds(r"PostgreSQL database .* does not answer .*5 seconds")
                monkeypatch.setenv("MLFLOW_TRACKING_URI", behind)
                away_within_seconds(r"is up, but did not answer .* 5 seconds: check that its database")
            registry.check()
            _end(port)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", direct)
            away_within_seconds(r"PostgreSQL database .* does not answer .*refused")
            monkeypatch.setenv("MLFLOW_TRACKING_URI", behind)
            away_within_seconds(r"is up, but .*: check that its database is running")


def _end(port: int) -> None:
    for one in psutil.net_connections("tcp"):
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid:
            psutil.Process(one.pid).send_signal(2)  # PostgreSQL's fast shutdown
            psutil.Process(one.pid).wait(timeout=60)
            return
