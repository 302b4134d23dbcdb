"""The store's troubles as sentences within seconds, and the command that serves its web page."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from genreflow import registry
from genreflow.core import home
from genreflow.core.errors import GenreflowError, RegistryError, RegistryUnavailableError
from genreflow.registry import store


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield server.getsockname()[1]


def test_a_server_that_is_not_there_is_reported_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(
        RegistryError, match=r"does not answer.*connection refused.*MLFLOW_TRACKING_URI"
    ) as caught:
        registry.versions()
    assert time.monotonic() - began < 5
    assert "secret" not in str(caught.value)


def test_a_server_that_never_answers_is_reported_within_seconds(
    monkeypatch: pytest.MonkeyPatch, silent_server: int
) -> None:
    monkeypatch.setattr(store, "REACH_SECONDS", 0.5)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent_server}")
    began = time.monotonic()
    with pytest.raises(RegistryError, match=r"no answer in 0\.5 seconds"):
        registry.open_run("genreflow", {})
    assert time.monotonic() - began < 5


def test_a_name_that_does_not_resolve_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.invalid:5000")
    with pytest.raises(RegistryError, match=r"mlflow\.invalid"):
        registry.versions()


def test_a_file_that_is_no_database_is_reported_and_unchanged(store: Path) -> None:
    store.write_text("music")
    began = time.monotonic()
    with pytest.raises(RegistryError, match=r"mlflow\.db is not a SQLite database"):
        registry.versions()
    assert time.monotonic() - began < 5
    assert store.read_text() == "music"


def test_a_folder_in_the_place_of_the_database_is_reported(store: Path) -> None:
    store.unlink()
    store.mkdir()
    with pytest.raises(RegistryError, match="is a folder: MLFLOW_TRACKING_URI must"):
        registry.versions()


def test_a_home_that_is_a_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENREFLOW_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(RegistryError, match="cannot be opened"):
        registry.versions()


WRONG = {
    "gopher://somewhere": "no store of the kind gopher",
    "postgres://user:secret@db/mlflow": "write postgresql://db/mlflow",
    "postgresql+nothing://user:secret@db/mlflow": "no driver nothing for PostgreSQL",
    "postgresql://user:top/secret@db:port/mlflow": "no address of a database",
    "mysql+pymysql://user:secret@db/mlflow": "driver pymysql is not installed: pip install 'pymysql'",
    "postgresql+psycopg2://user:secret@db/mlflow": "pip install 'psycopg2-binary'",
    "mlflow:5000": "for a server write http://mlflow:5000",
    "10.0.0.1:5000": "for a server write http://10.0.0.1:5000",
    "mlflow.example.org/prefix": "for a server write http://mlflow.example.org/prefix",
    "mlruns.db": "for a SQLite file write sqlite:////.*/mlruns.db ",
    "./mlruns": "for a SQLite file write sqlite:////.*/mlruns ",
    "file:///mlruns": "no store in a folder of files",
    "file:mlruns": "no store in a folder of files",
    "sqlite:mlflow.db": "names no SQLite file",
    "sqlite://mlflow.db": "names no SQLite file",
    "sqlite:///:memory:": "names no SQLite file",
}


@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
@pytest.mark.parametrize("uri", WRONG)
def test_a_uri_of_no_store_is_rejected_with_what_to_write(
    uri: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, uri)
    for use in (registry.versions, registry.check):
        began = time.monotonic()
        with pytest.raises(RegistryError, match=WRONG[uri]) as caught:
            use()
        assert time.monotonic() - began < store.REACH_SECONDS
        assert variable in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_a_database_that_is_not_there_is_reported_within_seconds(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://user:secret@127.0.0.1:9/mlflow")
    for use in (registry.versions, registry.check):
        began = time.monotonic()
        with pytest.raises(
            RegistryUnavailableError, match=r"PostgreSQL database .* does not answer .*refused"
        ) as caught:
            use()
        assert time.monotonic() - began < store.REACH_SECONDS
        assert "secret" not in str(caught.value)


def test_a_database_that_never_answers_is_reported_within_seconds(
    monkeypatch: pytest.MonkeyPatch, silent_server: int
) -> None:
    monkeypatch.setattr(store, "REACH_SECONDS", 0.5)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://user@127.0.0.1:{silent_server}/mlflow")
    began = time.monotonic()
    with pytest.raises(RegistryUnavailableError, match=r"no answer in 0\.5 seconds"):
        registry.versions()
    assert time.monotonic() - began < 5


def test_a_registry_of_its_own_that_is_away_is_reported_within_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://127.0.0.1:9")
    with pytest.raises(RegistryUnavailableError, match="correct MLFLOW_REGISTRY_URI"):
        registry.versions()


READERS = {
    "versions": registry.versions,
    "champion": registry.champion,
    "version": lambda: registry.version("champion"),
    "fetch": lambda: registry.fetch("champion"),
    "rollback": lambda: registry.rollback("by ear"),
    "promotion": lambda: registry.set_champion("1", "by ear"),
    "page": lambda: registry.ui_command(0),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("uri", ["sqlite:///tmp/x.db", "sqlite:///x.db", "sqlite:////{folder}/tmp/x.db"])
def test_what_only_reads_makes_no_store(
    reader: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(folder=str(tmp_path / "work")[1:]))
    with pytest.raises(RegistryError, match=f"there is no {tmp_path}/work/.*x.db"):
        READERS[reader]()
    assert list((tmp_path / "work").iterdir()) == []


def test_what_only_reads_makes_no_embedded_store(store: Path) -> None:
    store.unlink()
    assert registry.versions() == []
    assert registry.champion() is None
    for reader in ("version", "fetch", "rollback", "promotion", "page"):
        with pytest.raises(RegistryError, match=f"registry is empty .there is no {store}.: genreflow run"):
            READERS[reader]()
    assert not store.exists()


def test_a_run_makes_no_store_in_a_folder_that_three_slashes_did_not_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///tmp/x.db")
    for use in (registry.check, lambda: registry.open_run("genreflow", {})):
        with pytest.raises(
            RegistryError, match=r"four an absolute one, as sqlite:////tmp/x.db; or make the folder"
        ):
            use()
    assert list((tmp_path / "work").iterdir()) == []
    Path("tmp").mkdir()
    registry.check()


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


def test_a_port_in_use_is_reported(silent_server: int) -> None:
    with pytest.raises(GenreflowError, match=f"Port {silent_server} .* choose another with --port"):
        registry.ui_command(silent_server)


def test_a_port_that_cannot_be_is_reported() -> None:
    with pytest.raises(GenreflowError, match="Port 70000"):
        registry.ui_command(70_000)


def test_a_tracking_server_has_its_page_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@mlflow:5000")
    assert registry.ui_address() == "http://user:***@mlflow:5000"
    with pytest.raises(RegistryError, match=r"open http://user:\*\*\*@mlflow:5000"):
        registry.ui_command(5000)


def test_the_first_use_creates_the_store_silently(
    first_use: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = first_use
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (folder / "mlflow.db").is_file()


def test_importing_the_registry_does_not_import_mlflow() -> None:
    code = "import sys, genreflow.registry; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_experiment_that_others_made_is_shown_with_its_training_runs() -> None:
    client = MlflowClient(home.tracking_uri())
    kinds = {}
    for name, chosen in (
        ("made by others", None),
        ("guessed", "genai_development_inferred"),
        ("chosen", "x"),
    ):
        tags = {} if chosen is None else {"mlflow.experimentKind": chosen}
        made = client.create_experiment(name, artifact_location=home.artifact_root(), tags=tags)
        registry.open_run(name, {})
        kinds[name] = client.get_experiment(made).tags["mlflow.experimentKind"]
    training = "custom_model_development"
    assert kinds == {"made by others": training, "guessed": training, "chosen": "x"}


@pytest.mark.parametrize("variable", ["MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"])
def test_the_platforms_experiment_is_shown_with_its_training_runs(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    client = MlflowClient(home.tracking_uri())
    experiment = client.create_experiment("kfp", artifact_location=home.artifact_root())
    named = client.create_run(experiment).info.run_id if variable == "MLFLOW_RUN_ID" else experiment
    monkeypatch.setenv(variable, named)
    registry.open_run("another", {})
    assert client.get_experiment(experiment).tags["mlflow.experimentKind"] == "custom_model_development"
