"""Following a run through its progress file, and forgetting cached steps whose artifacts are gone."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from genreflow import progress, steps
from genreflow.errors import CorpusError
from pipelines.local import STEPS, Follower, StepState, drop_stale_cache_entries


def nothing(_: Sequence[StepState]) -> None:
    """Show nothing."""


@pytest.fixture
def follower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Follower:
    path = tmp_path / "progress.jsonl"
    monkeypatch.setenv(progress.PROGRESS_VARIABLE, str(path))
    return Follower(path, nothing)


def statuses(follower: Follower) -> dict[str, str]:
    return {step.name: step.status for step in follower.steps}


def test_steps_not_heard_of_before_a_later_one_came_from_the_cache(follower: Follower) -> None:
    for name in ("resolve", "register"):
        with steps.told(name):
            time.sleep(0.02)
    follower.look()
    assert statuses(follower) == {
        "resolve": "done",
        **dict.fromkeys(("ingest", "extract_features", "fine_tune", "evaluate", "package"), "cached"),
        "register": "done",
        "promote": "waiting",
    }
    assert all((step.seconds > 0) == (step.status == "done") for step in follower.steps)


def test_packaging_before_evaluating_says_nothing_of_the_evaluation(follower: Follower) -> None:
    with steps.told("package"):
        follower.look()
        assert statuses(follower)["fine_tune"] == "cached"
        assert statuses(follower)["evaluate"] == "waiting"


def test_counted_progress_reaches_the_reader(follower: Follower) -> None:
    with steps.told("ingest"):
        for _ in progress.track("ingest", range(3), 3, "clips decoded"):
            pass
        follower.look()
    ingest = follower.steps[STEPS.index("ingest")]
    assert (ingest.message, ingest.done, ingest.total) == ("clips decoded", 3, 3)


def test_the_sentence_of_a_failed_step_is_the_steps_own(follower: Follower, tmp_path: Path) -> None:
    with pytest.raises(CorpusError), steps.told("ingest"):
        raise CorpusError("Only one clip is left.")
    failure = follower.failure(tmp_path / "log")
    assert (failure.step, str(failure)) == ("ingest", "Only one clip is left.")


def test_what_went_wrong_unexpectedly_is_said_to_be_so(follower: Follower, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), steps.told("evaluate"):
        raise ZeroDivisionError("division by zero")
    sentence = str(follower.failure(tmp_path / "log"))
    assert sentence == "Step evaluate failed unexpectedly (ZeroDivisionError: division by zero)."


def test_a_step_that_was_killed_is_named(follower: Follower, tmp_path: Path) -> None:
    progress.report("fine_tune", "started", event="started")
    assert "Step fine_tune ended without a word" in str(follower.failure(tmp_path / "log"))


def test_half_a_line_waits_for_its_other_half(follower: Follower) -> None:
    event = json.dumps({"time": time.time(), "step": "resolve", "message": "started", "event": "started"})
    with follower.path.open("a") as file:
        file.write(event[:20])
        file.flush()
        follower.look()
        assert statuses(follower)["resolve"] == "waiting"
        file.write(event[20:] + "\n")
    follower.look()
    assert statuses(follower)["resolve"] == "running"


def test_a_cached_step_whose_artifact_is_gone_or_empty_is_forgotten(tmp_path: Path) -> None:
    cache, whole, empty = tmp_path / "cache", tmp_path / "whole", tmp_path / "empty"
    for folder in (cache, whole, empty):
        folder.mkdir()
    (whole / "corpus.json").write_text("{}")
    for name, uri in {"whole": whole, "empty": empty, "gone": tmp_path / "gone"}.items():
        (cache / f"{name}.json").write_text(json.dumps({"out": {"uri": str(uri)}, "text": "x"}))
    (cache / "torn.json").write_text("{")
    assert drop_stale_cache_entries(cache) == 3
    assert [entry.name for entry in cache.iterdir()] == ["whole.json"]
