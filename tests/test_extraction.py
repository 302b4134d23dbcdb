"""Extraction: corpus to features, their index, their storage, and what they cost in memory."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoints import LAYOUTS, tiny_checkpoint, window_seconds
from corpora import tones, write_corpus
from memory import PEAK
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from genreflow.artifacts import FeaturesDocument
from genreflow.corpus.store import Corpus
from genreflow.errors import CorpusError, GenreflowError, ModelError, SettingsError
from genreflow.extraction import Features, extract
from genreflow.families.encoder import Encoder, EncoderSettings
from genreflow.features import hear
from genreflow.training import TrainingSettings
from genreflow.training.checkpoints import key

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


def _array(features: Features, rows: Iterable[int]) -> NDArray[np.float32]:
    return torch.stack([features.tensor(row) for row in rows]).float().numpy()


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
    everything = _array(features, range(len(features)))
    assert everything.shape == (document.windows, *document.window_shape)
    assert np.isfinite(everything).all()


def test_the_index_leads_from_window_to_clip(corpus: Path, tmp_path: Path) -> None:
    extract(corpus, "encoder", _settings("hubert", tmp_path), tmp_path / "features", device="cpu")
    features = Features.open(tmp_path / "features")
    index, manifest = features.index, Corpus.open(corpus).manifest.set_index("clip_id")
    assert list(index.columns) == [
        "row", "clip_id", "sha256", "duplicate_cluster", "genre", "label", "split", "start_seconds", "view",
    ]  # fmt: skip
    assert index["row"].tolist() == list(range(len(features)))
    # the test split is heard from audio, in evaluation
    assert set(index["split"]) == {"train", "validation"}
    assert set(index["clip_id"]) == set(manifest.index[manifest["split"].isin(["train", "validation"])])
    for window in index.itertuples():
        clip = manifest.loc[window.clip_id]
        assert (window.sha256, window.genre, window.split) == (clip["sha256"], clip["genre"], clip["split"])
        assert GENRES[window.label] == window.genre
    # 2.5 s in windows of 1 s: the last is aligned to the end
    assert index.groupby("clip_id")["start_seconds"].apply(list).map(tuple).unique().tolist() == [
        (0.0, 1.0, 1.5)
    ]


@pytest.mark.parametrize(
    ("changes", "dtype", "tolerance"),
    [
        ({}, torch.bfloat16, 1e-2),
        ({"cache_precision": "float32"}, torch.float32, 1e-5),
        ({"method": "probe"}, torch.float32, 1e-5),
    ],
)
def test_a_row_is_what_the_frozen_part_makes_of_its_window(
    changes: dict[str, Any], dtype: torch.dtype, tolerance: float, corpus: Path, tmp_path: Path
) -> None:
    settings = _settings("wav2vec2", tmp_path, **changes)
    extract(corpus, "encoder", settings, tmp_path / "features", device="cpu", batch=5)
    features, clips = Features.open(tmp_path / "features"), Corpus.open(corpus)
    family, chosen = Encoder(), EncoderSettings(**settings)
    part = family.frozen_part(chosen, "cpu")
    assert part is not None
    for row, clip_id in enumerate(clips.manifest["clip_id"]):
        mine = features.index.loc[features.index["clip_id"] == clip_id, "row"].to_numpy()
        if len(mine):
            windows, _ = hear(family.hearing(chosen), clips.samples(row), clips.sample_rate(row))
            wanted = part.compute(windows)
            if dtype == torch.bfloat16:  # the upper half of a float32
                wanted = (wanted.astype(np.uint32) << 16).view(np.float32)
            assert {features.tensor(window).dtype for window in mine} == {dtype}
            np.testing.assert_allclose(_array(features, mine), wanted, rtol=tolerance, atol=tolerance)


def test_views_are_copies_of_train_clips_only(corpus: Path, tmp_path: Path) -> None:
    extract(corpus, "encoder", _settings("whisper", tmp_path, views=2), tmp_path / "features", device="cpu")
    features = Features.open(tmp_path / "features")
    assert set(features.index.loc[features.index["view"] > 0, "split"]) == {"train"}
    assert len(features.rows("train")) == 3 * len(features.rows("train", view=0))
    assert len(features.rows("train", view=1)) == len(features.rows("train", view=2))
    clean, first, second = (_array(features, features.rows("train", view=view)) for view in range(3))
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


@pytest.mark.parametrize("layout", ["hubert", "whisper"])
def test_other_weights_behind_the_same_name_make_other_features(
    layout: str, corpus: Path, tmp_path: Path
) -> None:
    # their windows are the same: whisper's are spectrograms, and of hubert only the transformer changes
    settings = _settings(layout, tmp_path)
    before = extract(corpus, "encoder", settings, tmp_path / "before", device="cpu")
    weights = tmp_path / layout / "model.safetensors"
    tensors = load_file(weights)
    tensors[next(name for name in sorted(tensors) if "layers.1." in name)] += 1
    save_file(tensors, weights, metadata={"format": "pt"})
    after = extract(corpus, "encoder", settings, tmp_path / "after", device="cpu")
    windows = [(tmp_path / name / "windows.npy").read_bytes() for name in ("before", "after")]
    assert windows[0] == windows[1]
    assert before.backbone != after.backbone
    assert before.fingerprint != after.fingerprint
    assert key(before, TrainingSettings()) != key(after, TrainingSettings())


def test_cuda_is_not_taken_for_granted(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"resources\.device=cuda, but .* set resources\.device=auto"):
        extract(corpus, "encoder", _settings("hubert", tmp_path), tmp_path / "out", device="cuda")
    with pytest.raises(SettingsError, match="no device; it can be auto, cpu, cuda"):
        extract(corpus, "encoder", _settings("hubert", tmp_path), tmp_path / "out", device="gpu")


def test_a_clip_shorter_than_a_window_becomes_one_window(tmp_path: Path) -> None:
    short = [(genre, split, samples[:4_000], rate) for genre, split, samples, rate in tones(GENRES)]
    corpus = write_corpus(tmp_path / "corpus", short, GENRES)
    document = extract(corpus, "encoder", _settings("hubert", tmp_path), tmp_path / "features", device="cpu")
    assert document.windows == sum(split != "test" for _, split, _, _ in short)


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
    assert (events[-1]["done"], events[-1]["total"]) == (6, 6)  # of eight, two are held out to test


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


MEASURE = (
    PEAK
    + """
import json, sys
from pathlib import Path
from genreflow.extraction import extract
corpora, settings = sys.argv[1:3]
for corpus in corpora.split(","):
    extract(Path(corpus), "encoder", json.loads(settings), Path(corpus + "-features"), device="cpu")
    print(int(peak()))
"""
)


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
