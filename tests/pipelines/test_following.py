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

from genreflow import artifacts, progress, steps
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
        "build": "waiting",
    }
    assert all((step.seconds > 0) == (step.status == "done") for step in follower.steps)


def test_a_build_that_was_not_needed_is_skipped_and_not_cached(follower: Follower) -> None:
    with steps.told("promote"):
        pass
    follower.finish()
    assert (statuses(follower)["register"], statuses(follower)["build"]) == ("cached", "skipped")


def test_a_steps_result_outlasts_what_it_says_later(follower: Follower) -> None:
    with steps.told("build"):
        progress.report("build", "it is built", result="genreflow:v1")
        progress.report("build", "and tidied up")
    follower.look()
    assert follower.steps[STEPS.index("build")].result == "genreflow:v1"


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
    assert "Step fine_tune ended without a word: killed" in str(follower.failure(tmp_path / "log"))


CRASH = """
import os, sys
from pathlib import Path
from genreflow import steps
from genreflow.corpus import ingest

def crash(file, name, *bounds):
    return os.abort() if name == "rock/3.wav" else decode(file, name, *bounds)

decode, ingest.decode = ingest.decode, crash
with steps.told("ingest"):
    settings = ingest.CorpusSettings(genres=("jazz", "rock"))
    source, out = sys.argv[1:]
    ingest.ingest(source, ingest.resolve(source, settings.genres), settings, Path(out), workers=1)
"""


def test_how_far_a_step_came_that_crashed_and_on_what_is_said(follower: Follower, tmp_path: Path) -> None:
    for number, name in enumerate([f"{genre}/{clip}.wav" for genre in ("jazz", "rock") for clip in range(6)]):
        write(tmp_path / "music" / name, tone(1.2, 8_000, 200 + 10 * number), 8_000)
    command = [sys.executable, "-c", CRASH, str(tmp_path / "music"), str(tmp_path / "corpus")]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGABRT, done.stderr.decode()
    sentence = str(follower.failure(tmp_path / "log"))
    how = r" after \d+ of 12 clips decoded and checked, with rock/3\.wav in hand: killed"
    assert re.match("Step ingest ended without a word" + how, sentence)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("offset", ["-1d", "+1d"])
def test_a_step_takes_no_longer_and_no_less_where_the_clock_is_set(offset: str, follower: Follower) -> None:
    code = "from genreflow import steps\nwith steps.told('resolve'): pass"
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], env=os.environ | clock(offset), check=True)
    follower.look()
    assert 0 < follower.steps[0].seconds <= time.monotonic() - began + 1


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


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus made by the step itself, of clips that fill more than a megabyte."""
    folder = tmp_path_factory.mktemp("ingested")
    for genre, pitch in (("blues", 220.0), ("rock", 440.0)):
        for number in range(3):
            write(folder / "clips" / genre / f"{number}.wav", tone(seconds=8, pitch=pitch + number))
    source, genres = str(folder / "clips"), {"genres": ["blues", "rock"]}
    steps.ingest(source, steps.resolve(source, genres, {})[0], genres, folder / "corpus")
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
        if file.is_file() and file.stat().st_size < artifacts.SEALED_BY_DIGEST_BYTES:
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
def test_a_cached_step_is_forgotten_where_what_it_made_is_gone_or_altered(
    name: str, harm: Callable[[Path], object], kept: bool, ingested: Path, tmp_path: Path
) -> None:
    shutil.copytree(ingested, tmp_path / "run")
    cache = cached(tmp_path / "run")
    corpus = tmp_path / "run" / "corpus"
    (large,) = corpus.rglob("*.arrow")
    assert large.stat().st_size > artifacts.SEALED_BY_DIGEST_BYTES
    assert drop_stale_cache_entries(cache) == 0
    (harmed,) = [large] if name == "*.arrow" else [(corpus / name).resolve()]
    harm(harmed)
    copied = (tmp_path / "run" / "report.html").exists()
    assert drop_stale_cache_entries(cache) == (not kept) + (not copied)
    assert sorted(entry.stem for entry in cache.iterdir()) == ["copied"] * copied + ["made"] * kept


def test_a_torn_entry_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    assert drop_stale_cache_entries(tmp_path) == 2
    assert not list(tmp_path.iterdir())
