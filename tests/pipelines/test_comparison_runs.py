"""Real comparisons on kfp.local: interrupted, gone on with, taken from the cache."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sounds import tone, write

from genreflow import registry
from genreflow.registry.store import connect

GENRES = ["blues", "jazz", "rock"]
TIMEOUT = 900  # seconds
UNCACHED = {"resolve_candidates", "compare"}

pytestmark = pytest.mark.timeout(2 * TIMEOUT)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`genreflow compare` of two small families on tones, in a process of its own."""
    command = [sys.executable, "-m", "pipelines.cli", "compare", "--source", str(folder / "clips")]
    command += ["--families", "linear@descriptors,mfcc_cnn", "--set", f"corpus.genres={json.dumps(GENRES)}"]
    command += ["--set", "training.epochs=1", "--set", "training.device=cpu", *arguments]
    variables = {
        **os.environ,
        "GENREFLOW_HOME": str(folder / "home"),
        "BENTOML_HOME": str(folder / "bentoml"),
        "OMP_NUM_THREADS": "1",
    }
    # --set training.epochs is for the network alone: linear has none
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=variables
    )


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=TIMEOUT)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A comparison interrupted after its first candidate was trained, the same again, and once more."""
    folder = tmp_path_factory.mktemp("comparisons")
    for number, genre in enumerate(GENRES):
        for clip in range(8):
            write(folder / "clips" / genre / f"{clip}.wav", tone(seconds=3.2, pitch=220.0 * 2**number + clip))
    interrupted = start(folder)
    assert interrupted.stderr is not None
    lines, began = [], time.monotonic()
    trained = False
    for line in interrupted.stderr:
        lines.append(line)
        # once the next step has begun, kfp has the one before in its cache
        if trained and re.fullmatch(r"(Extract features|Train): \S+: started\s*", line):
            interrupted.send_signal(signal.SIGINT)
            break
        trained = trained or bool(re.fullmatch(r"Train: \S+: +[\d.]+ s\s*", line))
        assert time.monotonic() - began < TIMEOUT, lines
    left = finish(interrupted)
    ended = re.findall(r"^Train: (\S+): +[\d.]+ s\s*$", "".join(lines) + left.stderr, re.MULTILINE)
    found: dict[str, Any] = {"folder": folder, "interrupted": left, "trained": ended}
    for name in ("first", "second"):
        done = finish(start(folder, "--summary", str(folder / f"{name}.json")))
        assert done.returncode == 0, done.stderr
        found[name] = done
        found[f"{name}_summary"] = json.loads((folder / f"{name}.json").read_text())
    return found


def cached(summary: dict[str, Any]) -> set[str]:
    return {step["name"] for step in summary["steps"] if step["cached"]}


def test_an_interrupted_comparison_resumes_from_what_was_done(runs: dict[str, Any]) -> None:
    assert runs["interrupted"].returncode == 130
    assert "goes on from the steps that were done" in runs["interrupted"].stderr
    steps = cached(runs["first_summary"])
    # a busy machine may end the second candidate's training before the signal arrives
    assert runs["trained"]
    assert {"ingest", "split", *(f"train_candidate[{name}]" for name in runs["trained"])} <= steps


def test_the_second_run_takes_all_but_the_uncached_steps_from_the_cache(runs: dict[str, Any]) -> None:
    summary = runs["second_summary"]
    ran = {step["name"] for step in summary["steps"] if not step["cached"] and not step["skipped"]}
    assert ran - {"build"} == UNCACHED
    for name in ("run_id", "parent_run_id", "model_version", "leaderboard", "corpus", "candidate"):
        assert summary[name] == runs["first_summary"][name], name


def test_the_summary_has_the_documented_fields(runs: dict[str, Any]) -> None:
    summary = runs["first_summary"]
    assert {
        "run_id", "model_version", "aliases", "decision", "metrics", "corpus", "steps", "leaderboard"
    } <= set(summary)  # fmt: skip
    assert {row["name"] for row in summary["leaderboard"]} == {"linear@descriptors", "mfcc_cnn"}
    for row in summary["leaderboard"]:
        assert {"family", "accuracy", "accuracy_ci95", "macro_f1", "per_genre", "ece"} <= set(row)
        low, high = row["accuracy_ci95"]
        assert low <= row["accuracy"] <= high
    (chosen,) = [row for row in summary["leaderboard"] if row["chosen"]]
    assert summary["candidate"] == chosen["name"]
    assert summary["run_id"] == chosen["run_id"]
    assert summary["metrics"]["accuracy"] == chosen["accuracy"]


def test_only_the_candidate_is_registered_and_its_decision_is_counted_once(
    runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENREFLOW_HOME", str(runs["folder"] / "home"))
    (version,) = registry.versions()
    (chosen,) = [row for row in runs["first_summary"]["leaderboard"] if row["chosen"]]
    assert version.tags["digest"] == chosen["packaged_digest"]
    tags = connect().get_registered_model(registry.MODEL_NAME).tags
    counts = [value for key, value in tags.items() if key.startswith("decisions_on_test_split.")]
    assert counts == ["1"]


def test_the_terminal_shows_the_leaderboard_and_every_step_with_its_family(runs: dict[str, Any]) -> None:
    out, err = runs["second"].stdout, runs["second"].stderr
    assert "Leaderboard" in out
    assert "* " in out
    assert "mean of 2" in out
    assert "never by test clips" in out
    for family in ("linear@descriptors", "mfcc_cnn"):
        assert f"Extract features: {family}:  cached" in err
        assert f"Train: {family}:  cached" in err
    assert "Compare, promote or keep: started" in err
    assert (Path(runs["second_summary"]["report"])).is_file()
