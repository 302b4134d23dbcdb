"""Runs on Kubeflow waited for, listed, retried and cancelled, up to the HTTP edge."""

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler, dsl, kubernetes
from kubeflow_api import GONE, Document, KubeflowApi

from genreflow.core.errors import GenreflowError
from pipelines import cluster, cluster_steps, compiling, kubeflow
from pipelines.cli import app
from pipelines.comparison_settings import comparison_settings
from pipelines.settings import settings
from pipelines.step_states import StepState
from pipelines.steps import STEPS
from pipelines.submission import submit


def test_waiting_ends_with_the_runs_state(api: KubeflowApi) -> None:
    assert cluster.wait("r1", api.url)["state"] == "succeeded"
    for state in ("FAILED", "SKIPPED", "CANCELED"):
        api.states = [state]
        with pytest.raises(GenreflowError, match=f"ended as {state.lower()}"):
            cluster.wait("r1", api.url)


def test_waiting_looks_again_until_the_run_has_ended(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.01)
    api.states = ["RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING", "CANCELING", "CANCELED"]
    with pytest.raises(GenreflowError, match="ended as canceled"):
        cluster.wait("r1", api.url)


def test_a_run_that_outlasts_the_waiting_is_reported_as_unfinished(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "SECONDS_TO_WAIT", 0)
    api.states = ["RUNNING"]
    with pytest.raises(GenreflowError, match="Run r1 is still running"):
        cluster.wait("r1", api.url)


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
    assert cluster.wait("r1", api.url)["state"] == "succeeded"


@pytest.mark.usefixtures("soon")
def test_waiting_outlasts_a_server_that_is_away(
    api: KubeflowApi, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeflow, "SECONDS_TO_ANSWER", 0.5)
    gateway = [(503, "no healthy upstream"), (502, ""), (500, json.dumps({"message": "database is away"}))]
    api.faults = [*gateway * 20, None, None]
    with caplog.at_level(logging.WARNING, "genreflow"):
        assert cluster.wait("r1", api.url)["state"] == "succeeded"
    assert api.faults == []
    assert "503 no healthy upstream. Run r1 is still waited for." in caplog.text
    assert len(caplog.records) == 2  # once a minute, and that it is over


@pytest.mark.usefixtures("soon")
def test_waiting_outlasts_a_server_that_is_restarted(api: KubeflowApi) -> None:
    api.states = ["RUNNING"]
    started: list[KubeflowApi] = []

    def restart() -> None:
        while api.called.count("GET /apis/v2beta1/runs/r1") < 3:
            time.sleep(0.01)
        api.shutdown()
        api.server_close()
        time.sleep(0.5)
        started.append(KubeflowApi(api.real, api.server_address[1]))
        started[0].serve_forever()

    threading.Thread(target=restart, daemon=True).start()
    assert cluster.wait("r1", api.url)["state"] == "succeeded"
    started[0].shutdown()
    started[0].server_close()


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ((503, ""), "503 Service Unavailable"),
        ((401, ""), "refused: 401 Unauthorized.*KF_PIPELINES_TOKEN"),
        ((200, "<html>Login</html>"), "not the KFP API, perhaps a login page"),
    ],
)
def test_whatever_ends_the_waiting_names_the_run(
    fault: tuple[int, str], words: str, api: KubeflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "UNAVAILABLE_SECONDS", 0.1)
    api.faults = [fault] * 1000
    back = f"To wait on: genreflow wait r1 --host {api.url}"
    with pytest.raises(GenreflowError, match=f"{words}.* Run r1 may go on .*#/runs/details/r1. {back}"):
        submit(settings(), api.url, wait=True)


