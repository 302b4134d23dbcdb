"""Another source and robustness, of a comparison's best models."""

from pathlib import Path

import pytest
from candidates import write_packaged
from corpora import ingest_and_split, split_of
from pitch_model import GENRES, write_music

from genreflow import steps
from genreflow.comparison.evaluation_page import write_page
from genreflow.comparison.further_tests import further_tests
from genreflow.core.errors import CorpusError
from genreflow.corpus.settings import CorpusSettings
from genreflow.corpus.splitting import open_corpus


def test_the_best_models_are_scored_on_another_source_and_distorted(tmp_path: Path) -> None:
    music = write_music(tmp_path / "music", clips=4, seconds=2.0)
    settings = CorpusSettings(protocol="grouped", genres=GENRES)
    corpus = open_corpus(
        ingest_and_split(music, settings, tmp_path / "corpus"), split_of(tmp_path / "corpus")
    )
    learned = corpus.manifest[corpus.manifest["split"] != "test"]
    clips = dict(zip(learned["sha256"], learned["duplicate_cluster"], strict=True))
    packaged = {}
    for seed, name in enumerate(("first", "second")):
        packaged[name] = tmp_path / name
        fields = {"genres": GENRES, "train_clips": clips, "validation_clips": {}}
        write_packaged(packaged[name], seed, fields)

    found = further_tests(packaged, corpus, str(music), corpus.rows("test"), True, tmp_path / "scratch")
    for each in found:
        assert each.generalisation is not None
        assert each.robustness is not None
        # of its own corpus, the test clips are left
        assert each.generalisation.clips == each.robustness.clips == len(corpus.rows("test"))
        assert each.generalisation.accuracy == each.robustness.clean.accuracy
        assert each.generalisation.left_out.same_file == len(clips)
        assert [sentence.split(":")[0] for sentence in each.sentences()] == [each.name] * 2
    assert [each.name for each in found] == ["first", "second"]
    write_page("both", [section for each in found for section in each.sections()], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    anchors = [part.split('"')[0] for part in page.split('<h2 id="')[1:]]
    assert len(set(anchors)) == len(anchors) == 4

    (alone, _) = further_tests(packaged, corpus, None, corpus.rows("test"), False, tmp_path / "none")
    assert alone.generalisation is None
    with pytest.raises(CorpusError, match="cannot test this model"):
        further_tests(
            packaged, corpus, str(write_music(tmp_path / "o", genres=("bass",))), [], False, tmp_path / "s"
        )


def test_another_source_that_cannot_test_the_candidates_is_refused_before_they_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENREFLOW_HOME", str(tmp_path / "home"))
    music = str(write_music(tmp_path / "music", clips=2, seconds=2.0))
    others = str(write_music(tmp_path / "others", genres=("bass",)))
    settings, candidates = {"genres": GENRES}, [{"family": "mfcc_cnn", "model": {}}]
    fingerprints = steps.resolve_candidates(music, settings, candidates, also_test=music)
    assert fingerprints == steps.resolve_candidates(music, settings, candidates)
    with pytest.raises(CorpusError, match=r"others cannot test this model"):
        steps.resolve_candidates(music, settings, candidates, also_test=others)
