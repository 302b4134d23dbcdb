"""Following a run through its progress file; cached steps whose artifacts are gone or altered."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from clocks import clock
from kfp import dsl
from kfp.local.cache import LocalCache
from sounds import tone, write

from genreflow import steps
from genreflow.core import progress
from genreflow.core.errors import CorpusError
from genreflow.core.seals import SEALED_BY_DIGEST_BYTES
from pipelines.local import drop_stale_cache_entries
from pipelines.step_states import ProgressReader, StepState
from pipelines.steps import comparison_steps


def nothing(_: Sequence[StepState]) -> None:
    """Show nothing."""


@pytest.fixture
def follower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProgressReader:
    path = tmp_path / "progress.jsonl"
    monkeypatch.setenv(progress.PROGRESS_VARIABLE, str(path))
    return ProgressReader(path, nothing)


def statuses(follower: ProgressReader) -> dict[str, str]:
    return {step.name: step.status for step in follower.steps}


def step_named(follower: ProgressReader, name: str) -> StepState:
    return next(step for step in follower.steps if step.name == name)


def test_steps_without_events_before_a_later_one_came_from_the_cache(follower: ProgressReader) -> None:
    for name in ("resolve", "register"):
        with steps.report_step(name):
            time.sleep(0.02)
    follower.read_events()
    assert statuses(follower) == {
        "resolve": "done",
        **dict.fromkeys(
            ("ingest", "split", "extract_features", "fine_tune", "evaluate", "package"), "cached"
        ),
        "register": "done",
        "promote": "waiting",
        "build": "waiting",
    }
    assert all((step.seconds > 0) == (step.status == "done") for step in follower.steps)


def test_a_build_that_was_not_needed_is_skipped_and_not_cached(follower: ProgressReader) -> None:
    with steps.report_step("promote"):
        pass
    follower.finish()
    assert (statuses(follower)["register"], statuses(follower)["build"]) == ("cached", "skipped")


def test_a_steps_result_is_kept_through_later_messages(follower: ProgressReader) -> None:
    with steps.report_step("build"):
        progress.report("build", "it is built", result="genreflow:v1")
        progress.report("build", "and tidied up")
    follower.read_events()
    assert step_named(follower, "build").result == "genreflow:v1"


def test_packaging_before_evaluating_says_nothing_of_the_evaluation(follower: ProgressReader) -> None:
    with steps.report_step("package"):
        follower.read_events()
        assert statuses(follower)["fine_tune"] == "cached"
        assert statuses(follower)["evaluate"] == "waiting"


def test_counted_progress_reaches_the_reader(follower: ProgressReader) -> None:
    with steps.report_step("ingest"):
        for _ in progress.track("ingest", range(3), 3, "clips decoded"):
            pass
        follower.read_events()
    ingest = step_named(follower, "ingest")
    assert (ingest.message, ingest.done, ingest.total) == ("clips decoded", 3, 3)


def test_the_sentence_of_a_failed_step_is_the_steps_own(follower: ProgressReader, tmp_path: Path) -> None:
    with pytest.raises(CorpusError), steps.report_step("ingest"):
        raise CorpusError("Only one clip is left.")
    failure = follower.failure(tmp_path / "log")
    assert (failure.step, str(failure)) == ("ingest", "Only one clip is left.")


def test_an_unexpected_error_is_reported_as_unexpected(follower: ProgressReader, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), steps.report_step("evaluate"):
        raise ZeroDivisionError("division by zero")
    sentence = str(follower.failure(tmp_path / "log"))
    assert sentence == "Step evaluate failed unexpectedly (ZeroDivisionError: division by zero)."


def test_a_step_that_was_killed_is_named(follower: ProgressReader, tmp_path: Path) -> None:
    progress.report("fine_tune", "started", event="started")
    assert "Step fine_tune ended without an error message: it was killed" in str(
        follower.failure(tmp_path / "log")
    )


def test_several_steps_of_one_component_are_distinguished_by_their_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "progress.jsonl"
    monkeypatch.setenv(progress.PROGRESS_VARIABLE, str(path))
    follower = ProgressReader(path, nothing, comparison_steps(["a", "b", "c"], [0, 1, 1]))
    place = tmp_path / "run" / "train-candidate-2"
    place.mkdir(parents=True)
    with (
        steps.report_step("train_candidate", place / "candidate"),
        progress.report_as("train_candidate"),
        steps.report_step("fine_tune"),
    ):
        progress.report("fine_tune", "epochs", done=1, total=3)
        follower.read_events()
    assert statuses(follower) == {
        "resolve_candidates": "cached",
        "ingest": "cached",
        "split": "cached",
        "extract_features[a]": "waiting",
        "extract_features[b, c]": "cached",
        "train_candidate[a]": "waiting",
        "train_candidate[b]": "running",
        "train_candidate[c]": "waiting",
        "compare": "waiting",
        "build": "waiting",
    }
    running = step_named(follower, "train_candidate[b]")
    assert (running.title, running.message, running.done) == ("Train: b", "epochs", 1)
    follower.read_events()
    assert step_named(follower, "train_candidate[b]").status == "done"


def test_the_failure_of_a_step_within_a_step_is_the_outer_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "progress.jsonl"
    monkeypatch.setenv(progress.PROGRESS_VARIABLE, str(path))
    follower = ProgressReader(path, nothing, comparison_steps(["a"], [0]))
    place = tmp_path / "train-candidate"
    place.mkdir()
    with (
        pytest.raises(CorpusError),
        steps.report_step("train_candidate", place / "candidate"),
        progress.report_as("train_candidate"),
        steps.report_step("package"),
    ):
        raise CorpusError("No windows are left.")
    failure = follower.failure(tmp_path / "log")
    assert (failure.step, str(failure)) == ("train_candidate[a]", "No windows are left.")
    assert progress.STEP_VARIABLE not in os.environ


CRASH = """
import os, sys
from pathlib import Path
from genreflow import steps
from genreflow.corpus import ingest

