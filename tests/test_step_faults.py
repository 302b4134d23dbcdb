"""What befalls any step: it is killed, or there is no room to write into."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from disks import little_room
from sounds import genre_folder
from test_training import FAST, features

from genreflow import packaging, steps, training
from genreflow.artifacts import CorpusDocument, FeaturesDocument, ModelDocument, PackagedDocument, broken_seal
from genreflow.errors import GenreflowError
from genreflow.evaluation.document import EvaluationDocument
from genreflow.progress import PROGRESS_VARIABLE

DOCUMENTS = (CorpusDocument, FeaturesDocument, ModelDocument, EvaluationDocument, PackagedDocument)
CORPUS = {"genres": ["jazz", "rock"]}
KILLED_BEFORE_THE_END = """
import os, signal, sys
from pathlib import Path
from genreflow import artifacts, steps
def killed(*_): os.kill(os.getpid(), signal.SIGKILL)
artifacts.Document.write = killed
source, corpus, out = sys.argv[1:]
if out:
    steps.extract_features(Path(corpus), "mfcc_cnn", {}, Path(out), device="cpu")
else:
    steps.ingest(source, steps.resolve(source, {"genres": ["jazz", "rock"]}, {})[0],
        {"genres": ["jazz", "rock"]}, Path(corpus))
"""


@pytest.fixture
def music(tmp_path: Path) -> str:
    return str(genre_folder(tmp_path / "music"))


def ingest(music: str, out: Path) -> CorpusDocument:
    return steps.ingest(music, steps.resolve(music, CORPUS, {})[0], CORPUS, out)


def test_a_killed_ingest_or_extraction_leaves_nothing_that_is_taken_for_whole(
    music: str, tmp_path: Path
) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "features"

    def kill(*arguments: str) -> None:
        command = [sys.executable, "-c", KILLED_BEFORE_THE_END, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr

    kill(music, str(corpus), "")
    assert not corpus.exists()
    made = ingest(music, corpus)
    assert made.fingerprint == ingest(music, tmp_path / "undisturbed").fingerprint
    kill(music, str(corpus), str(out))
    assert any(out.iterdir())
    with pytest.raises(GenreflowError, match="is not a genreflow FeaturesDocument"):
        FeaturesDocument.read(out)
    again = steps.extract_features(corpus, "mfcc_cnn", {}, out, device="cpu")
    whole = steps.extract_features(corpus, "mfcc_cnn", {}, tmp_path / "whole", device="cpu")
    assert again.fingerprint == whole.fingerprint


def trained(music: str, folder: Path) -> tuple[Path, Path]:
    """A corpus, and a model of it."""
    ingest(music, folder / "corpus")
    steps.extract_features(folder / "corpus", "mfcc_cnn", {}, folder / "features", device="cpu")
    training.fine_tune(folder / "features", folder / "model", {**FAST, "epochs": 1})
    return folder / "corpus", folder / "model"


@pytest.mark.parametrize("step", ["ingest", "extract_features", "fine_tune", "evaluate", "package"])
def test_where_there_is_no_room_a_sentence_says_it_and_the_next_run_goes_well(
    step: str, music: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv(PROGRESS_VARIABLE, str(events))
    out, source = tmp_path / "out", tmp_path / "source"
    if step == "extract_features":
        ingest(music, source)
    if step == "fine_tune":
        features(source)
    if step in ("evaluate", "package"):
        corpus, model = trained(music, source)

    def run() -> None:
        if step == "ingest":
            ingest(music, out)
        elif step == "extract_features":
            steps.extract_features(source, "mfcc_cnn", {}, out, device="cpu")
        elif step == "evaluate":
            steps.evaluate(corpus, model, out)
        elif step == "package":
            steps.package(model, corpus, out, {})
        else:
            with steps.told(step):  # not the whole step: its MLflow store is larger than the room
                training.fine_tune(source, out, {**FAST, "epochs": 1})

    with little_room(20_000), pytest.raises(GenreflowError, match=r"There is no room left.* run again"):
        run()
    assert "There is no room left" in events.read_text()
    assert not any((out / document.file_name).exists() for document in DOCUMENTS)
    assert broken_seal(out)
    run()
    assert any((out / document.file_name).exists() for document in DOCUMENTS)


def test_where_there_is_no_room_for_openvino_the_model_is_not_served_without_it(
    music: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, model = trained(music, tmp_path)
    export, out = packaging.export_openvino, tmp_path / "packaged"

    def cramped(*arguments: Any) -> None:
        with little_room(1000):
            export(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(packaging, "export_openvino", cramped)
        with pytest.raises(GenreflowError, match=r"OpenVINO could not write .*model.xml .*make room"):
            steps.package(model, corpus, out, {})
    assert not (out / PackagedDocument.file_name).exists()
    done = steps.package(model, corpus, out, {})
    assert all(runtime.usable for runtime in done.runtimes if runtime.precision == "f32")
