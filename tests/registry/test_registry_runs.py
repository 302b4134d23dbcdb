"""Runs: opened or joined, parameters of every shape, curves that outlast an outage."""

import logging
import os
import signal
import subprocess
import sys
import time

import pytest
from candidates import Candidate  # noqa: F401 - the fixtures' types
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from genreflow import registry
from genreflow.core import home
from genreflow.core.documents import CorpusDocument, SplitDocument
from genreflow.core.errors import RegistryError
from genreflow.registry import attempts, runs

NOBODY = "http://127.0.0.1:9"
"""The discard port: nothing listens there."""


def client() -> MlflowClient:
    return MlflowClient(home.tracking_uri())


def new_experiment(name: str) -> str:
    """Made by another program than genreflow; without a place, artifacts lie in the working folder."""
    return str(client().create_experiment(name, artifact_location=home.artifact_root()))


def test_a_run_keeps_parameters_tags_and_environment() -> None:
    run_id = registry.open_run(
        "an experiment",
        {"family": "encoder", "training": {"learning_rate": 5e-5, "betas": [0.9, 0.98]}, "fold": None},
        {"genreflow.protocol": "artist"},
    )
    run = client().get_run(run_id)
    assert run.info.run_name == "encoder"
    assert run.data.params == {
        "family": "encoder",
        "training.learning_rate": "5e-05",
        "training.betas": "[0.9, 0.98]",
        "fold": "null",
    }
    assert run.data.tags["genreflow.protocol"] == "artist"
    assert {"genreflow.code_version", "python", "version.openvino"} <= set(run.data.tags)
    assert client().list_artifacts(run_id, "environment")[0].path == "environment/requirements.txt"
    assert client().get_experiment(run.info.experiment_id).artifact_location == home.artifact_root()
    registry.close_run(run_id, "FAILED")
    assert client().get_run(run_id).info.status == "FAILED"


def test_more_parameters_than_one_request_takes_and_very_long_ones() -> None:
    run_id = registry.open_run(
        "genreflow", {"long": "x" * 9000, **{f"p{index}": index for index in range(250)}}
    )
    parameters = client().get_run(run_id).data.params
    assert len(parameters) == 251
    assert len(parameters["long"]) == runs.PARAMETER_CHARACTERS


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=300),
        st.one_of(st.none(), st.floats(), st.text(), st.dictionaries(st.text(), st.integers())),
    )
)
def test_every_setting_becomes_a_parameter_that_mlflow_takes(parameters: dict[str, object]) -> None:
    from mlflow.utils.validation import _validate_param

    for key, value in runs.flatten({f"k{key}": value for key, value in parameters.items()}).items():
        _validate_param(key, value)


