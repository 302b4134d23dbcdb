"""Extraction: corpus to features, their index, their storage, and what they cost in memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoints import LAYOUTS, tiny_checkpoint, window_seconds
from corpora import tones, write_corpus

from genreflow.artifacts import FeaturesDocument
from genreflow.corpus.store import Corpus
from genreflow.errors import CorpusError, GenreflowError, ModelError, SettingsError
from genreflow.extraction import Features, extract
from genreflow.families.encoder import Encoder, EncoderSettings
from genreflow.features import hear

GENRES = ("blues", "jazz")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    clips = tones(GENRES)
    clips.append(("jazz", "unused", clips[0][2], clips[0][3]))
    return write_corpus(tmp_path / "corpus", clips, GENRES)


def _settings(layout: str, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    folder = tmp_path / layout
    if not folder.exists():
        tiny_checkpoint(layout, folder)
    return {"backbone": str(folder), "window_seconds": window_seconds(layout)} | changes


@pytest.mark.parametrize("method", ["fine_tune", "probe"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_extracted(layout: str, method: str, corpus: Path, tmp_path: Path) -> None:
    settings = _settings(layout, tmp_path, method=method)
    document = extract(corpus, "encoder", settings, tmp_path / "features", device="cpu")
    features = Features.open(tmp_path / "features")
    assert features.document == document == FeaturesDocument.read(tmp_path / "features")
    assert len(features) == document.windows == len(features.index)
    waveform = layout not in ("whisper", "ast")
    assert document.stage == ("pooled" if method == "probe" else "front_end" if waveform else "inputs")
    assert features.array(features.rows("train")).shape == (
        len(features.rows("train")),
        *document.window_shape,
    )
    assert np.isfinite(features.array(np.arange(len(features)))).all()


def test_the_index_leads_from_window_to_clip(corpus: Path, tmp_path: Path) -> None:
    extract(corpus, "encoder", _settings("hubert", tmp_path), tmp_path / "features", device="cpu")
    features = Features.open(tmp_path / "features")
    index, manifest = features.index, Corpus.open(corpus).manifest.set_index("clip_id")
    assert list(index.columns) == [
        "row", "clip_id", "sha256", "duplicate_cluster", "genre", "label", "split", "start_seconds", "view",
    ]  # fmt: skip
    assert index["row"].tolist() == list(range(len(features)))
    assert set(index["split"]) == {"train", "validation", "test"}
    assert set(index["clip_id"]) == set(manifest.index[manifest["split"] != "unused"])
    for window in index.itertuples():
        clip = manifest.loc[window.clip_id]
        assert (window.sha256, window.genre, window.split) == (clip["sha256"], clip["genre"], clip["split"])
        assert GENRES[window.label] == window.genre
    # 2.5 s in windows of 1 s: the last is aligned to the end
    assert index.groupby("clip_id")["start_seconds"].apply(list).map(tuple).unique().tolist() == [
        (0.0, 1.0, 1.5)
    ]


def test_a_row_is_what_the_frozen_part_makes_of_its_window(corpus: Path, tmp_path: Path) -> None:
    settings = _settings("wav2vec2", tmp_path, cache_precision="float32")
    extract(corpus, "encoder", settings, tmp_path / "features", device="cpu", batch=5)
    features, clips = Features.open(tmp_path / "features"), Corpus.open(corpus)
    family, chosen = Encoder(), EncoderSettings(**settings)
    part = family.frozen_part(chosen, "cpu")
    assert part is not None
    for row, clip_id in enumerate(clips.manifest["clip_id"]):
        mine = features.index.loc[features.index["clip_id"] == clip_id, "row"].to_numpy()
        if len(mine):
            windows, _ = hear(family.hearing(chosen), clips.samples(row), clips.sample_rate(row))
            np.testing.assert_allclose(features.array(mine), part.compute(windows), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [
        ({}, torch.bfloat16),
        ({"cache_precision": "float32"}, torch.float32),
        ({"method": "probe"}, torch.float32),
    ],
)
def test_tensors_and_arrays_are_the_same_rows(
    settings: dict[str, Any], dtype: torch.dtype, corpus: Path, tmp_path: Path
) -> None:
    extract(corpus, "encoder", _settings("hubert", tmp_path, **settings), tmp_path / "features", device="cpu")
    features = Features.open(tmp_path / "features")
    tensor = features.tensor(3)
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(tensor.float().numpy(), features.array([3])[0])


def test_views_are_copies_of_train_clips_only(corpus: Path, tmp_path: Path) -> None:
    extract(corpus, "encoder", _settings("whisper", tmp_path, views=2), tmp_path / "features", device="cpu")
    features = Features.open(tmp_path / "features")
    assert set(features.index.loc[features.index["view"] > 0, "split"]) == {"train"}
    assert len(features.rows("train")) == 3 * len(features.rows("train", view=0))
    assert len(features.rows("train", view=1)) == len(features.rows("train", view=2))
    clean, first, second = (features.array(features.rows("train", view=view)) for view in range(3))
    assert np.abs(clean - first).max() > 0.05
    assert np.abs(first - second).max() > 0.05


def test_the_same_corpus_and_settings_give_the_same_features(corpus: Path, tmp_path: Path) -> None:
    settings = _settings("hubert", tmp_path, views=1)
    first = extract(corpus, "encoder", settings, tmp_path / "first", device="cpu")
    again = extract(corpus, "encoder", settings, tmp_path / "again", device="cpu")
    assert first == again
    assert (tmp_path / "first" / "windows.npy").read_bytes() == (
        tmp_path / "again" / "windows.npy"
    ).read_bytes()
    other = extract(corpus, "encoder", settings | {"hop_seconds": 0.5}, tmp_path / "other", device="cpu")
    assert other.fingerprint != first.fingerprint


def test_a_clip_shorter_than_a_window_becomes_one_window(tmp_path: Path) -> None:
    short = [(genre, split, samples[:4_000], rate) for genre, split, samples, rate in tones(GENRES)]
    corpus = write_corpus(tmp_path / "corpus", short, GENRES)
    document = extract(corpus, "encoder", _settings("hubert", tmp_path), tmp_path / "features", device="cpu")
    assert document.windows == len(short)


def test_windows_lie_in_a_plain_numpy_file(corpus: Path, tmp_path: Path) -> None:
    document = extract(corpus, "encoder", _settings("ast", tmp_path), tmp_path / "features", device="cpu")
    windows = np.load(tmp_path / "features" / "windows.npy", allow_pickle=False)
    assert windows.shape == (document.windows, 128, 32)
    assert windows.dtype == np.float16
    assert len(pd.read_parquet(tmp_path / "features" / "index.parquet")) == document.windows


def test_progress_counts_the_clips(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENREFLOW_PROGRESS", str(tmp_path / "events.jsonl"))
    extract(corpus, "encoder", _settings("ast", tmp_path), tmp_path / "features", device="cpu")
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert {event["step"] for event in events} == {"extract_features"}
    assert (events[-1]["done"], events[-1]["total"]) == (8, 8)


def test_an_unfrozen_front_end_is_said_to_cost(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENREFLOW_PROGRESS", str(tmp_path / "events.jsonl"))
    settings = _settings("hubert", tmp_path, freeze_front_end=False)
    document = extract(corpus, "encoder", settings, tmp_path / "features", device="cpu")
    assert (document.stage, document.dtype, document.window_shape) == ("inputs", "float32", (16_000,))
    assert "nothing is cached" in (tmp_path / "events.jsonl").read_text()


def test_what_cannot_be_extracted_is_refused_in_a_sentence(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="methd"):
        extract(corpus, "encoder", {"methd": "probe"}, tmp_path / "out")
    with pytest.raises(SettingsError, match="no family"):
        extract(corpus, "gramophone", {}, tmp_path / "out")
    with pytest.raises(ModelError):
        extract(corpus, "encoder", {"backbone": str(tmp_path)}, tmp_path / "out")
    with pytest.raises(GenreflowError, match=r"corpus\.json"):
        extract(tmp_path, "encoder", {}, tmp_path / "out")
    held_out = [(genre, "test", samples, rate) for genre, _, samples, rate in tones(GENRES)]
    untrained = write_corpus(tmp_path / "untrained", held_out, GENRES)
    with pytest.raises(CorpusError, match="no clip to train on"):
        extract(untrained, "encoder", _settings("ast", tmp_path), tmp_path / "out")


def test_damaged_features_are_refused(corpus: Path, tmp_path: Path) -> None:
    extract(corpus, "encoder", _settings("ast", tmp_path), tmp_path / "features", device="cpu")
    windows = tmp_path / "features" / "windows.npy"
    np.save(windows, np.load(windows)[:-1])
    with pytest.raises(GenreflowError, match="damaged"):
        Features.open(tmp_path / "features")
    windows.unlink()
    with pytest.raises(GenreflowError, match="cannot be read"):
        Features.open(tmp_path / "features")


MEASURE = """
import json, resource, sys
from pathlib import Path
from genreflow.extraction import extract
corpora, settings = sys.argv[1:3]
for corpus in corpora.split(","):
    extract(Path(corpus), "encoder", json.loads(settings), Path(corpus + "-features"), device="cpu")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 20 * 8_000).astype(np.float32)
    corpora = []
    for count in (8, 80):  # windows of 20 s of waveform overlap fourfold: 5 MB a clip, 400 MB in all
        clips = [(GENRES[index % 2], "train", noise, 8_000) for index in range(count)]
        corpora.append(str(write_corpus(tmp_path / f"corpus{count}", clips, GENRES)))
    settings = _settings("hubert", tmp_path, freeze_front_end=False, hop_seconds=0.25)
    arguments = [",".join(corpora), json.dumps(settings)]
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True
    )
    small, large = map(int, run.stdout.split())
    assert (Path(corpora[1] + "-features") / "windows.npy").stat().st_size > 380e6
    assert large - small < 100, f"{small} MB for 8 clips, {large} MB for 80"
