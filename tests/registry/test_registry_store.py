"""The store's troubles as sentences within seconds, and the command that serves its web page."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from genreflow import home, registry
from genreflow.errors import GenreflowError, RegistryError
from genreflow.registry import store


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield server.getsockname()[1]


def test_a_server_that_is_not_there_is_told_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(
        RegistryError, match=r"does not answer.*connection refused.*MLFLOW_TRACKING_URI"
    ) as caught:
        registry.versions()
    assert time.monotonic() - began < 5
    assert "secret" not in str(caught.value)


def test_a_server_that_never_answers_is_told_within_seconds(
    monkeypatch: pytest.MonkeyPatch, silent_server: int
) -> None:
    monkeypatch.setattr(store, "REACH_SECONDS", 0.5)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent_server}")
    began = time.monotonic()
    with pytest.raises(RegistryError, match=r"no answer in 0\.5 seconds"):
        registry.open_run("genreflow", {})
    assert time.monotonic() - began < 5


def test_a_name_that_does_not_resolve_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.invalid:5000")
    with pytest.raises(RegistryError, match=r"mlflow\.invalid"):
        registry.versions()


def test_a_file_that_is_no_database_is_told_and_left_alone(store: Path) -> None:
    store.write_text("music")
    began = time.monotonic()
    with pytest.raises(RegistryError, match=r"mlflow\.db is not a SQLite database"):
        registry.versions()
    assert time.monotonic() - began < 5
    assert store.read_text() == "music"


def test_a_folder_in_the_place_of_the_database_is_told(store: Path) -> None:
    store.unlink()
    store.mkdir()
    with pytest.raises(RegistryError, match="is a folder"):
        registry.versions()


def test_a_home_that_is_a_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENREFLOW_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(RegistryError, match="cannot be opened"):
        registry.versions()


def test_an_unknown_kind_of_store_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://somewhere")
    with pytest.raises(RegistryError, match="gopher"):
        registry.versions()


def test_the_page_is_served_from_the_right_store_on_the_loopback() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv, environment = registry.ui_command(port)
    command = " ".join(argv)
    assert f"--backend-store-uri {home.tracking_uri()}" in command
    assert f"--allowed-hosts localhost:{port},127.0.0.1:{port}" in command
    assert "--host 127.0.0.1" in command
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_port_in_use_is_told(silent_server: int) -> None:
    with pytest.raises(GenreflowError, match=f"Port {silent_server} .* choose another with --port"):
        registry.ui_command(silent_server)


def test_a_port_that_cannot_be_is_told() -> None:
    with pytest.raises(GenreflowError, match="Port 70000"):
        registry.ui_command(70_000)


def test_a_tracking_server_has_its_page_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@mlflow:5000")
    assert registry.ui_address() == "http://user:***@mlflow:5000"
    with pytest.raises(RegistryError, match=r"open http://user:\*\*\*@mlflow:5000"):
        registry.ui_command(5000)


def test_the_first_use_makes_the_store_without_a_word(
    first_use: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = first_use
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (folder / "mlflow.db").is_file()


def test_importing_the_registry_does_not_import_mlflow() -> None:
    code = "import sys, genreflow.registry; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
