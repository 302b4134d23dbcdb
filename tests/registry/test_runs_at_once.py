"""Two runs on one registry at the same time, embedded and on PostgreSQL: nothing lost, nothing doubled."""

import importlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from candidates import Candidate, write_predictions
from corpora import split_of
from mlflow import MlflowClient
from servers import mlflow_server

from genreflow import registry, steps
from genreflow.core import home
from genreflow.core.errors import ChampionChangedError
from genreflow.evaluation import gate
from genreflow.registry import lock
from genreflow.registry.champions import HISTORY_TAG

Make = Callable[..., Candidate]

pytestmark = pytest.mark.timeout(900)

AT_ONCE = """
import importlib, json, sys, time
from pathlib import Path
from genreflow import registry, steps
# as the fixture `scored_alike` does in the tests' own process
importlib.import_module("genreflow.steps.promote")._score = lambda loaded, scores, clips, corpus: clips
registry.versions()  # everything is loaded
mine, others, packaged, evaluation, corpus, split = map(Path, sys.argv[1:])
mine.touch()
while len(list(others.iterdir())) < RUNS: time.sleep(0.005)
done = steps.register(packaged, evaluation, corpus, split, "")
decision, aliases, _ = steps.promote(done.version, packaged, evaluation, corpus, {})
print(json.dumps([done.version, done.created, decision.verdict, aliases]))
"""
KILLED_WITH_THE_LOCK = """
import os, signal
from genreflow.registry import lock, store
with lock.registry_lock(store.connect()):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def databases(postgresql: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two databases with MLflow's tables: one that is opened directly, one for a server."""
    direct, behind = (
        urlsplit(postgresql)._replace(path=f"/{name}").geturl() for name in ("direct", "behind")
    )
    home_of_none = str(tmp_path_factory.mktemp("home"))
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("CREATE DATABASE direct")
        code = "from genreflow import registry; registry.versions()"
        environment = os.environ | {"MLFLOW_TRACKING_URI": direct, "GENREFLOW_HOME": home_of_none}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        connection.execute("CREATE DATABASE behind TEMPLATE direct")
    return {"postgresql": direct, "server": behind}


@pytest.fixture(scope="module")
def server(databases: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server that keeps its store in PostgreSQL."""
    with mlflow_server(tmp_path_factory.mktemp("server"), databases["server"]) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A registry without versions: a SQLite file (`embedded`), `postgresql`, or a tracking `server` on it."""
    kind = str(request.param)
    if kind == "server":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("server"))
    if kind == "postgresql":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("databases")[kind])
    yield kind
    if kind != "embedded":
        client().delete_registered_model(registry.MODEL_NAME)


@pytest.fixture(autouse=True)
def scored_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model gets the candidate's predictions: the corpora are documents without clips to score."""
    module = importlib.import_module("genreflow.steps.promote")
    monkeypatch.setattr(module, "_score", lambda loaded, scores, predicted, corpus: predicted)


@pytest.fixture
def candidates(place: str, candidate: Make) -> list[Candidate]:
    """Four that answer everything rightly: version 1, on synthetic music, is champion; the last has none."""
    made = []
    for seed in range(4):
        synthetic = {"synthetic": seed == 0}
        one = candidate(seed, model=synthetic, corpus=synthetic)
        write_predictions(one.evaluation)
        made.append(one)
    for one in made[:3]:
        registry.register(one.packaged, one.evaluation, one.corpus, split_of(one.corpus), None)
    registry.set_champion("1", "the first")
    return made


def client() -> MlflowClient:
    return MlflowClient(home.tracking_uri(), home.tracking_uri())


def promote(made: Candidate, version: str) -> tuple[gate.Decision, tuple[str, ...], bool]:
    return steps.promote(version, made.packaged, made.evaluation, made.corpus, {})


def champion() -> str | None:
    found = registry.champion()
    return found.version if found else None


def history() -> str:
    return str(client().get_registered_model(registry.MODEL_NAME).tags[HISTORY_TAG])


def meanwhile(monkeypatch: pytest.MonkeyPatch, *happen: Callable[[], object]) -> list[str | None]:
    """While the gate decides the first, second … time, something happens; returns whom it compares with."""
    decide, waiting, seen = gate.decide, list(happen), []

    def disturbed(*arguments: Any) -> gate.Decision:
        decision = decide(*arguments)
        facts = arguments[3]
        seen.append(facts.name if facts else None)
        if waiting:
            waiting.pop(0)()
        return decision

    monkeypatch.setattr(gate, "decide", disturbed)
    return seen


