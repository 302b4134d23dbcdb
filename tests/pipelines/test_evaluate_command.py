"""`genreflow evaluate` as a person types it."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from candidates import write_packaged
from corpora import ingest_and_split, split_of
from pitch_model import RATE, melody
from sounds import genre_folder, write
from typer.testing import CliRunner, Result

from genreflow.audio.distortions import DISTORTIONS
from genreflow.core.documents import CorpusDocument, SplitDocument
from genreflow.core.errors import GenreflowError
from genreflow.core.genres import GENRES
from genreflow.corpus.settings import CorpusSettings
from genreflow.corpus.store import Corpus
from pipelines import cli

COMMON = ("jazz", "rock")


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips each of jazz and rock."""
    return genre_folder(tmp_path_factory.mktemp("music"), 4, COMMON)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packaged model of ten genres, trained on none of these clips."""
    folder = tmp_path_factory.mktemp("model") / "packaged"
    write_packaged(folder, 0, {})
    return folder


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments)])


def refusal(*arguments: object) -> str:
    done = evaluate(*arguments)
    assert isinstance(done.exception, GenreflowError), done.output
    assert done.stdout == ""
    return str(done.exception)


def test_another_folder_is_scored_and_written_as_text_json_and_page(
    model: Path, music: Path, tmp_path: Path
) -> None:
    page = tmp_path / "out" / "report.html"
    text = evaluate(model, "--on", music, "-o", page)
    assert text.exit_code == 0, text.output
    assert "on 8 clips of" in text.stdout
    assert "Scored are clips of jazz, rock" in text.stdout
    assert "0 clips that the model was trained or selected on were left out" in text.stdout
    found = json.loads(evaluate(model, "--on", music, "--json").stdout)["generalisation"]
    assert (found["clips"], found["genres"]) == (8, list(COMMON))
    assert f"{found['accuracy']:.1%} on 8 clips" in text.stdout
    assert f"{found['accuracy']:.1%} on 8 clips" in page.read_text()
    # what was decoded is not kept
    assert not list(Path(tmp_path / "home").glob("evaluate-*"))


def artifacts_of_a_run(home: Path, music: Path, model: Path) -> tuple[Path, Corpus]:
    """Corpus and split as a run leaves them, and the model as trained on them."""
    run = home / "pipelines" / "genreflow-training-1"
    corpus = ingest_and_split(
        music, CorpusSettings(protocol="grouped", genres=COMMON), run / "ingest" / "corpus"
    )
    (run / "split").mkdir()
    shutil.move(split_of(corpus), run / "split" / "split")
    # a comparison's candidates have the document alone
    (run / "train-candidate" / "candidate").mkdir(parents=True)
    shutil.copy(run / "split" / "split" / SplitDocument.file_name, run / "train-candidate" / "candidate")
    opened, split = Corpus.open(corpus), SplitDocument.read(run / "split" / "split")
    clips = dict(zip(opened.manifest["sha256"], opened.manifest["duplicate_cluster"], strict=True))
    fields: dict[str, Any] = {
        "corpus_fingerprint": CorpusDocument.read(corpus).fingerprint,
        "split_fingerprint": split.fingerprint,
        "train_clips": clips,
    }
    write_packaged(model, 0, fields)
    return run, opened


def test_clips_that_were_trained_on_are_left_out_other_encodings_too(music: Path, tmp_path: Path) -> None:
    model, others = tmp_path / "model", tmp_path / "others"
    _, corpus = artifacts_of_a_run(tmp_path / "home", music, model)
    shutil.copytree(music, others)
    genre_folder(others / "new", 6, COMMON)  # the same pitches: the first four are the training clips again
    for genre in COMMON:
        for file in (others / "new" / genre).iterdir():
            shutil.move(file, others / genre / f"new-{file.name}")
    shutil.rmtree(others / "new")
    done = evaluate(model, "--on", others, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["generalisation"]
    assert found["left_out"]["same_file"] + found["left_out"]["same_audio"] >= 2 * len(corpus)
    assert found["clips"] == 20 - sum(found["left_out"].values())
    assert refusal(model, "--on", music).endswith("Name clips that it has not seen.")


def test_robustness_is_of_the_models_own_test_split_where_no_clips_are_named(
    music: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    run, _ = artifacts_of_a_run(tmp_path / "home", music, model)
    counts = SplitDocument.read(run / "split" / "split").counts
    done = evaluate(model, "--robustness", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["robustness"]
    assert found["clips"] == counts["test"]
    assert [row["name"] for row in found["conditions"]] == [each.name for each in DISTORTIONS]
    for genre, pitch in (("disco", "bass"), ("pop", "treble")):
        for number in range(3):
            write(tmp_path / "more" / genre / f"{number}.wav", melody(pitch, number, 1.5), RATE)
    text = evaluate(model, "--robustness", "--on", tmp_path / "more")
    assert "6 of 6 clips of" in text.stdout
    assert "mp3, 32 kbit/s" in text.stdout


def unusable(tmp_path: Path) -> dict[str, Sequence[object]]:
    return {
        "Name labelled clips with --on SOURCE": [],
        "A report is written as an .html file": ["--robustness", "-o", tmp_path / "report.txt"],
        "are not among the runs in": ["--robustness"],
        "There is no folder": ["--on", tmp_path / "nowhere"],
        "and it has none": ["--on", genre_folder(tmp_path / "other", 2, ("techno", "house"))],
        "only those of jazz": ["--on", genre_folder(tmp_path / "half", 2, ("jazz", "house"))],
    }


def test_what_cannot_be_scored_is_refused_with_an_error_message(model: Path, tmp_path: Path) -> None:
    for said, arguments in unusable(tmp_path).items():
        assert said in refusal(model, *arguments)
    assert GENRES[0] in refusal(model, "--on", tmp_path / "other")