def test_an_interrupted_waiting_names_the_run(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    api.states = ["RUNNING"]
    monkeypatch.setattr(cluster.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cluster.wait("r1", api.url)
    said = capsys.readouterr().err
    assert f"genreflow wait r1 --host {api.url}" in said
    assert f"genreflow cancel r1 --host {api.url} ends it" in said


def test_sigterm_ends_the_waiting_as_ctrl_c_does(api: KubeflowApi) -> None:
    api.states = ["RUNNING"]
    command = [sys.executable, "-m", "pipelines.cli", "wait", "r1", "--host", api.url]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while api.calls("GET /apis/v2beta1/runs/r1") < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"Run r1 goes on: {api.url}/#/runs/details/r1\nTo wait on: genreflow wait r1" in said


class Clock:
    """Stands for the module `time` where hours are waited: a sleep takes a minute of its own."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self.now += 60


def test_waiting_outlasts_an_hour_of_lost_connections_and_no_more(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "time", Clock())
    api.faults = [None] * 59
    api.states = ["RUNNING", "SUCCEEDED"]
    assert cluster.wait("r1", api.url)["state"] == "succeeded"
    api.states, api.documents = ["RUNNING"], []
    with pytest.raises(GenreflowError, match=r"connection was closed\. Run r1 may go on .* wait r1"):
        submit(settings(), api.url, wait=True, show=lambda _: api.faults.extend([None] * 70))


def shown(api: KubeflowApi, **options: Any) -> tuple[list[list[StepState]], str]:
    """What is shown of the steps, look by look, and the error that ends the waiting."""
    seen: list[list[StepState]] = []
    try:
        cluster.wait("r1", api.url, show=lambda steps: seen.append(list(steps)), **options)
    except GenreflowError as error:
        return seen, str(error)
    return seen, ""


def kept(seen: list[StepState]) -> dict[str, str]:
    return {step.name: step.status for step in seen}


def test_the_steps_of_a_run_are_shown_as_those_of_a_local_one(
    api: KubeflowApi, real: Callable[[str], Document]
) -> None:
    api.documents = [real("run_pod_deleted_retried")]
    seen, error = shown(api)
    assert error == ""
    cached, done = ("ingest", "extract_features"), ("evaluate", "package", "register", "promote")
    expected = {"resolve": "done", **dict.fromkeys(cached, "cached"), "fine_tune": "done"}
    assert kept(seen[-1]) == {**expected, **dict.fromkeys(done, "done"), "build": "skipped"}
    assert {step.name: step.seconds for step in seen[-1]}["fine_tune"] == 200


def test_a_terminal_without_a_screen_gets_a_line_a_change(
    api: KubeflowApi, real: Callable[[str], Document], capsys: pytest.CaptureFixture[str]
) -> None:
    api.documents = [real("run_pod_deleted_retried")]
    app(["submit", "--host", api.url, "--wait"], standalone_mode=False)
    said = capsys.readouterr()
    assert json.loads(said.out)["state"] == "succeeded"
    titles = {step.title for step in STEPS}
    lines = [line for line in said.err.splitlines() if line.partition(":")[0] in titles]
    assert lines[:4] == [
        "Resolve source:  10.0 s",
        "Ingest corpus:  cached",
        "Extract features:  cached",
        "Fine-tune model: 200.0 s",
    ]
    assert lines[-1] == "Build bento:  skipped: nothing was promoted"
    assert "Warning" not in said.err


def log_of(run: Document, pod: str) -> str:
    return f"GET /apis/v1alpha1/runs/{run['run_id']}/nodes/{pod}/log"


@pytest.mark.parametrize(
    "pod",
    ["genreflow-training-nvd7b-retry-system-container-impl-497663046", "genreflow-training-nvd7b-497663046"],
)
def test_a_failed_step_is_named_with_the_sentence_of_its_log(
    pod: str, api: KubeflowApi, real: Callable[[str], Document], shared: Path
) -> None:
    run = real("run_foreign_uid")
    api.documents = [run]
    text = (shared / "reference" / "kfp_api" / "log_of_a_failed_step.txt").read_text()
    api.answers[log_of(run, "genreflow-training-nvd7b-retry-system-container-impl-497663046")] = [GONE]
    api.answers[log_of(run, pod)] = [(200, text)]
    seen, error = shown(api, retries=3)
    assert kept(seen[-1])["ingest"] == "failed"
    assert kept(seen[-1])["extract_features"] == "waiting"
    assert (
        "in step ingest: PermissionError: [Errno 13] Permission denied: '/home/genreflow/.genreflow'" in error
    )
    assert f"genreflow retry r1 --host {api.url}" in error
    assert not [call for call in api.called if call.endswith(":retry")]  # the step's own error
    api.answers[log_of(run, pod)] = [
        (200, text.replace("PermissionError:", "genreflow.core.errors.CorpusError:"))
    ]
    assert "in step ingest: [Errno 13] Permission" in shown(api)[1]


EXECUTOR = "genreflow-training-fhpbb-retry-system-container-impl-2236610992"


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    "log",
    [
        (200, "I1130 04:06:46.020000      15 main.go:1] started\n12 of 400 steps\n"),
        (200, 'time="2026-11-30T04:00:47Z" level=info msg="sub-process exited"\nError: exit status 143'),
        GONE,
    ],
)
def test_a_run_resumes_after_a_pod_that_was_ended(
    api: KubeflowApi, real: Callable[[str], Document], log: tuple[int, str]
) -> None:
    killed, whole = real("run_oom"), real("run_succeeded")
    api.answers[log_of(killed, EXECUTOR)] = [log]
    api.documents = [killed, killed, killed, whole]  # the failure is seen until KFP has begun again
    assert shown(api, retries=1)[1] == ""
    assert [call for call in api.called if call.endswith(":retry")] == ["POST /apis/v2beta1/runs/r1:retry"]
    api.documents = [killed]
    error = shown(api)[1]
    assert "ended as failed in step fine-tune: " in error
    assert "its pod " in error


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("multi_user", [False, True])
@pytest.mark.parametrize(
    "found", ["genreflow-training-nvd7b-retry-system-container-impl-497663046", "archived"]
)
def test_behind_kfps_page_the_log_is_read_from_its_own_address(
    found: str, multi_user: bool, api: KubeflowApi, real: Callable[[str], Document], shared: Path
) -> None:
    """The page does not hand on requests for logs; the step's error was not named."""
    api.documents = [run := real("run_foreign_uid")]
    api.health |= {"multi_user": multi_user}
    api.wanted = {"cookie": "session=1"}
    pod = found.replace("archived", "genreflow-training-nvd7b-system-container-impl-497663046")
    api.page = {pod: (shared / "reference" / "kfp_api" / "log_of_a_failed_step.txt").read_text()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KF_PIPELINES_COOKIE", "session=1")
        with pytest.raises(GenreflowError, match="in step ingest: PermissionError"):
            cluster.wait("r1", api.url)
    day = run["created_at"].partition("T")[0]
    namespace = {"podnamespace": "me"} if multi_user else {}
    assert api.queries[-1] == {"podname": pod, "runid": run["run_id"], "createdat": day, **namespace}


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("reply", [(403, "Access denied to namespace"), (200, ""), None])
def test_a_page_without_a_log_does_not_show_whether_the_pod_is_gone(
    reply: tuple[int, str] | None, api: KubeflowApi, real: Callable[[str], Document]
) -> None:
    api.documents = [real("run_foreign_uid")]
    api.page = {}
    api.answers["GET /k8s/pod/logs"] = [(503, "no healthy upstream"), reply]
    _, error = shown(api, retries=3)
    assert "in step ingest: its log cannot be read through this host" in error
    assert not [call for call in api.called if call.endswith(":retry")]


@pytest.mark.parametrize("log", [(404, "{}"), (200, "<!DOCTYPE html><html>Cannot GET</html>")])
def test_a_host_without_logs_is_not_mistaken_for_a_deleted_pod(
    api: KubeflowApi, real: Callable[[str], Document], log: tuple[int, str]
) -> None:
    """KFP's page does not hand on requests for logs; a step's own error was retried as a lost pod."""
    run = real("run_oom")
    api.answers[log_of(run, EXECUTOR)] = [log]
    api.documents = [run]
    error = shown(api, retries=3)[1]
    assert "its log cannot be read through this host" in error
    assert "kubectl logs genreflow-training-" in error
    assert not [call for call in api.called if call.endswith(":retry")]


@pytest.mark.usefixtures("soon")
def test_a_step_that_exceeds_its_memory_limit_is_not_retried(
    api: KubeflowApi, real: Callable[[str], Document]
) -> None:
    run = real("run_oom")
    launcher = "E1130 04:00:46.006833      15 launcher_v2.go:449] Component failed to execute successfully: "
    api.answers[log_of(run, EXECUTOR)] = [(200, f"12 of 400 steps\n{launcher}signal: killed\n")]
    api.documents = [run]
    error = shown(api, retries=3)[1]
    assert "more memory than resources.memory allows. The last it logged: 12 of 400 steps" in error
    assert "--set resources.memory=" in error
    assert not [call for call in api.called if call.endswith(":retry")]


@pytest.mark.usefixtures("soon")
def test_a_log_is_waited_for_while_the_api_is_restarted(
    api: KubeflowApi, real: Callable[[str], Document], shared: Path
) -> None:
    run = real("run_foreign_uid")
    text = (shared / "reference" / "kfp_api" / "log_of_a_failed_step.txt").read_text()
    log = log_of(run, "genreflow-training-nvd7b-retry-system-container-impl-497663046")
    api.documents = [run]
    api.answers[log] = [(503, "no healthy upstream"), (502, ""), (200, text)]
    assert "in step ingest: PermissionError" in shown(api, retries=3)[1]
    assert not [call for call in api.called if call.endswith(":retry")]


@pytest.mark.usefixtures("soon")
def test_a_retry_while_the_api_is_away_is_made_once(
    api: KubeflowApi, real: Callable[[str], Document]
) -> None:
    killed = real("run_oom")
    running = real("run_succeeded") | {"state": "RUNNING"}
    refused = real("error_retry_of_succeeded")
    api.documents = [killed, running, real("run_succeeded")]
    # the first is carried out and its answer lost, as the run that goes on then shows
    api.answers["POST /apis/v2beta1/runs/r1:retry"] = [
        (503, ""),
        (refused["status"], json.dumps(refused["body"])),
    ]
    assert shown(api, retries=1)[1] == ""
    assert api.calls("POST /apis/v2beta1/runs/r1:retry") == 2


LAUNCHER = "E1130 04:06:46.006833      15 launcher_v2.go:449] "
FATAL = "F1130 04:06:46.057047      15 main.go:59] "
TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\n'


@pytest.mark.parametrize(
    ("log", "cause", "words"),
    [
        (f"{TRACEBACK}ValueError: no\n{LAUNCHER}exit status 1\n", "step", "ValueError: no"),
        (f"{TRACEBACK}ValueError: no\nas it is\n{LAUNCHER}exit status 1\n", "step", "ValueError: no"),
        (f"{TRACEBACK}ValueError: no\n", "step", "ValueError: no"),
        (f"{TRACEBACK}ValueError: no\ntried again\n12 of 400\n", "pod", "ended from outside"),
        (f"{TRACEBACK}KeyboardInterrupt\n{LAUNCHER}exit status 143\n", "pod", "SIGTERM"),
        (f"sh: 1: python3: not found\n{LAUNCHER}exit status 127\n", "step", "python3: not found"),
        (f"12 of 400\nKilled\n{LAUNCHER}exit status 137\n", "memory", "resources.memory"),
        (
            f"done\n{FATAL}failed to execute component: failed to publish: rpc error: code = Unavailable "
            "desc = connection refused\nError: exit status 1\n",
            "pod",
            "failed: failed to execute component: failed to publish",
        ),
        (
            f"done\n{FATAL}failed to execute component: failed to upload output artifact: AccessDenied\n",
            "step",
            "AccessDenied",
        ),
        ("", "pod", "ended from outside"),
    ],
)
def test_failures_are_classified_by_the_end_of_the_log(log: str, cause: str, words: str) -> None:
    failed = cluster_steps.failure("fine-tune", log)
    assert failed.cause == cause
    assert words in failed.reason


@pytest.mark.usefixtures("soon")
def test_a_driver_that_failed_is_its_steps_failure(api: KubeflowApi, real: Callable[[str], Document]) -> None:
    run = real("run_oom")
    for task in run["run_details"]["task_details"]:
        if task.get("display_name") == "fine-tune":
            task.pop("state")
        if task.get("display_name") == "fine-tune-driver":
            task["state"] = "FAILED"
    api.documents = [run]
    pod = "genreflow-training-fhpbb-system-container-driver-3244005115"
    words = "KFP driver: driver.Container() failed: failed to make ReadOnly secret: secrets s3-keys not found"
    api.answers[log_of(run, pod)] = [(200, f"F1130 04:00:28.000000      15 main.go:90] {words}\n")]
    seen, error = shown(api)
    assert kept(seen[-1])["fine_tune"] == "failed"
    assert f"in step fine-tune: KFP's launcher failed: {words}" in error


@pytest.mark.parametrize("multi_user", [False, True])
@pytest.mark.parametrize(
    ("task", "pod"),
    [
        ("executor(0)", "genreflow-training-fnp9c-retry-system-container-impl-802036701"),
        ("resolve-driver(0)", "genreflow-training-fnp9c-system-container-driver-840270928"),
    ],
)
def test_a_pod_that_does_not_start_is_reported_as_waiting(
    task: str, pod: str, multi_user: bool, real: Callable[[str], Document], api: KubeflowApi
) -> None:
    run = real("run_image_missing_terminated")
    run["state"] = "RUNNING"
    now = datetime.now(UTC)
    for one in run["run_details"]["task_details"]:
        name = one.get("display_name")
        if name == task:
            one["state"], one["start_time"] = "PENDING", (now - timedelta(seconds=150)).isoformat()
            one.pop("end_time")
        elif name == "resolve":
            if task == "executor(0)":
                one["state"], one["start_time"] = "RUNNING", (now - timedelta(seconds=151)).isoformat()
            else:
                one.pop("state")
            one.pop("end_time")
    api.health |= {"multi_user": multi_user}
    api.documents = [run]
    (resolve, ingest, *_) = watched(api)
    assert (resolve.status, ingest.status) == ("running", "waiting")
    assert 149 < resolve.seconds < 160
    assert resolve.message == (
        "waiting for a pod since 2 min: image, quota, claim or node? "
        f"kubectl describe pod {pod} -n {'me' if multi_user else 'kubeflow'}"
    )


def just_started(real: Callable[[str], Document]) -> Document:
    """A run of which KFP knows no more than the graph, whose driver waits for a pod."""
    run = real("run_image_missing_terminated") | {"state": "RUNNING"}
    graph = ("genreflow-training-fnp9c", "root")
    tasks = run["run_details"]["task_details"]
    kept = [task for task in tasks if (task.get("display_name") or "").startswith(graph)]
    for task in kept:
        task.pop("end_time")
        if task["display_name"] == "root-driver(0)":
            started = datetime.now(UTC) - timedelta(seconds=150)
            task["state"], task["start_time"] = "PENDING", started.isoformat()
    run["run_details"]["task_details"] = kept
    return run


WAITS = (
    "waiting for a pod since 2 min: image, quota, claim or node? kubectl describe pod "
    "genreflow-training-fnp9c-system-dag-driver-1825150167 -n kubeflow"
)


@pytest.mark.parametrize("uploaded", [True, False], ids=["version", "tasks"])
def test_a_comparison_whose_graph_does_not_start_is_reported_as_waiting(
    uploaded: bool, real: Callable[[str], Document], api: KubeflowApi, tmp_path: Path
) -> None:
    run = just_started(real)
    if uploaded:
        compiling.compile_pipeline(tmp_path / "comparison.yaml", comparison_settings("mfcc_cnn,vgg"))
        spec, *_ = yaml.safe_load_all((tmp_path / "comparison.yaml").read_text())
        run["pipeline_version_reference"] = {"pipeline_id": "p1", "pipeline_version_id": "v1"}
        version = json.dumps({"pipeline_spec": spec})
        api.answers["GET /apis/v2beta1/pipelines/p1/versions/v1"] = [(200, version)]
    else:
        run["run_details"]["task_details"] += [{"display_name": "train-candidate"}]
    api.documents = [run]
    first, *others = watched(api)
    assert (first.name, first.status, first.message) == ("resolve_candidates", "running", WAITS)
    titles = ["Train: mfcc_cnn", "Train: vgg"] if uploaded else ["Train: 1"]
    assert [one.title for one in others if one.title.startswith("Train")] == titles


def test_pods_with_labels_have_another_name(
    api: KubeflowApi, real: Callable[[str], Document], shared: Path, tmp_path: Path
) -> None:
    @dsl.component(base_image="image")
    def nothing() -> None:
        pass

    @dsl.pipeline
    def labelled() -> None:
        kubernetes.add_pod_label(kubernetes.add_pod_label(nothing(), "team", "music"), "tier", "batch")

    compiler.Compiler().compile(labelled, str(tmp_path / "labelled.yaml"))
    pipeline, pods = yaml.safe_load_all((tmp_path / "labelled.yaml").read_text())
    assert cluster_steps.template_prefix(pods) == "metadata-0-2-"
    assert cluster_steps.template_prefix(pipeline) == ""
    run = real("run_foreign_uid") | {
        "pipeline_version_reference": {"pipeline_id": "p1", "pipeline_version_id": "v1"}
    }
    version = {"pipeline_spec": {"pipeline_spec": pipeline, "platform_spec": pods}}
    api.documents = [run]
    api.answers["GET /apis/v2beta1/pipelines/p1/versions/v1"] = [(200, json.dumps(version))]
    text = (shared / "reference" / "kfp_api" / "log_of_a_failed_step.txt").read_text()
    pod = "genreflow-training-nvd7b-metadata-0-2-retry-system-container-impl-497663046"
    api.answers[log_of(run, pod)] = [(200, text)]
    assert "in step ingest: PermissionError" in shown(api)[1]


def test_a_pod_that_is_about_to_start_is_not_reported_as_waiting(
    real: Callable[[str], Document], api: KubeflowApi
) -> None:
    run = real("run_image_missing_terminated")
    run["state"] = "RUNNING"
    now = datetime.now(UTC).isoformat()
    for one in run["run_details"]["task_details"]:
        if one.get("display_name") in ("executor(0)", "resolve"):
            one["state"] = "RUNNING" if one["display_name"] == "resolve" else "PENDING"
            one["start_time"] = now
            one.pop("end_time")
    api.documents = [run]
    resolve = watched(api)[0]
    assert (resolve.status, resolve.message) == ("running", "")


def watched(api: KubeflowApi) -> list[StepState]:
    """The steps as they are shown at the first look at a run."""

    class Enough(Exception):
        pass

    seen: list[StepState] = []

    def look(steps: Sequence[StepState]) -> None:
        seen.extend(steps)
        raise Enough

    with pytest.raises(GenreflowError, match="Enough"):
        cluster.wait("r1", api.url, show=look)
    return seen


def test_a_failed_run_is_resumed_by_retry_and_another_is_not(
    api: KubeflowApi, real: Callable[[str], Document], capsys: pytest.CaptureFixture[str]
) -> None:
    app(["retry", "r1", "--host", api.url], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == {"run_id": "r1", "url": f"{api.url}/#/runs/details/r1"}
    assert api.called[-1] == "POST /apis/v2beta1/runs/r1:retry"
    app(["retry", "r1", "--wait", "--host", api.url], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["state"] == "succeeded"
    refusal = real("error_retry_of_succeeded")
    api.answers["POST /apis/v2beta1/runs/r1:retry"] = [(refusal["status"], json.dumps(refusal["body"]))]
    with pytest.raises(GenreflowError, match=r"409 .*Workflow must be Failed/Error to retry"):
        cluster.retry("r1", api.url)


def test_a_run_or_a_recurring_run_is_cancelled(
    api: KubeflowApi, real: Callable[[str], Document], capsys: pytest.CaptureFixture[str]
) -> None:
    api.states = ["RUNNING"]
    app(["cancel", "r1", "--host", api.url], standalone_mode=False)
    assert capsys.readouterr().out == "Run r1 is being cancelled.\n"
    assert api.called[-1] == "POST /apis/v2beta1/runs/r1:terminate"
    api.states = ["SUCCEEDED"]
    with pytest.raises(GenreflowError, match="Run r1 succeeded already"):
        cluster.cancel("r1", api.url)
    missing = real("error_no_such_run")
    none = [(missing["status"], json.dumps(missing["body"]))]
    api.answers["GET /apis/v2beta1/runs/c1"] = none
    assert "Recurring run c1 is disabled" in cluster.cancel("c1", api.url)
    assert api.called[-1] == "POST /apis/v2beta1/recurringruns/c1:disable"
    api.answers["POST /apis/v2beta1/recurringruns/c1:disable"] = none
    with pytest.raises(GenreflowError, match="no run and no recurring run c1"):
        cluster.cancel("c1", api.url)


def test_runs_are_listed_page_by_page(
    api: KubeflowApi, real: Callable[[str], Document], capsys: pytest.CaptureFixture[str]
) -> None:
    page = real("runs_page")
    last = {"runs": page["runs"][:1], "total_size": 4}
    api.answers["GET /apis/v2beta1/runs"] = [(200, json.dumps(page)), (200, json.dumps(last))]
    app(["runs", "--host", api.url, "--json"], standalone_mode=False)
    rows = json.loads(capsys.readouterr().out)
    assert [row["run_id"] for row in rows] == [run["run_id"] for run in [*page["runs"], *last["runs"]]]
    assert rows[0]["state"] == "succeeded"
    assert rows[0]["seconds"] == 780
    app(["runs", "--host", api.url], standalone_mode=False)
    text = capsys.readouterr().out
    assert all(
        word in text for word in ("run", "state", page["runs"][0]["run_id"], "genreflow-training gtzan-mini")
    )
    api.answers["GET /apis/v2beta1/recurringruns"] = [(200, json.dumps(real("recurring_runs")))]
    app(["runs", "--recurring", "--host", api.url], standalone_mode=False)
    text = capsys.readouterr().out
    assert all(word in text for word in ("26787885-61aa-4c1d-ae57-a9e45f277af6", "disabled", "0 3 * * *"))
    api.answers["GET /apis/v2beta1/recurringruns"] = [(200, "{}")]
    app(["runs", "--recurring", "--host", api.url], standalone_mode=False)
    assert capsys.readouterr().out == "There are no recurring runs.\n"