@pytest.mark.parametrize("place", ["embedded", "server"], indirect=True)
def test_a_candidate_compared_with_an_earlier_champion_does_not_displace_the_present_one(
    candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    other: list[gate.Decision] = []
    meanwhile(monkeypatch, lambda: other.append(promote(candidates[1], "2")[0]))
    decision, aliases, _ = promote(candidates[2], "3")
    assert other[0].promote
    assert champion() == "2"
    assert (decision.verdict, aliases) == ("kept", ("challenger",))
    assert decision.reason.startswith("kept version 2: ")
    assert (
        registry.version("3").tags
        | {
            "decision": "kept",
            "decision_reason": decision.reason,
            "compared_with": "2",
        }
        == registry.version("3").tags
    )
    assert registry.version("1").tags["displaced_by"] == "2"
    assert "displaced_by" not in registry.version("2").tags
    assert history() == "1, 2"


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_a_candidate_rejected_against_a_champion_that_is_rolled_back_meanwhile_is_compared_again(
    candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.set_champion("2", "by ear")
    seen = meanwhile(monkeypatch, lambda: registry.rollback("by ear, too"))
    decision, aliases, _ = promote(candidates[2], "3")
    assert seen == ["version 2", "version 1"]
    assert (decision.verdict, aliases) == ("promoted", ("champion",))
    assert registry.version("3").tags["compared_with"] == "1"
    assert history() == "1, 3"


@pytest.mark.parametrize("place", ["embedded"], indirect=True)
def test_a_champion_that_changes_repeatedly_ends_with_an_error_message(
    candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    # none has to be scored
    client().set_model_version_tag(registry.MODEL_NAME, "2", "synthetic", "true")
    changes = [lambda number=number: registry.set_champion(number, "a whim") for number in "21212"]
    seen = meanwhile(monkeypatch, *changes)
    with pytest.raises(ChampionChangedError, match=r"from version 1 to version 2 .*5 times in a row"):
        promote(candidates[2], "3")
    assert seen == ["version 1", "version 2", "version 1", "version 2", "version 1"]
    assert registry.version("3").tags["decision"] == "none yet"
    assert champion() == "2"
    assert promote(candidates[2], "3")[0].verdict == "promoted"


@pytest.mark.parametrize("place", ["embedded", "server"], indirect=True)
def test_of_three_runs_at_once_each_content_is_one_version_and_one_is_promoted(
    place: str, candidates: list[Candidate], candidate: Make, tmp_path: Path
) -> None:
    made = [candidates[3], candidate(4)]
    write_predictions(made[1].evaluation)
    made.append(made[1])
    waiting = tmp_path / "waiting"
    waiting.mkdir()
    code = AT_ONCE.replace("RUNS", str(len(made)))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(waiting / str(number)), str(waiting), *map(str, folders(one))],
            stdout=subprocess.PIPE,
            stderr=(tmp_path / f"{number}.log").open("w"),
            text=True,
        )
        for number, one in enumerate(made)
    ]
    said = [process.communicate(timeout=500)[0] for process in processes]
    for number, process in enumerate(processes):
        assert process.returncode == 0, (tmp_path / f"{number}.log").read_text()
    done = [json.loads(text.splitlines()[-1]) for text in said]
    assert sorted(created for _, created, _, _ in done) == [False, True, True]
    assert done[1][0] == done[2][0]
    assert {number for number, *_ in done} == {"4", "5"}
    assert [version.version for version in registry.versions()] == ["5", "4", "3", "2", "1"]
    new = champion()
    assert {number for number, _, verdict, _ in done if verdict == "promoted"} == {new}
    assert history() == f"1, {new}"
    assert registry.version(str(new)).tags["compared_with"] == "1"
    (other,) = {"4", "5"} - {new}
    assert registry.version(other).tags["compared_with"] == new
    assert [found.name for found in client().search_registered_models()] == [registry.MODEL_NAME]
    table = str(client().get_registered_model(registry.MODEL_NAME).description)
    assert all(f"/versions/{number})" in table for number in range(1, 6)), table


@pytest.mark.parametrize("place", ["server"], indirect=True)
def test_a_lock_that_a_killed_run_left_behind_is_removed(
    candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_WITH_THE_LOCK], check=False)
    assert killed.returncode == -signal.SIGKILL
    monkeypatch.setattr(lock, "STALE_SECONDS", 1.0)
    with caplog.at_level(logging.WARNING, "genreflow"):
        assert registry.set_champion("2", "by ear").aliases == ("champion",)
    assert "considered dead" in caplog.text
    registry.set_champion("3", "by ear")
    assert caplog.text.count("considered dead") == 1


def folders(made: Candidate) -> tuple[Path, Path, Path, Path]:
    return made.packaged, made.evaluation, made.corpus, split_of(made.corpus)
