"""Searches of `shallow` whose trials are mirrored to an object store, and go on from there."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import split_of, tones, write_corpus
from faults import Proxy
from servers import stored_keys

from genreflow.core import home
from genreflow.core.documents import ModelDocument
from genreflow.core.errors import ObjectStoreError
from genreflow.extraction import extract
from genreflow.families import family
from genreflow.families.shallow import ShallowSettings
from genreflow.families.shallow import trials as kept
from genreflow.fitting import fine_tuning
from genreflow.training.mirror import CheckpointMirror

GENRES = ("blues", "disco", "metal")
SHALLOW = family("shallow")
MODEL = {"classifier": "decision_tree", "window_seconds": 1.0}
TRIALS = 6


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, its split beside it, and its features."""
    folder = tmp_path_factory.mktemp("mirrored")
    write_corpus(folder / "corpus", tones(GENRES, per_genre=8), GENRES)
    split_of(folder / "corpus")
    spec = SHALLOW.representation(ShallowSettings(window_seconds=1.0))
    extract(folder / "corpus", spec, folder / "features", device="cpu")
    return folder


def fit(source: Path, out: Path, how: str, uri: str | None = None, **training: Any) -> ModelDocument:
    given = {"search": how, "trials": TRIALS, "folds": 2, "checkpoint_uri": uri, **training}
    split = split_of(source / "corpus")
    return fine_tuning.fine_tune(source / "features", split, out, SHALLOW, MODEL, given)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After each trial that is measured in this process, how many there are."""
    found: list[int] = []

    def report(step: str, text: str, done: int | None = None, total: int | None = None) -> None:
        if done is not None:
            found.append(done)

    monkeypatch.setattr("genreflow.families.shallow.progress.report", report)
    return found


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_mirrored_search import fit
import genreflow.families.shallow
search = sys.modules["genreflow.families.shallow.search"]  # the package has a function of that name

measured, held_out_logits = [], search.held_out_logits

def fourth_is_never_measured(*arguments):
    measured.append(arguments[1])
    if len(measured) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return held_out_logits(*arguments)

search.held_out_logits = fourth_is_never_measured
fit(Path({source!r}), Path({out!r}), {how!r}, {uri!r})
"""


def killed_in_the_fourth_trial(source: Path, out: Path, how: str, uri: str, state: Path) -> None:
    """Search in a process of its own, with a state folder of its own."""
    code = KILLED.format(tests=str(Path(__file__).parent), source=str(source), out=str(out), how=how, uri=uri)
    path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "GENREFLOW_HOME": str(state)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL


def same(model: Path, other: Path) -> None:
    a, b = (ModelDocument.read(folder) for folder in (model, other))
    for fact in ("found_parameters", "searched", "cross_validation", "validation"):
        assert a.training[fact] == b.training[fact], fact
    assert a.temperature == b.temperature
    files = sorted(path.name for path in other.iterdir() if path.name != ModelDocument.file_name)
    assert all((model / name).read_bytes() == (other / name).read_bytes() for name in files)


@pytest.mark.parametrize("how", ["grid", "bayesian"])
def test_a_killed_search_resumes_from_the_store_on_another_machine_and_measures_no_trial_twice(
    how: str, source: Path, address: str, aws: Any, tmp_path: Path, done: list[int]
) -> None:
    undisturbed = fit(source, tmp_path / "undisturbed", how)
    assert done == list(range(1, undisturbed.training["searched"] + 1))
    done.clear()
    killed_in_the_fourth_trial(source, tmp_path / "never", how, address, tmp_path / "another machine")
    assert not list(home.searches_folder().glob("*/"))
    document = fit(source, tmp_path / "resumed", how, address)
    assert done == list(range(4, undisturbed.training["searched"] + 1))
    assert document.training["notes"] == []
    same(tmp_path / "resumed", tmp_path / "undisturbed")
    assert stored_keys(aws, address) == []  # nothing is kept of a search that ended


