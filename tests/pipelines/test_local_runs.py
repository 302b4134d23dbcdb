"""Real runs on kfp.local: the pipeline through the command line, its cache, and how failures surface."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from killing import interrupted
from sounds import tone, write

from genreflow import registry, steps

GENRES = ["blues", "jazz", "rock"]
SET_GENRES = f"corpus.genres={json.dumps(GENRES)}"
TIMEOUT = 900  # seconds


def clips(folder: Path, per_genre: int = 6) -> Path:
    """Tones that differ in pitch by genre."""
    for number, genre in enumerate(GENRES):
        for clip in range(per_genre):
            write(folder / genre / f"{clip}.wav", tone(seconds=3.2, pitch=220.0 * 2**number + clip))
    return folder


def run(folder: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`genreflow run` with the smallest model, in a process of its own."""
    return subprocess.run(
        _command(folder, *arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        env=_variables(home),
        cwd=home.parent,
    )


def run_until(line: str, folder: Path, home: Path, *arguments: str) -> list[str]:
    """`run`, interrupted once its progress has a line that matches this expression: the lines so far."""
    return interrupted(line, _command(folder, *arguments), _variables(home), home.parent, TIMEOUT)


def _command(folder: Path, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "pipelines.cli", "run", "--source", str(folder), "--family", "mfcc_cnn"]
    command += ["--set", SET_GENRES, "--set", "training.epochs=2", "--set", "training.device=cpu"]
    return [*command, "--set", "gate.min_accuracy=0", *arguments]


def _variables(home: Path) -> dict[str, str]:
    variables = {**os.environ, "GENREFLOW_HOME": str(home), "OMP_NUM_THREADS": "1"}
    variables["GENREFLOW_IMAGE"] = "genreflow:latest"  # for pods alone
    variables["BENTOML_HOME"] = str(home.parent / "bentoml")
    return variables


pytestmark = pytest.mark.timeout(2 * TIMEOUT)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same run twice, and once more on changed clips, each with its summary."""
    folder = tmp_path_factory.mktemp("runs")
    clips(folder / "clips")
    first = run(folder / "clips", folder / "home", "--summary", str(folder / "first.json"))
    assert first.returncode == 0, first.stderr
    second = run(folder / "clips", folder / "home", "--summary", str(folder / "second.json"))
    assert second.returncode == 0, second.stderr
    write(folder / "clips" / "jazz" / "0.wav", tone(seconds=3.2, pitch=999.0))
    write(folder / "clips" / "jazz" / "new.wav", tone(seconds=3.2, pitch=888.0))
    write(folder / "clips" / "jazz" / "newer.wav", tone(seconds=3.2, pitch=777.0))
    (folder / "clips" / "rock" / "0.wav").unlink()
    third = run(folder / "clips", folder / "home", "--summary", str(folder / "third.json"))
    assert third.returncode == 0, third.stderr
    return {
        "folder": folder,
        "first": first,
        "second": second,
        "first_summary": json.loads((folder / "first.json").read_text()),
        "second_summary": json.loads((folder / "second.json").read_text()),
        "third": third,
        "third_summary": json.loads((folder / "third.json").read_text()),
    }


def test_the_summary_has_the_documented_fields(runs: dict[str, Any]) -> None:
    summary = runs["first_summary"]
    assert set(summary) == {
        "run_id", "model_version", "aliases", "decision", "bento", "metrics", "corpus", "steps"
    }  # fmt: skip
    assert set(summary["metrics"]) == {
        "accuracy", "accuracy_ci95", "macro_f1", "per_genre", "runtime", "precision"
    }  # fmt: skip
    assert set(summary["metrics"]["per_genre"]) == set(GENRES)
    low, high = summary["metrics"]["accuracy_ci95"]
    assert low <= summary["metrics"]["accuracy"] <= high
    assert set(summary["corpus"]) == {"fingerprint", "protocol", "counts", "quarantined"}
    assert sum(summary["corpus"]["counts"].values()) == 18
    assert summary["decision"]["verdict"] in ("promoted", "kept")
    assert summary["decision"]["reason"]
    assert summary["model_version"] == "1"
    assert len(summary["run_id"]) == 32


def test_every_step_is_in_the_summary_with_its_time(runs: dict[str, Any]) -> None:
    steps = runs["first_summary"]["steps"]
    assert [step["name"] for step in steps] == [
        "resolve", "ingest", "split", "extract_features", "fine_tune", "package", "evaluate", "register",
        "promote", "build",
    ]  # fmt: skip
    assert all((step["seconds"] > 0) is not step["skipped"] and not step["cached"] for step in steps)


def test_nothing_is_built_of_what_was_not_promoted_and_the_run_says_so(runs: dict[str, Any]) -> None:
    for which in ("first", "second", "third"):
        summary = runs[f"{which}_summary"]
        skipped = [step["name"] for step in summary["steps"] if step["skipped"]]
        assert (summary["decision"]["verdict"], summary["bento"], skipped) == ("kept", None, ["build"])
        assert "Build bento:  skipped: nothing was promoted" in runs[which].stderr


def test_the_bento_of_a_champion_is_built_once_and_serve_finds_it(runs: dict[str, Any]) -> None:
    folder = runs["folder"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENREFLOW_HOME", str(folder / "home"))
        registry.set_champion("2", "by a person's judgement")
    built = run(folder / "clips", folder / "home", "--summary", str(folder / "built.json"))
    assert built.returncode == 0, built.stderr
    summary = json.loads((folder / "built.json").read_text())
    name, _, version = summary["bento"].partition(":")
    bento = folder / "bentoml" / "bentos" / name / version
    assert (bento / "bento.yaml").is_file()
    assert f"Bento {summary['bento']}" in built.stdout
    assert not built.stdout.rstrip().endswith("nothing new: identical to version 2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENREFLOW_HOME", str(folder / "home"))
        assert registry.version("2").tags["bento"] == summary["bento"]
    before = (bento / "bento.yaml").stat().st_mtime
    environment = {
        **os.environ,
        "GENREFLOW_HOME": str(folder / "home"),
        "BENTOML_HOME": str(folder / "bentoml"),
    }
    command = [sys.executable, "-m", "pipelines.cli", "build"]  # what `genreflow serve` does first
    again = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert again.stdout.strip() == summary["bento"]
    assert (bento / "bento.yaml").stat().st_mtime == before


def test_a_second_run_takes_from_the_cache_what_did_not_change(runs: dict[str, Any]) -> None:
    cached = {step["name"] for step in runs["second_summary"]["steps"] if step["cached"]}
    assert cached == {"ingest", "split", "extract_features", "fine_tune", "evaluate", "package"}
    for name in ("run_id", "model_version", "metrics", "corpus"):
        assert runs["second_summary"][name] == runs["first_summary"][name]
    assert runs["second"].stdout.rstrip().endswith("nothing new: identical to version 1")
    assert "Fine-tune model:  cached" in runs["second"].stderr


def test_another_split_or_other_settings_of_a_model_run_neither_ingest_nor_extraction_again(
    runs: dict[str, Any],
) -> None:
    folder = runs["folder"]
    home = folder / "shared" / "home"
    home.mkdir(parents=True)
    shutil.copytree(folder / "home" / "cache", home / "cache")

    def cached(until: str, *arguments: str) -> set[str]:
        lines = run_until(until, folder / "clips", home, "--protocol", "random", *arguments)
        return {found[1] for line in lines if (found := re.fullmatch(r"(.+):  cached", line))}

    ready, trained = "Fine-tune model: started", r"Fine-tune model: +[\d.]+ s"
    assert cached(ready) == {"Ingest corpus", "Extract features"}
    changed = ("--set", "model.dropout=0.5", "--set", "model.views=1")
    assert cached(trained, *changed) == {"Ingest corpus", "Split corpus", "Extract features"}
    # twelve training clips or more, each with its copy
    assert len(list((home / "views").rglob("*-1.npy"))) >= 12
    assert cached(ready, "--set", "resources.extract=split", *changed) == {"Ingest corpus", "Split corpus"}


def test_after_a_change_in_the_folder_every_step_runs_again(runs: dict[str, Any]) -> None:
    before, after = runs["first_summary"], runs["third_summary"]
    assert not any(step["cached"] for step in after["steps"])
    assert sum(after["corpus"]["counts"].values()) == 19
    assert after["corpus"]["fingerprint"] != before["corpus"]["fingerprint"]
    assert after["run_id"] != before["run_id"]
    assert (before["model_version"], after["model_version"]) == ("1", "2")
    assert "nothing new" not in runs["third"].stdout


def test_each_kind_of_change_in_the_folder_is_seen(tmp_path: Path) -> None:
    folder = clips(tmp_path / "clips", per_genre=3)

    def fingerprint() -> str:
        return steps.resolve(str(folder), {"genres": GENRES}, "mfcc_cnn", {})[0]

    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    write(folder / "jazz" / "new.wav", tone(pitch=999.0))
    seen.append(fingerprint())
    write(folder / "jazz" / "new.wav", tone(pitch=777.0, seconds=2.5))
    seen.append(fingerprint())
    (folder / "rock" / "0.wav").unlink()
    seen.append(fingerprint())
    assert len(set(seen)) == 4


def test_the_report_on_stdout_names_figures_decision_and_what_exists(runs: dict[str, Any]) -> None:
    text = runs["first"].stdout
    assert "95 % interval" in text
    assert "Gate: " in text
    report = next(line for line in text.splitlines() if line.startswith("Report: "))
    assert "<html" in Path(report.removeprefix("Report: ")).read_text()
    classify = next(line.split() for line in text.splitlines() if "genreflow classify" in line)
    assert any((runs["folder"] / word).is_file() for word in classify)
    assert "nothing new" not in text


def test_progress_goes_to_stderr_and_results_to_stdout(runs: dict[str, Any]) -> None:
    assert "Ingest corpus:" in runs["first"].stderr
    assert "Ingest corpus:" not in runs["first"].stdout
    assert "Traceback" not in runs["first"].stderr


def test_a_step_that_fails_is_reported_in_its_own_sentence_with_the_logs_place(tmp_path: Path) -> None:
    for genre in GENRES:
        for number in range(3):
            path = tmp_path / "clips" / genre / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"<html><body>{genre} {number} was not found</body></html>")
    done = run(tmp_path / "clips", tmp_path / "home")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    sentence, place = done.stderr.strip().splitlines()[-2:]
    assert sentence.startswith("genreflow: ")
    assert "failed unexpectedly" not in sentence
    log = Path(place.removeprefix("The log of this run: "))
    assert "Traceback" in log.read_text()
    assert not (tmp_path / "home" / "mlflow.db").exists()


def test_an_interrupted_run_ends_its_steps_and_itself(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-m", "pipelines.cli", "run", "--source", "synthetic?clips=40&seconds=20"]
    command += ["--family", "mfcc_cnn"]
    variables = {**os.environ, "GENREFLOW_HOME": str(home)}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=variables, start_new_session=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Ingest corpus: started"):
                break
        os.kill(process.pid, signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
    assert "genreflow: interrupted" in rest
    assert "Traceback" not in rest
    deadline = time.monotonic() + 10
    while alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(process.pid)


def alive(session: int) -> list[int]:
    """Processes of a session that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found
