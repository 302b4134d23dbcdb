"""MLflow goes away, breaks off and comes back: a real tracking server behind a proxy that injects faults."""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from candidates import Candidate
from corpora import split_of, tones, write_corpus
from faults import Proxy, proxied
from mlflow import MlflowClient
from servers import mlflow_server

from genreflow import registry, steps
from genreflow.core import home, progress
from genreflow.core.errors import RegistryUnavailableError
from genreflow.families import family
from genreflow.fitting import fine_tuning
from genreflow.registry import lock, runs, store

Make = Callable[..., Candidate]

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def server(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an MLflow server that keeps artifacts itself, as on a cluster."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(migrated, folder / "mlflow.db")
    with mlflow_server(folder, f"sqlite:///{folder / 'mlflow.db'}") as port:
        yield port


@pytest.fixture
def mlflow(server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way to the server, which every call in this test takes."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    monkeypatch.setattr(store, "SECONDS_BETWEEN_ATTEMPTS", (0.1, 0.1))
    monkeypatch.setenv(progress.PROGRESS_VARIABLE, str(tmp_path / "progress.jsonl"))
    with proxied(server) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{proxy.port}")
        yield proxy


def client() -> MlflowClient:
    return MlflowClient(home.tracking_uri())


def sentences() -> list[str]:
    """What steps reported so far."""
    path = home.home().parent / "progress.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["message"] for line in lines]


def steps_of(run_id: str, metric: str = "loss") -> list[int]:
    return [point.step for point in client().get_metric_history(run_id, metric)]


def register(made: Candidate, run_id: str = "") -> registry.Registered:
    return steps.register(made.packaged, made.evaluation, made.corpus, split_of(made.corpus), run_id)


def test_a_server_that_is_away_behind_a_gateway_is_reported_at_once(mlflow: Proxy) -> None:
    mlflow.busy = 1
    began = time.monotonic()
    with pytest.raises(RegistryUnavailableError, match="503 Slow Down"):
        registry.check()
    assert time.monotonic() - began < store.REACH_SECONDS
    registry.check()


@pytest.mark.parametrize("lost_answers", [1, 3])
def test_a_run_whose_creation_was_never_answered_is_one_run(
    mlflow: Proxy, tmp_path: Path, lost_answers: int
) -> None:
    """MLflow's client sends the request again, and where it gives up, genreflow does."""
    genres = ("blues", "jazz")
    corpus = write_corpus(tmp_path / "corpus", tones(genres), genres)
    features, out = tmp_path / "features", tmp_path / "model"
    network = family("mfcc_cnn")
    representation = network.representation(network.settings({})).canonical()
    steps.extract_features(corpus, representation, features, device="cpu")
    mlflow.only, mlflow.resets, mlflow.reset_after = "runs/create", lost_answers, 0
    experiment = f"lost {lost_answers}"
    model = steps.fine_tune(
        features, split_of(corpus), out, "mfcc_cnn", {}, {"epochs": 1, "device": "cpu"}, experiment
    )
    assert mlflow.resets == 0
    found = client().get_experiment_by_name(experiment)
    assert found is not None
    (run,) = client().search_runs([found.experiment_id])
    assert (run.info.run_id, run.info.status) == (model.run_id, "FINISHED")


def test_curves_of_an_outage_in_the_middle_arrive_when_it_is_over(mlflow: Proxy) -> None:
    run_id = registry.open_run("faults", {})
    with registry.log_curves(run_id, seconds_between_flushes=0.05) as curves:
        curves(1, {"loss": 3.0})
        wait(lambda: steps_of(run_id) == [1])
        mlflow.down = True
        curves(2, {"loss": 2.0})
        asked = len(mlflow.requests)
        wait(lambda: len(mlflow.requests) > asked)
        curves(3, {"loss": 1.0})
        mlflow.down = False
        wait(lambda: steps_of(run_id) == [1, 2, 3])
    assert (curves.kept, curves.lost, curves.trouble) == (0, 0, "")


def test_an_answer_that_was_lost_does_not_double_the_points(mlflow: Proxy) -> None:
    run_id = registry.open_run("faults", {})
    mlflow.only, mlflow.resets, mlflow.reset_after = "runs/log-batch", 1, 0
    with registry.log_curves(run_id) as curves:
        curves(1, {"loss": 3.0})
    assert mlflow.resets == 0
    assert steps_of(run_id) == [1]


def test_training_outlasts_an_mlflow_that_never_comes_back_and_its_curves_follow_at_registration(
    mlflow: Proxy, candidate: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genres = ("blues", "jazz")
    corpus = write_corpus(tmp_path / "corpus", tones(genres), genres)
    features, out = tmp_path / "features", tmp_path / "model"
    network = family("mfcc_cnn")
    representation = network.representation(network.settings_type()).canonical()
    steps.extract_features(corpus, representation, features, device="cpu")
    train = fine_tuning.fine_tune

    def outage(*arguments: Any, **named: Any) -> Any:
        mlflow.down = True
        return train(*arguments, **named)

    monkeypatch.setattr(fine_tuning, "fine_tune", outage)
    settings = {"epochs": 2, "device": "cpu"}
    model = steps.fine_tune(features, split_of(corpus), out, "mfcc_cnn", {}, settings, "faults")
    assert any(out.glob("*.safetensors"))
    run_id = model.run_id
    assert run_id
    assert f"points of the curves of run {run_id} are kept in" in sentences()[-2]
    assert "The model is not touched by it. The MLflow server at" in sentences()[-2]

    mlflow.down = False
    assert client().get_run(run_id).info.status == "RUNNING"
    assert not client().get_run(run_id).data.metrics
    assert register(candidate(20), run_id).created
    assert client().get_run(run_id).info.status == "FINISHED"
    assert len(steps_of(run_id, "eval_accuracy")) == 2
    assert not runs.kept_curves(run_id).exists()


def test_curves_that_can_be_kept_nowhere_are_reported_as_lost(
    mlflow: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = registry.open_run("faults", {})
    home.home().mkdir(parents=True, exist_ok=True)
    home.curves_folder().write_text("a file where a folder has to be")
    mlflow.down = True
    with (
        caplog.at_level(logging.WARNING, "genreflow"),
        registry.log_curves(run_id, seconds_between_flushes=0.02) as curves,
    ):
        curves(1, {"loss": 2.0, "accuracy": 0.5})
    assert (curves.kept, curves.lost) == (0, 2)
    assert f"2 points of the curves of run {run_id} are lost, because" in caplog.text


def test_registration_waits_for_an_mlflow_that_comes_back(
    mlflow: Proxy, candidate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = candidate(21)
    mlflow.down = True
    monkeypatch.setattr(store, "SECONDS_BETWEEN_ATTEMPTS", (0.1, 2.0))

    def come_back() -> None:
        wait(lambda: any("Attempt 3 of 3" in sentence for sentence in sentences()))
        mlflow.down = False

    thread = threading.Thread(target=come_back)
    thread.start()
    done = register(made)
    thread.join()
    assert done.created
    reported = [sentence for sentence in sentences() if "Attempt" in sentence]
    assert [sentence.rpartition("Attempt ")[2] for sentence in reported] == [
        "2 of 3 follows in 0.1 seconds.",
        "3 of 3 follows in 2 seconds.",
    ]
    assert all("does not answer" in sentence for sentence in reported)
    assert registry.fetch(done.version).name == made.digest


def test_registration_without_mlflow_ends_with_the_command_that_finishes_it(
    mlflow: Proxy, candidate: Make
) -> None:
    made = candidate(22)
    before = {version.version for version in registry.versions()}
    mlflow.down = True
    with pytest.raises(RegistryUnavailableError, match="genreflow run with the same arguments"):
        register(made)
    mlflow.down = False
    assert {version.version for version in registry.versions()} == before
    assert register(made).created


@pytest.mark.parametrize(("seed", "lost_answers"), [(23, 1), (24, 100)])
def test_a_version_whose_creation_was_never_answered_is_one_version_with_its_files(
    mlflow: Proxy, candidate: Make, seed: int, lost_answers: int
) -> None:
    """MLflow's client sends a request again whose answer was lost, though the server did the work."""
    made = candidate(seed)
    mlflow.only, mlflow.resets, mlflow.reset_after = "model-versions/create", lost_answers, 0
    done = register(made)
    assert done.created == (lost_answers == 1)  # else it was found when asked again
    mlflow.resets = 0
    same = [version for version in registry.versions() if version.digest == made.digest]
    assert [version.version for version in same] == [done.version]
    assert registry.fetch(done.version).name == made.digest


def test_the_registry_lock_is_held_where_the_response_to_its_creation_was_lost(
    mlflow: Proxy, candidate: Make
) -> None:
    done = register(candidate(25))
    mlflow.only, mlflow.resets, mlflow.reset_after = "registered-models/create", 1, 0
    began = time.monotonic()
    registry.set_champion(done.version, "by ear")
    assert mlflow.resets == 0
    assert time.monotonic() - began < lock.STALE_SECONDS


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)
