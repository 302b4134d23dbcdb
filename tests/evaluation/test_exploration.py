"""What is said of a corpus is what lies in it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genreflow.corpus.duplicates import NEAR_COLUMNS
from genreflow.corpus.splitting import open_corpus
from genreflow.corpus.store import NEAR_DUPLICATES, Corpus
from genreflow.evaluation.exploration import between_share, explore
from tests.corpora import split_of


def test_every_clip_is_counted_once_under_its_genre_and_split(corpus: Corpus) -> None:
    found = explore(corpus)
    assert found.counts.to_numpy().sum() == len(corpus)
    for split in ("train", "validation", "test"):
        assert found.counts[split].sum() == len(corpus.rows(split))
    assert found.genres == corpus.document.genres
    assert sum(found.sample_rates.values()) == len(corpus)
    assert found.artists == {}


def test_duplicates_and_refused_files_are_listed(corpus: Corpus) -> None:
    found = explore(corpus)
    assert [{member.clip_id for member in cluster} for cluster in found.duplicates] == [
        {"high.00000", "high.copy"}
    ]
    assert (found.straddling, found.contradicting) == (0, 0)
    assert found.quarantine["source"].str.contains("page.wav").any()


def test_near_duplicates_are_listed_by_likeness_with_what_is_wrong_about_them(
    corpus: Corpus, tmp_path: Path
) -> None:
    assert explore(corpus).near_duplicates == ()
    rows = [corpus.rows(split)[0] for split in ("train", "train", "test")]
    train, same, test = (corpus.manifest["clip_id"][row] for row in rows)
    pairs = [(train, same, 0.0, 0.8), (train, test, -1.5, 0.9)]
    folder = shutil.copytree(corpus.folder, tmp_path / "corpus")
    pd.DataFrame(pairs, columns=list(NEAR_COLUMNS)).to_parquet(folder / NEAR_DUPLICATES)
    first, second = explore(open_corpus(folder, split_of(corpus.folder))).near_duplicates
    assert (first.first.clip_id, first.second.clip_id, first.offset_seconds) == (train, test, -1.5)
    assert (first.straddles, second.straddles) == (True, False)
    genres = corpus.manifest["genre"]
    assert first.contradicts == (genres[rows[0]] != genres[rows[2]])


def test_a_genres_typical_clip_is_the_one_of_median_loudness(corpus: Corpus) -> None:
    for genre, clip in explore(corpus).typical.items():
        levels = corpus.manifest.loc[corpus.manifest["genre"] == genre, "rms_dbfs"].sort_values()
        assert clip.rms_dbfs == levels.iloc[(len(levels) - 1) // 2]
        assert 20 * np.log10(np.sqrt(np.mean(clip.samples**2))) == pytest.approx(clip.rms_dbfs, abs=0.1)


def test_descriptors_that_differ_by_pitch_separate_genres_that_differ_by_pitch(corpus: Corpus) -> None:
    found = explore(corpus)
    assert len(found.separation) == 6
    assert min(found.separation.values()) > 0.5
    assert list(found.descriptors.columns) == ["genre", *found.separation]
    assert set(found.descriptors["genre"]) == set(found.genres)


def test_the_share_of_variance_between_groups_has_its_closed_form() -> None:
    groups = np.array(["a", "a", "b", "b"])
    assert between_share(np.array([1.0, 1.0, 3.0, 3.0]), groups) == pytest.approx(1)
    assert between_share(np.array([1.0, 3.0, 1.0, 3.0]), groups) == pytest.approx(0)
    assert between_share(np.array([0.0, 2.0, 2.0, 4.0]), groups) == pytest.approx(0.5)
    assert between_share(np.ones(4), groups) == 0
    assert between_share(np.array([np.nan, 1.0, 2.0, 3.0]), groups) == 0