def test_the_run_that_the_platform_opened_is_joined_and_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = client().create_run(new_experiment("kfp")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", platform)
    parameters = {"family": "encoder", "seed": 1}
    assert registry.open_run("another", parameters) == platform
    assert registry.open_run("another", parameters) == platform  # a retried step
    registry.close_run(platform)
    assert client().get_run(platform).info.status == "RUNNING"
    assert client().get_experiment_by_name("another") is None


def test_a_second_fit_in_a_joined_run_gets_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = client().create_run(new_experiment("kfp")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", platform)
    registry.open_run("genreflow", {"family": "encoder"})
    child = registry.open_run("genreflow", {"family": "mfcc_cnn"})
    assert child != platform
    assert client().get_run(child).data.tags["mlflow.parentRunId"] == platform
    registry.close_run(child)
    assert client().get_run(child).info.status == "FINISHED"


def test_a_run_to_join_that_does_not_exist_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
    with pytest.raises(RegistryError, match="MLFLOW_RUN_ID names the run 0123"):
        registry.open_run("genreflow", {})


def test_a_deleted_experiment_is_reported() -> None:
    client().delete_experiment(new_experiment("old"))
    with pytest.raises(RegistryError, match="'old' was deleted: restore it"):
        registry.open_run("old", {})


def test_a_synthetic_corpus_is_named_as_generated_by_code() -> None:
    corpus = CorpusDocument(
        fingerprint="ab" * 32,
        source="synthetic?clips=20",
        source_fingerprint="s",
        synthetic=True,
        genres=("a", "b"),
        clips=10,
        quarantined=0,
        duplicate_clusters=0,
        code_version="0",
    )
    split = SplitDocument(
        fingerprint="cd" * 32,
        corpus_fingerprint=corpus.fingerprint,
        protocol="grouped",
        fold=None,
        seed=42,
        leaky=False,
        leak_reason=None,
        counts={"train": 10},
        code_version="0",
    )
    run_id = registry.open_run("genreflow", {})
    runs.log_dataset(client(), run_id, corpus, split, ("training",))
    [entry] = client().get_run(run_id).inputs.dataset_inputs
    assert entry.dataset.name == "synthetic music, training split"
    assert entry.dataset.source_type == "code"
    assert "ab" * 32 in entry.dataset.profile
    assert "cd" * 32 in entry.dataset.profile


def test_curves_are_visible_during_training() -> None:
    run_id = registry.open_run("genreflow", {})
    with registry.log_curves(run_id, seconds_between_flushes=0.05) as curves:
        curves(1, {"loss": 2.0, "eval/accuracy": 0.1})
        deadline = time.monotonic() + 20
        while not client().get_metric_history(run_id, "loss") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert client().get_metric_history(run_id, "loss")
        curves(2, {"loss": 1.0})
    history = client().get_metric_history(run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]
    assert curves.lost == 0


def test_more_points_than_one_request_takes_all_arrive() -> None:
    run_id = registry.open_run("genreflow", {})
    with registry.log_curves(run_id) as curves:
        for step in range(1200):
            curves(step, {"loss": float(step)})
    assert len(client().get_metric_history(run_id, "loss")) == 1200


def test_curves_outlast_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = registry.open_run("genreflow", {})
    curves = registry.log_curves(run_id, seconds_between_flushes=0.02)
    with monkeypatch.context() as outage:
        outage.setenv("MLFLOW_TRACKING_URI", NOBODY)
        curves(1, {"loss": 2.0})
        time.sleep(0.3)
        curves(2, {"loss": 1.0})
    assert curves.close() == 0
    assert [point.step for point in client().get_metric_history(run_id, "loss")] == [1, 2]


def test_curves_of_an_outage_to_the_end_are_kept_and_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = registry.open_run("genreflow", {})
    with monkeypatch.context() as outage, caplog.at_level(logging.WARNING, "genreflow"):
        outage.setenv("MLFLOW_TRACKING_URI", NOBODY)
        with registry.log_curves(run_id, seconds_between_flushes=0.02) as curves:
            curves(1, {"loss": 2.0, "accuracy": float("nan")})
        registry.close_run(run_id)
    assert (curves.kept, curves.lost) == (2, 0)
    assert f"2 points of the curves of run {run_id} are kept in {runs.kept_curves(run_id)}" in caplog.text
    assert "stays open" in caplog.text
    runs.finish_run(client(), run_id)
    assert client().get_metric_history(run_id, "loss")[0].value == 2.0
    assert client().get_run(run_id).info.status == "FINISHED"


def test_values_that_are_not_numbers_do_not_stop_the_curves() -> None:
    run_id = registry.open_run("genreflow", {})
    with registry.log_curves(run_id) as curves:
        curves(1, {"loss": float("nan"), "grad norm (max)": float("inf"), "ok": 1.0})
    assert curves.lost == 0
    assert client().get_run(run_id).data.metrics["ok"] == 1.0


def test_a_run_ends_no_earlier_than_it_began_though_the_clock_was_set_back() -> None:
    began = int(time.time() * 1000) + 3_600_000
    run_id = client().create_run("0", start_time=began).info.run_id
    registry.close_run(run_id)
    run = client().get_run(run_id)
    assert (run.info.status, run.info.end_time) == ("FINISHED", began)


OPENED = (
    "from genreflow import registry\n"
    "print(registry.open_run('genreflow', {'seed': 1}, step='/a'), flush=True)\n"
)
KILLED = OPENED + "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
ALIVE = OPENED + "input()\n"


def open_runs() -> list[str]:
    experiments = [found.experiment_id for found in client().search_experiments()]
    return [run.info.run_id for run in client().search_runs(experiments, "attributes.status = 'RUNNING'")]


def test_the_run_that_a_killed_process_left_open_is_resumed() -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    left = killed.stdout.strip()
    assert open_runs() == [left]
    assert registry.open_run("genreflow", {"seed": 2}, step="/a") != left  # other inputs
    # a pipeline that is run again on this machine has another folder for its results
    assert registry.open_run("genreflow", {"seed": 1}, step="/b") == left
    assert client().get_run(left).data.tags["genreflow.attempt"] == "2"
    assert registry.open_run("genreflow", {"seed": 1}, step="/b") != left  # this process is alive
    registry.close_run(left)
    assert client().get_run(left).info.status == "FINISHED"


def test_the_run_of_a_process_that_is_alive_is_unchanged() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ALIVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = other.stdout.readline().strip()
        mine = registry.open_run("genreflow", {"seed": 1}, step="/a")
        assert mine != theirs
        assert set(open_runs()) == {mine, theirs}
        other.communicate("\n")
    # it ended without a trace, and its number may belong to a process that began later
    assert registry.open_run("genreflow", {"seed": 1}, step="/a") == theirs


def test_a_run_of_another_machine_is_matched_by_its_step() -> None:
    """Each attempt is a pod of its own; KFP starts one after the other, and all write to one place."""
    earlier = registry.open_run("genreflow", {"seed": 1}, step="/s3/root/training/run-1/fine-tune/model")
    client().set_tag(earlier, attempts.PROCESS_TAG, "training-x7k2/4026532001 1 8412")
    another = registry.open_run("genreflow", {"seed": 1}, step="/s3/root/training/run-2/fine-tune/model")
    assert another != earlier
    registry.close_run(another)
    nowhere = registry.open_run("genreflow", {"seed": 1})
    assert nowhere != earlier
    again = registry.open_run("genreflow", {"seed": 1}, step="/s3/root/training/run-1/fine-tune/model")
    assert again == earlier


def test_a_reused_process_id_is_not_mistaken_for_the_ended_process() -> None:
    left = registry.open_run("genreflow", {"seed": 1}, step="/a")
    me = attempts.Process.current()
    assert me.alive()
    client().set_tag(left, attempts.PROCESS_TAG, f"{me.machine} {os.getpid()} {int(me.started) - 1}")
    assert registry.open_run("genreflow", {"seed": 1}, step="/a") == left


def test_a_child_that_a_killed_attempt_left_open_in_a_joined_run_is_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    platform = client().create_run(new_experiment("kfp")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", platform)
    registry.open_run("genreflow", {"seed": 0})
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    child = killed.stdout.strip()
    assert child != platform
    assert registry.open_run("genreflow", {"seed": 1}, step="/a") == child
    assert set(open_runs()) == {platform, child}


def test_a_call_that_is_repeated_finds_its_run_also_when_that_has_ended() -> None:
    first = registry.open_run("genreflow", {"seed": 1}, call="abc")
    assert registry.open_run("genreflow", {"seed": 1}, call="abc") == first
    registry.close_run(first)
    assert registry.open_run("genreflow", {"seed": 1}, call="abc") == first
    assert registry.open_run("genreflow", {"seed": 1}, call="abd") != first


def test_what_an_earlier_attempt_logged_is_not_logged_again() -> None:
    """Training goes on from a checkpoint that lies before the last point."""
    run_id = registry.open_run("genreflow", {})
    with registry.log_curves(run_id) as curves:
        for step in range(1, 6):
            curves(step, {"loss": float(step)})
    with registry.log_curves(run_id) as curves:
        for step in range(4, 9):
            curves(step, {"loss": float(step), "accuracy": 0.5})
    assert [point.step for point in client().get_metric_history(run_id, "loss")] == list(range(1, 9))
    assert [point.step for point in client().get_metric_history(run_id, "accuracy")] == list(range(4, 9))