def test_the_longer_of_what_is_here_and_in_the_store_is_kept(address: str, aws: Any, tmp_path: Path) -> None:
    def trials(machine: str, lines: str) -> kept.Trials:
        found = kept.Trials(tmp_path / machine, CheckpointMirror(address, "key"))
        assert found.file is not None
        found.file.parent.mkdir(parents=True)
        found.file.write_text(lines)
        return found

    trials("one", "1\n2\n3\n").push()
    for machine, lines, expected in (
        ("ahead", "1\n2\n3\n4\n", "1\n2\n3\n4\n"),
        ("behind", "1\n", "1\n2\n3\n"),
    ):
        found = trials(machine, lines)
        found.fetch()
        assert found.file is not None
        assert found.file.read_text() == expected
        assert found.notes == []
        assert [path.name for path in (tmp_path / machine).iterdir()] == ["searched"]


def test_trials_that_are_damaged_in_the_store_are_made_again(
    source: Path, address: str, aws: Any, tmp_path: Path, done: list[int]
) -> None:
    killed_in_the_fourth_trial(source, tmp_path / "never", "bayesian", address, tmp_path / "another machine")
    (file,) = [key for key in stored_keys(aws, address) if "/files/" in key]
    aws.put_object(Bucket=address.split("/")[2], Key=file, Body=b"something else")
    document = fit(source, tmp_path / "resumed", "bayesian", address)
    (note,) = document.training["notes"]
    assert "searched is damaged: trials.journal is not what was written. Skipped" in note
    assert done == list(range(1, TRIALS + 1))


def test_a_search_continues_while_the_store_is_down_and_stores_its_trials_later(
    source: Path, address: str, aws: Any, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[bool] = []

    def report(step: str, text: str, done: int | None = None, total: int | None = None) -> None:
        if done is not None:
            stored.append(any(key.endswith("last.json") for key in stored_keys(aws, address)))
            proxy.busy = 1000 if done < 2 else 0

    monkeypatch.setattr("genreflow.families.shallow.progress.report", report)
    check = kept.mirror_of

    def then_busy(uri: str | None, key: str) -> Any:
        mirror = check(uri, key)
        assert mirror is not None
        assert mirror.checkpoints == {}
        proxy.busy = 1000
        return mirror

    monkeypatch.setattr(kept, "mirror_of", then_busy)
    document = fit(source, tmp_path / "model", "bayesian", address)
    (note,) = document.training["notes"]
    assert note.startswith("A trial is not stored: ")
    assert "limits the request rate" in note
    assert stored == [False, False, True, True, True, True]


def test_a_store_that_cannot_be_used_is_reported_before_anything_is_searched(
    source: Path, aws: Any, tmp_path: Path, done: list[int]
) -> None:
    with pytest.raises(ObjectStoreError, match="There is no bucket no-such-bucket at http://"):
        fit(source, tmp_path / "model", "grid", "s3://no-such-bucket/runs")
    assert done == []


def test_a_folder_takes_the_place_of_the_state_folder_and_where_trials_lie_changes_no_key(
    source: Path, tmp_path: Path, done: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "elsewhere"
    killed_in_the_fourth_trial(source, tmp_path / "never", "grid", place.as_uri(), tmp_path / "home of one")
    (one,) = place.glob("*/")
    assert (one / "searched" / kept.FILE).is_file()
    fit(source, tmp_path / "resumed", "grid", str(place))
    assert done[0] == 4
    assert list(place.iterdir()) == []


def test_the_same_search_twice_at_once_keeps_one_of_them_in_memory(
    source: Path, address: str, aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[ModelDocument] = []

    def report(step: str, text: str, done: int | None = None, total: int | None = None) -> None:
        if done == 1 and not others:
            others.append(ModelDocument.model_construct())
            others[0] = fit(source, tmp_path / "other", "bayesian", address)

    monkeypatch.setattr("genreflow.families.shallow.progress.report", report)
    fit(source, tmp_path / "model", "bayesian", address)
    same(tmp_path / "model", tmp_path / "other")
    assert np.isfinite(others[0].temperature)
    assert stored_keys(aws, address) == []
