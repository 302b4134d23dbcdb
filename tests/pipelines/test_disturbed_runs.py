"""Whole runs of `genreflow run` that are disturbed: killed in the late steps, without MLflow, two at once."""

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faults import Proxy, proxied
from killing import changed, killed_at
from mlflow import MlflowClient
from servers import mlflow_server
from test_local_runs import TIMEOUT, clips, run

from genreflow.core.seals import verify_seal
from genreflow.registry import MODEL_NAME
from genreflow.registry.champions import HISTORY_TAG
from pipelines.local import drop_stale_cache_entries

pytestmark = pytest.mark.timeout(3 * TIMEOUT)

LEARNT = ("--set", "training.epochs=20", "--set", "gate.min_clips=1")
"""Enough to tell the tones apart, so that the gate has a reason to promote."""
PLACES = {
    "evaluate": "genreflow.evaluation.artifact:write_report",
    "package": "genreflow.packaging.package:processor",
    "register": "genreflow.registry.registration:_log_metrics",
    "promote": "genreflow.registry.champions:_succeed",
}
"""Where a step is killed: as late as it has something to lose."""
TO_THE_PACKAGE = (
    "Ingest corpus", "Split corpus", "Extract features", "Fine-tune model", "Evaluate model", "Package model"
)  # fmt: skip


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two runs on the same clips in one state folder at the same time, and the summary of each."""
    folder = tmp_path_factory.mktemp("at-once")
    clips(folder / "clips")

    def one(seed: int) -> tuple[subprocess.CompletedProcess[str], Path]:
        summary = folder / f"{seed}.json"
        arguments = ("--set", f"training.seed={seed}", "--summary", str(summary))
        return run(folder / "clips", folder / "home", *LEARNT, *arguments), summary

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(one, (1, 2)))
    for process, _ in done:
        assert process.returncode == 0, process.stderr
    return {"home": folder / "home", "summaries": [json.loads(path.read_text()) for _, path in done]}


def store(home: Path) -> MlflowClient:
    address = f"sqlite:///{home / 'mlflow.db'}"
    return MlflowClient(address, address)


def digest(client: MlflowClient, version: str) -> str:
    return str(client.get_model_version(MODEL_NAME, version).tags["digest"])


def test_two_runs_at_once_end_with_two_versions_and_one_champion_that_the_gate_agrees_with(
    at_once: dict[str, Any],
) -> None:
    client, summaries = store(at_once["home"]), at_once["summaries"]
    assert {summary["model_version"] for summary in summaries} == {"1", "2"}
    model = client.get_registered_model(MODEL_NAME)
    promoted = {one["model_version"] for one in summaries if one["decision"]["promote"]}
    champions = model.tags[HISTORY_TAG].split(", ")
    assert set(champions) == promoted
    assert str(model.aliases["champion"]) == champions[-1]
    compared = {
        number: client.get_model_version(MODEL_NAME, number).tags.get("compared_with")
        for number in ("1", "2")
    }
    for before, number in zip([None, *champions], champions, strict=False):
        assert compared[number] == before
    for number in {"1", "2"} - promoted:
        assert compared[number] == champions[-1]


def test_two_runs_at_once_leave_a_cache_that_is_whole(at_once: dict[str, Any]) -> None:
    entries = [json.loads(path.read_text()) for path in (at_once["home"] / "cache").glob("*.json")]
    assert len(entries) >= 9  # ingest, split, extraction, and three steps of each run
    assert drop_stale_cache_entries(at_once["home"] / "cache") == 0


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way to a tracking server, which is the store of this test's runs."""
    (tmp_path / "server").mkdir()
    with (
        mlflow_server(tmp_path / "server", f"sqlite:///{tmp_path / 'server' / 'mlflow.db'}") as port,
        proxied(port) as proxy,
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{proxy.port}")
        yield proxy


def test_a_run_that_is_killed_in_each_late_step_and_loses_mlflow_ends_as_the_undisturbed_one(
    at_once: dict[str, Any], mlflow: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, summary = tmp_path / "state", tmp_path / "summary.json"
    clips(tmp_path / "clips")

    def again(texts: dict[str, str]) -> subprocess.CompletedProcess[str]:
        texts = {"genreflow.registry.store": "SECONDS_BETWEEN_ATTEMPTS = (0.1, 0.1)"} | texts
        for name, value in changed(tmp_path / "site", texts).items():
            monkeypatch.setenv(name, value)
        arguments = ("--set", "training.seed=1", "--summary", str(summary))
        return run(tmp_path / "clips", home, *LEARNT, *arguments)

    def killed(*steps: str) -> tuple[str, str]:
        """The step in which the run was killed, and what it said."""
        done = again({name: text for step in steps for name, text in killed_at(PLACES[step]).items()})
        assert done.returncode == 1, done.stdout
        found = re.search(r"genreflow: Step (\w+) ended without an error message: it was killed", done.stderr)
        assert found, done.stderr
        return found[1], done.stderr

    # either may come first
    first, _ = killed("evaluate", "package")
    (other,) = {"evaluate", "package"} - {first}
    assert killed(other)[0] == other
    for path in home.glob(f"pipelines/*/{other}/*"):
        assert verify_seal(path), path

    mlflow.only, mlflow.resets, mlflow.reset_after = "logged-models", 1, 0

    def die() -> None:
        mlflow.only, mlflow.down = "", True

    mlflow.on_reset = die
    away = again({})
    assert away.returncode == 1
    sentence = away.stderr.strip().splitlines()[-2]
    assert sentence.startswith("genreflow: The MLflow server at http://127.0.0.1:")
    assert sentence.endswith("from the cache and goes on from here, without training again.")
    assert "Traceback" not in away.stderr
    mlflow.down = False

    step, reported = killed("register")
    assert step == "register"
    assert all(f"{title}:  cached" in reported for title in TO_THE_PACKAGE)
    assert killed("promote")[0] == "promote"
    # what the killed process held is free again after a minute
    done = again({"genreflow.registry.lock": "STALE_SECONDS = 1.0"})
    assert done.returncode == 0, done.stderr

    ended, undisturbed = json.loads(summary.read_text()), at_once["summaries"][0]
    assert ended["metrics"] == undisturbed["metrics"]
    assert ended["corpus"] == undisturbed["corpus"]
    assert ended["model_version"] == "1"
    assert (ended["decision"]["verdict"], ended["aliases"]) == ("promoted", ["champion"])
    client = MlflowClient(f"http://127.0.0.1:{mlflow.port}")
    assert [str(found.version) for found in client.search_model_versions(f"name='{MODEL_NAME}'")] == ["1"]
    assert digest(client, "1") == digest(store(at_once["home"]), undisturbed["model_version"])
    assert client.get_run(ended["run_id"]).info.status == "FINISHED"
