"""Scores on another source: what is left out, which genres are scored, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from pitch_model import GENRES, PITCHES, RATE, classifier, melody, write_music
from reencodings import gain, mp3
from sounds import write

from genreflow.comparison.generalisation import generalisation, ingest_source, unseen
from genreflow.core.errors import CorpusError
from genreflow.corpus.ingest import ingest, resolve
from genreflow.corpus.settings import IngestSettings
from genreflow.corpus.store import Corpus


@pytest.fixture(scope="module")
def trained_on(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Training clips: three a genre, six seconds each."""
    root = tmp_path_factory.mktemp("trained")
    music = write_music(root / "music", seconds=6.0)
    ingest(str(music), resolve(str(music), GENRES), IngestSettings(genres=GENRES), root / "corpus")
    return Corpus.open(root / "corpus")


def learned(corpus: Corpus) -> dict[str, str]:
    return dict(zip(corpus.manifest["sha256"], corpus.manifest["duplicate_cluster"], strict=True))


@pytest.fixture(scope="module")
def others(trained_on: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Other clips, and of the training clips a copy, the same audio as flac, and a quieter mp3."""
    root = tmp_path_factory.mktemp("others")
    music = root / "music"
    for genre in GENRES:
        for number in (10, 11):
            write(music / genre / f"{number}.wav", melody(genre, number, 6.0), RATE)
    first = trained_on.folder.parent / "music" / "bass" / "0.wav"
    (music / "bass" / "copy.wav").write_bytes(first.read_bytes())
    samples, rate = soundfile.read(first, dtype="int16")
    soundfile.write(music / "bass" / "same.flac", samples, rate)
    again, rate = mp3(gain((melody("treble", 1, 6.0), RATE), -6))
    write(music / "treble" / "again.wav", again, rate)
    # a wrong label: the one mistake
    write(music / "middle" / "wrong.wav", melody("treble", 12, 6.0), RATE)
    _, notes = ingest_source(str(music), GENRES, root / "corpus")
    assert notes == ()
    return Corpus.open(root / "corpus")


def test_clips_of_training_and_validation_are_left_out_with_the_counts(
    trained_on: Corpus, others: Corpus
) -> None:
    known = list(learned(trained_on).items())
    model = classifier(dict(known[:3]), dict(known[3:]))
    test = unseen(others, model.document, trained_on=trained_on)
    assert (test.left_out.same_file, test.left_out.same_audio, test.left_out.same_recording) == (1, 1, 1)
    found = generalisation(model, test)
    assert found.clips == 7
    assert found.accuracy == pytest.approx(6 / 7)
    assert found.per_genre["middle"].recall == pytest.approx(2 / 3)
    assert found.accuracy_ci95[0] < found.accuracy < found.accuracy_ci95[1]
    assert found.mean_recall == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert 1 / 3 < found.mean_confidence < 1
    assert "3 clips that the model was trained or selected on were left out" in found.sentences()[0]


def test_without_the_training_corpus_recordings_are_not_compared_and_that_is_reported(
    trained_on: Corpus, others: Corpus
) -> None:
    model = classifier(learned(trained_on))
    test = unseen(others, model.document)
    assert (test.left_out.same_file, test.left_out.same_audio) == (1, 1)
    assert test.left_out.same_recording is None
    assert generalisation(model, test).clips == 8
    assert any("not on this machine" in note for note in test.notes)


def test_a_source_of_training_clips_alone_is_refused(trained_on: Corpus) -> None:
    model = classifier(learned(trained_on))
    with pytest.raises(CorpusError, match="nothing to test this model with"):
        unseen(trained_on, model.document)


def test_of_a_source_with_other_genres_the_common_ones_are_scored_and_named(tmp_path: Path) -> None:
    music = write_music(tmp_path / "music", clips=2, genres=("bass", "treble"))
    write(music / "techno" / "0.wav", melody("bass", 5), RATE)
    write(music / "middle" / "0.wav", melody("middle", 5), RATE)  # one clip of a genre is none
    model = classifier()
    _, notes = ingest_source(str(music), model.document.genres, tmp_path / "corpus")
    found = generalisation(model, unseen(Corpus.open(tmp_path / "corpus"), model.document, notes))
    assert found.genres == ("bass", "treble")
    assert set(found.per_genre) == {"bass", "treble"}
    assert found.clips == 4
    text = " ".join(found.sentences())
    assert "Scored are clips of bass, treble" in text
    assert "no two usable clips of middle" in text
    assert "techno" in text


@pytest.mark.parametrize(
    ("genres", "said"), [(("techno", "house"), "and it has none"), (("bass", "house"), "only those of bass")]
)
def test_fewer_than_two_common_genres_are_refused_with_an_error_message(
    genres: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    for genre in genres:
        for number in range(2):
            write(tmp_path / "music" / genre / f"{number}.wav", melody("bass", number), RATE)
    with pytest.raises(CorpusError, match=said) as refused:
        ingest_source(str(tmp_path / "music"), GENRES, tmp_path / "corpus")
    assert "at least 2 of its genres (bass, middle, treble) are needed" in str(refused.value)


def test_a_genre_whose_files_are_unusable_is_left_out(tmp_path: Path) -> None:
    music = write_music(tmp_path / "music", clips=2)
    for number in range(2):
        (music / "middle" / f"{number}.wav").write_text("no audio")
    document, notes = ingest_source(str(music), GENRES, tmp_path / "corpus")
    assert document.genres == ("bass", "treble")
    assert any("no two usable clips of middle" in note for note in notes)


def test_a_table_of_labels_is_a_source_too(tmp_path: Path) -> None:
    rows = ["path,label"]
    for genre in PITCHES:
        for number in range(2):
            write(tmp_path / f"{genre}{number}.wav", melody(genre, number), RATE)
            rows.append(f"{genre}{number}.wav,{genre}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    ingest_source(str(tmp_path / "clips.csv"), GENRES, tmp_path / "corpus")
    model = classifier()
    found = generalisation(model, unseen(Corpus.open(tmp_path / "corpus"), model.document))
    assert found.accuracy == 1.0
    assert np.isclose(found.mean_recall, 1.0)
