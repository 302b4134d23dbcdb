"""Submitting to Kubeflow, up to the HTTP edge: a real server that answers as the KFP API does."""

import json
import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.image import ROOT
from genreflow.errors import GenreflowError, SettingsError
from pipelines import cluster
from pipelines.cli import app
from pipelines.cluster import submit
from pipelines.settings import settings


class KubeflowApi(ThreadingHTTPServer):
    """The few endpoints that a submission uses."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.posted: dict[str, dict[str, Any]] = {}
        self.states = ["SUCCEEDED"]
        """What a run's state is, look by look; the last stays."""
        self.wanted: dict[str, str] = {}
        """Headers without which a request is turned away."""
        self.turned_away = (401, "Unauthorized")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: KubeflowApi

    def do_GET(self) -> None:
        if not self.known():
            return
        if "/runs/" in self.path:
            states = self.server.states
            self.reply({"run_id": "r1", "state": states.pop(0) if len(states) > 1 else states[0]})
        elif "healthz" in self.path:
            self.reply({"multi_user": False})
        else:
            self.reply({})

    def do_POST(self) -> None:
        if not self.known():
            return
        kind = self.path.partition("?")[0].rstrip("/").rsplit("/", 1)[-1]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posted[kind] = body
        ids = {"experiments": "experiment_id", "runs": "run_id", "recurringruns": "recurring_run_id"}
        self.reply({**body, ids[kind]: f"{kind[0]}1"})

    def known(self) -> bool:
        """Whether the caller may come in; otherwise it is told, as Kubeflow's gateways do."""
        if all(self.headers.get(name) == value for name, value in self.server.wanted.items()):
            return True
        status, words = self.server.turned_away
        content = f"<html>{words}</html>".encode()
        self.send_response(status, words)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return False

    def reply(self, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeflowApi]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    server = KubeflowApi()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_run_is_started_with_the_compiled_pipeline(api: KubeflowApi) -> None:
    result = submit(settings(), api.url, experiment="genres")
    assert result == {"run_id": "r1", "url": f"{api.url}/#/runs/details/r1"}
    assert api.posted["experiments"]["display_name"] == "genres"
    spec = api.posted["runs"]["pipeline_spec"]
    assert "genreflow-training" in json.dumps(spec)
    assert api.posted["runs"]["experiment_id"] == "e1"


def test_waiting_ends_with_the_runs_state(api: KubeflowApi) -> None:
    assert submit(settings(), api.url, wait=True)["state"] == "succeeded"
    for state in ("FAILED", "SKIPPED", "CANCELED"):
        api.states = [state]
        with pytest.raises(GenreflowError, match=f"ended as {state.lower()}"):
            submit(settings(), api.url, wait=True)


def test_waiting_looks_again_until_the_run_has_ended(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "SECONDS_BETWEEN_LOOKS", 0.01)
    api.states = ["RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING", "CANCELING", "CANCELED"]
    with pytest.raises(GenreflowError, match="ended as canceled"):
        submit(settings(), api.url, wait=True)


def test_a_run_that_outlasts_the_waiting_is_told_as_that(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "SECONDS_TO_WAIT", 0)
    api.states = ["RUNNING"]
    with pytest.raises(GenreflowError, match="Run r1 is still running"):
        submit(settings(), api.url, wait=True)


LOGINS = [
    ("KF_PIPELINES_TOKEN", "secret", {"authorization": "Bearer secret"}),
    ("KF_PIPELINES_SA_TOKEN_PATH", "token", {"authorization": "Bearer in-the-file"}),
    ("KF_PIPELINES_COOKIE", "authservice_session=abc", {"Cookie": "authservice_session=abc"}),
]


@pytest.mark.parametrize(("variable", "value", "headers"), LOGINS)
@pytest.mark.parametrize("turned_away", [(401, "Unauthorized"), (403, "RBAC: access denied"), (200, "Login")])
def test_a_token_or_cookie_of_the_environment_is_shown_to_kubeflow(
    api: KubeflowApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    headers: dict[str, str],
    turned_away: tuple[int, str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("token").write_text("in-the-file\n")
    api.wanted, api.turned_away = headers, turned_away
    with pytest.raises(GenreflowError, match="KF_PIPELINES_TOKEN"):
        submit(settings(), api.url)
    assert api.posted == {}
    monkeypatch.setenv(variable, value)
    assert submit(settings(), api.url, wait=True)["state"] == "succeeded"


def test_a_token_renewed_in_its_file_is_read_again_while_waiting(
    api: KubeflowApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token))
    api.wanted = {"authorization": "Bearer old"}
    api.states = ["RUNNING", "SUCCEEDED"]

    def renew(_: float) -> None:
        token.write_text("new")
        api.wanted = {"authorization": "Bearer new"}

    monkeypatch.setattr(cluster.time, "sleep", renew)
    assert submit(settings(), api.url, wait=True)["state"] == "succeeded"


def test_a_token_file_that_is_not_there_is_a_sentence(
    api: KubeflowApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="KF_PIPELINES_SA_TOKEN_PATH"):
        submit(settings(), api.url)


def test_the_readmes_lines_submit_a_run(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (ROOT / "README.md").read_text().replace("\\\n", " ")
    section = readme.partition("## On Kubeflow")[2].partition("\n## ")[0].splitlines()
    for line in section:
        if line.startswith("export "):
            name, _, value = shlex.split(line, comments=True)[1].partition("=")
            monkeypatch.setenv(name, value.replace("…", "secret"))
    (line,) = [line for line in section if line.startswith("genreflow submit ")]
    typed = shlex.split(line)[1:]
    typed[typed.index("--host") + 1] = api.url
    api.wanted = {"authorization": "Bearer secret"}
    app(typed, standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["state"] == "succeeded"
    assert "registry.example.org" in json.dumps(api.posted["runs"])


def test_kfp_writes_nothing_among_the_results(api: KubeflowApi, capsys: pytest.CaptureFixture[str]) -> None:
    submit(settings(), api.url)
    assert capsys.readouterr().out == ""


def test_a_schedule_becomes_a_recurring_run(api: KubeflowApi) -> None:
    assert submit(settings(), api.url, cron="0 0 3 * * *") == {"recurring_run_id": "r1"}
    job = api.posted["recurringruns"]
    assert job["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert "runs" not in api.posted


def test_an_api_that_does_not_answer_is_a_sentence(api: KubeflowApi) -> None:
    url = api.url
    api.shutdown()
    api.server_close()
    with pytest.raises(GenreflowError, match="does not answer"):
        submit(settings(), url)


def test_waiting_for_a_schedule_is_refused() -> None:
    with pytest.raises(SettingsError, match="--wait"):
        submit(settings(), "http://127.0.0.1:1", cron="0 0 3 * * *", wait=True)


@pytest.mark.parametrize("tracking", [None, "sqlite:///mlflow.db", "mlruns", "file:///mlruns"])
def test_pods_without_a_shared_mlflow_server_are_refused(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch, tracking: str | None
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    if tracking is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    with pytest.raises(SettingsError, match="one MLflow server"):
        submit(settings(), api.url)
    if tracking is not None:
        with pytest.raises(SettingsError, match=tracking):
            submit(settings(assignments=[f"resources.environment.MLFLOW_TRACKING_URI={tracking}"]), api.url)
    assert api.posted == {}
    server = "resources.environment.MLFLOW_TRACKING_URI=http://mlflow:5000"
    assert submit(settings(assignments=[server]), api.url)["run_id"] == "r1"
