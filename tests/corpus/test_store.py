"""The corpus on disk: written as a stream, read memory-mapped, whole or refused."""

from pathlib import Path

import datasets
import numpy as np
import pytest
from corpora import ingest_and_split, split_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sounds import genre_folder

from genreflow.core.errors import CorpusError, GenreflowError
from genreflow.corpus.settings import CorpusSettings
from genreflow.corpus.splitting import open_corpus
from genreflow.corpus.store import ClipWriter, Corpus, quantise


@pytest.fixture
def corpus_folder(tmp_path: Path) -> Path:
    source = str(genre_folder(tmp_path / "music"))
    settings = CorpusSettings(genres=("jazz", "rock"))
    return ingest_and_split(source, settings, tmp_path / "corpus")


def test_samples_are_a_view_into_the_file(corpus_folder: Path) -> None:
    pcm = Corpus.open(corpus_folder).pcm(3)
    assert pcm.dtype == np.int16
    assert not pcm.flags.owndata
    assert not pcm.flags.writeable


def test_rows_of_the_splits_are_all_rows(corpus_folder: Path) -> None:
    corpus = open_corpus(corpus_folder, split_of(corpus_folder))
    splits = [corpus.rows(split) for split in ("train", "validation", "test", "unused")]
    assert sorted(row for rows in splits for row in rows) == corpus.rows() == list(range(len(corpus)))
    assert corpus.rows(("train", "test")) == sorted(splits[0] + splits[2])


def test_of_many_rows_some_are_taken_evenly_spread(corpus_folder: Path) -> None:
    corpus = Corpus.open(corpus_folder)
    everything = corpus.rows()
    for most in range(1, len(everything) + 2):
        some = corpus.rows(most=most)
        assert len(some) == min(most, len(everything))
        gaps = np.diff([*some, len(everything)])
        assert max(gaps) - min(gaps) <= 1


def test_an_unknown_split_and_an_unknown_row_are_errors(corpus_folder: Path) -> None:
    corpus = open_corpus(corpus_folder, split_of(corpus_folder))
    with pytest.raises(CorpusError, match="no split dev"):
        corpus.rows("dev")
    with pytest.raises(CorpusError, match="opened without a split"):
        _ = Corpus.open(corpus_folder).split
    for row in (-1, len(corpus)):
        with pytest.raises(IndexError):
            corpus.samples(row)


def test_datasets_opens_the_clips_without_an_audio_feature(corpus_folder: Path) -> None:
    clips = datasets.load_from_disk(str(corpus_folder / "clips"))
    assert list(clips.features) == ["clip_id", "sample_rate", "samples"]
    assert clips[0]["samples"] == Corpus.open(corpus_folder).pcm(0).tolist()


def test_batches_of_any_number_of_clips_come_back_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genreflow.corpus.store.BATCH_SAMPLES", 100)
    rng = np.random.default_rng(0)
    clips = [rng.integers(-32_768, 32_767, rng.integers(1, 90), np.int16) for _ in range(50)]
    with ClipWriter(tmp_path / "c") as writer:
        for number, clip in enumerate(clips):
            writer.write(f"jazz.{number}", 8_000 + number, clip)
    stored = datasets.load_from_disk(str(tmp_path / "c" / "clips"))
    assert stored["clip_id"][:] == [f"jazz.{number}" for number in range(50)]
    assert stored["sample_rate"][:] == [8_000 + number for number in range(50)]
    for row, clip in zip(stored["samples"], clips, strict=True):
        assert row == clip.tolist()


def test_a_folder_that_is_no_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GenreflowError, match=r"corpus\.json"):
        Corpus.open(tmp_path)


@pytest.mark.parametrize("part", ["manifest.parquet", "clips/data-00000-of-00001.arrow", "clips/state.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_corpus_is_refused_with_an_error_message(
    corpus_folder: Path, part: str, damage: str
) -> None:
    path = corpus_folder / part
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CorpusError, match="Ingest it again"):
        Corpus.open(corpus_folder)


def test_a_manifest_of_other_clips_is_refused(corpus_folder: Path) -> None:
    corpus = Corpus.open(corpus_folder)
    corpus.manifest[::-1].to_parquet(corpus_folder / "manifest.parquet")
    with pytest.raises(CorpusError, match="manifest and clips differ"):
        Corpus.open(corpus_folder)


@given(arrays.arrays(np.float32, st.integers(0, 50), elements=st.floats(-8, 8, width=32)))
def test_quantising_keeps_the_waveform_within_half_a_step_and_never_wraps(samples: np.ndarray) -> None:
    pcm, gain = quantise(samples)
    np.testing.assert_allclose(pcm / 32_768, samples * gain, atol=1.01 / 32_768)
    assert gain == 1 or np.abs(samples).max() > 1


@given(arrays.arrays(np.int16, 20))
def test_sixteen_bit_audio_is_stored_without_loss(pcm: np.ndarray) -> None:
    stored, gain = quantise((pcm / np.float32(32_768)).astype(np.float32))
    np.testing.assert_array_equal(stored, pcm)
    assert gain == 1