def crash(file, name, *bounds):
    return os.abort() if name == "rock/3.wav" else decode(file, name, *bounds)

decode, ingest.decode = ingest.decode, crash
with steps.report_step("ingest"):
    settings = ingest.IngestSettings(genres=("jazz", "rock"))
    source, out = sys.argv[1:]
    ingest.ingest(source, ingest.resolve(source, settings.genres), settings, Path(out), workers=1)
"""


def test_the_progress_and_the_files_of_a_crashed_step_are_reported(
    follower: ProgressReader, tmp_path: Path
) -> None:
    for number, name in enumerate([f"{genre}/{clip}.wav" for genre in ("jazz", "rock") for clip in range(6)]):
        write(tmp_path / "music" / name, tone(1.2, 8_000, 200 + 10 * number), 8_000)
    command = [sys.executable, "-c", CRASH, str(tmp_path / "music"), str(tmp_path / "corpus")]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGABRT, done.stderr.decode()
    sentence = str(follower.failure(tmp_path / "log"))
    how = r" after \d+ of 12 clips decoded and checked, while processing rock/3\.wav: it was killed"
    assert re.match("Step ingest ended without an error message" + how, sentence)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("offset", ["-1d", "+1d"])
def test_a_step_takes_no_longer_and_no_less_where_the_clock_is_set(
    offset: str, follower: ProgressReader
) -> None:
    code = "from genreflow import steps\nwith steps.report_step('resolve'): pass"
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], env=os.environ | clock(offset), check=True)
    follower.read_events()
    assert 0 < follower.steps[0].seconds <= time.monotonic() - began + 1


def test_half_a_line_waits_for_its_other_half(follower: ProgressReader) -> None:
    event = json.dumps({"time": time.time(), "step": "resolve", "message": "started", "event": "started"})
    with follower.path.open("a") as file:
        file.write(event[:20])
        file.flush()
        follower.read_events()
        assert statuses(follower)["resolve"] == "waiting"
        file.write(event[20:] + "\n")
    follower.read_events()
    assert statuses(follower)["resolve"] == "running"


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus made by the step itself, of clips that fill more than a megabyte."""
    folder = tmp_path_factory.mktemp("ingested")
    for genre, pitch in (("blues", 220.0), ("rock", 440.0)):
        for number in range(3):
            write(folder / "clips" / genre / f"{number}.wav", tone(seconds=8, pitch=pitch + number))
    source, genres = str(folder / "clips"), {"genres": ["blues", "rock"]}
    steps.ingest(source, steps.resolve(source, genres, "mfcc_cnn", {})[0], genres, folder / "corpus")
    return folder


def cached(folder: Path) -> Path:
    """KFP's own cache, with an entry of an artifact in `folder` and one of a file that no step reads."""
    cache, copy = folder / "cache", folder / "report.html"
    copy.write_text("<html>")
    outputs = {"out": dsl.Dataset(uri=str(folder / "corpus")), "Output": "text"}
    LocalCache(str(cache)).put("made", outputs)
    LocalCache(str(cache)).put("copied", {"report": dsl.HTML(uri=str(copy))})
    return cache


def flip(path: Path) -> None:
    """Another byte in the middle; the size stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def later(path: Path) -> None:
    """What reading steps may leave in a folder, and a copy's times."""
    (path / "came-later.lock").touch()
    for file in path.iterdir():
        if file.is_file() and file.stat().st_size < SEALED_BY_DIGEST_BYTES:
            os.utime(file)


@pytest.mark.parametrize(
    ("name", "harm", "kept"),
    [
        (".", later, True),
        ("*.arrow", truncate, False),
        ("*.arrow", flip, False),
        ("manifest.parquet", truncate, False),
        ("manifest.parquet", flip, False),
        ("manifest.parquet", Path.unlink, False),
        (".", empty, False),
        (".", shutil.rmtree, False),
        ("../corpus.seal.json", Path.unlink, False),
        ("../corpus.seal.json", truncate, False),
        ("../report.html", Path.unlink, True),
    ],
)
def test_a_cache_entry_is_dropped_where_its_artifact_is_missing_or_altered(
    name: str, harm: Callable[[Path], object], kept: bool, ingested: Path, tmp_path: Path
) -> None:
    shutil.copytree(ingested, tmp_path / "run")
    cache = cached(tmp_path / "run")
    corpus = tmp_path / "run" / "corpus"
    (large,) = corpus.rglob("*.arrow")
    assert large.stat().st_size > SEALED_BY_DIGEST_BYTES
    assert drop_stale_cache_entries(cache) == 0
    (harmed,) = [large] if name == "*.arrow" else [(corpus / name).resolve()]
    harm(harmed)
    copied = (tmp_path / "run" / "report.html").exists()
    assert drop_stale_cache_entries(cache) == (not kept) + (not copied)
    assert sorted(entry.stem for entry in cache.iterdir()) == ["copied"] * copied + ["made"] * kept


def test_an_incomplete_cache_entry_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    assert drop_stale_cache_entries(tmp_path) == 2
    assert not list(tmp_path.iterdir())
