"""Extraction: corpus to features, their index, their storage, and what they cost in memory."""

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoints import LAYOUTS, tiny_checkpoint, window_seconds
from corpora import split_of, tones, write_corpus, write_split
from memory import PEAK
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from genreflow import extraction
from genreflow.backbones import load_stage
from genreflow.core.documents import FeaturesDocument, Representation
from genreflow.core.errors import CorpusError, GenreflowError, ModelError, SettingsError
from genreflow.corpus.splitting import Split
from genreflow.corpus.store import Corpus
from genreflow.extraction import AugmentedViews, Features
from genreflow.families import family as family_named
from genreflow.families.encoder import Encoder, EncoderSettings
from genreflow.features import window_inputs
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


def extract(corpus: Path, settings: dict[str, Any], out: Path, **options: Any) -> FeaturesDocument:
    """The features of the representation that the family `encoder` is trained on with these settings."""
    return extraction.extract(corpus, representation(settings), out, **options)


def representation(settings: dict[str, Any]) -> Representation:
    encoder = family_named("encoder")
    return encoder.representation(encoder.settings(settings))


def _array(features: Features, rows: Iterable[int]) -> NDArray[np.float32]:
    return torch.stack([features.tensor(row) for row in rows]).float().numpy()


@pytest.mark.parametrize("method", ["fine_tune", "probe"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_extracted(layout: str, method: str, corpus: Path, tmp_path: Path) -> None:
    settings = _settings(layout, tmp_path, method=method)
    document = extract(corpus, settings, tmp_path / "features", device="cpu")
    features = Features.open(tmp_path / "features")
    assert features.document == document == FeaturesDocument.read(tmp_path / "features")
    assert len(features) == document.windows == len(features.index)
    waveform = layout not in ("whisper", "ast")
    assert document.representation.stage == (
        "pooled" if method == "probe" else "front_end" if waveform else "inputs"
    )
    everything = _array(features, range(len(features)))
    assert everything.shape == (document.windows, *document.window_shape)
    assert np.isfinite(everything).all()


def test_the_index_leads_from_window_to_clip(corpus: Path, tmp_path: Path) -> None:
    extract(corpus, _settings("hubert", tmp_path), tmp_path / "features", device="cpu")
    features = Features.open(tmp_path / "features")
    index, manifest = features.index, Corpus.open(corpus).manifest.set_index("clip_id")
    assert list(index.columns) == [
        "row", "clip_id", "sha256", "duplicate_cluster", "genre", "label", "start_seconds", "view",
    ]  # fmt: skip
    assert index["row"].tolist() == list(range(len(features)))
    # every clip, whatever its split
    assert set(index["clip_id"]) == set(manifest.index)
    assert set(index["view"]) == {0}
    for window in index.itertuples():
        clip = manifest.loc[window.clip_id]
        assert (window.sha256, window.genre) == (clip["sha256"], clip["genre"])
        assert GENRES[window.label] == window.genre
    # 2.5 s in windows of 1 s: the last is aligned to the end
    assert index.groupby("clip_id")["start_seconds"].apply(list).map(tuple).unique().tolist() == [
        (0.0, 1.0, 1.5)
    ]
    parts = Split.open(split_of(corpus))
    features.assign(parts)
    splits = parts.table.set_index("clip_id")["split"]
    for name in ("train", "validation", "test", "unused"):
        chosen = features.index.iloc[features.rows(name)]
        assert set(chosen["clip_id"]) == set(splits.index[splits == name])


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
    extract(corpus, settings, tmp_path / "features", device="cpu", batch=5)
    features, clips = Features.open(tmp_path / "features"), Corpus.open(corpus)
    family, chosen = Encoder(), EncoderSettings(**settings)
    part = load_stage(family.representation(chosen), "cpu")
    for row, clip_id in enumerate(clips.manifest["clip_id"]):
        mine = features.index.loc[features.index["clip_id"] == clip_id, "row"].to_numpy()
        windows, _ = window_inputs(family.input_spec(chosen), clips.samples(row), clips.sample_rate(row))
        wanted = part.compute(windows)
        if dtype == torch.bfloat16:  # the upper half of a float32
            wanted = (wanted.astype(np.uint32) << 16).view(np.float32)
        assert {features.tensor(window).dtype for window in mine} == {dtype}
        np.testing.assert_allclose(_array(features, mine), wanted, rtol=tolerance, atol=tolerance)


def views_of(corpus: Path, split: Path, settings: dict[str, Any], views: int, store: Path) -> AugmentedViews:
    return extraction.augmented_views(corpus, split, representation(settings), views, store, device="cpu")


@pytest.mark.parametrize("method", ["fine_tune", "probe"])
def test_augmented_views_are_of_training_clips_and_lie_behind_the_clean_windows(
    method: str, corpus: Path, tmp_path: Path
) -> None:
    settings = _settings("hubert", tmp_path, method=method)
    extract(corpus, settings, tmp_path / "features", device="cpu")
    features, parts = Features.open(tmp_path / "features"), Split.open(split_of(corpus))
    features.assign(parts)
    clean = len(features)
    views = views_of(corpus, split_of(corpus), settings, 2, tmp_path / "views")
    features.add_views(views)
    assert len(features) == clean + len(views) == len(features.index)
    assert features.index["row"].tolist() == list(range(len(features)))
    assert set(features.index.loc[features.index["view"] > 0, "split"]) == {"train"}
    assert len(features.rows("train")) == 3 * len(features.rows("train", view=0))
    assert len(features.rows("validation")) == len(features.rows("validation", view=0))
    clips = [features.index.iloc[features.rows("train", view=view)] for view in range(3)]
    for column in ("clip_id", "sha256", "label", "start_seconds"):
        assert clips[0][column].tolist() == clips[1][column].tolist() == clips[2][column].tolist()
    untouched, first, second = (_array(features, features.rows("train", view=view)) for view in range(3))
    assert np.abs(untouched - first).max() > 0.05
    assert np.abs(first - second).max() > 0.05
    assert {features.tensor(row).dtype for row in (0, clean)} == {features.tensor(0).dtype}


def test_another_fold_makes_only_the_views_of_clips_that_are_new_to_training(
    corpus: Path, tmp_path: Path
) -> None:
    settings, store = _settings("wav2vec2", tmp_path), tmp_path / "views"
    opened = Corpus.open(corpus)

    def fold(name: str, splits: list[str]) -> tuple[AugmentedViews, dict[Path, tuple[int, bytes]]]:
        write_split(tmp_path / name, opened.document, opened.manifest, splits)
        views = views_of(corpus, tmp_path / name, settings, 2, store)
        return views, {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.rglob("*-?.npy")}

    one, made = fold("one", ["train"] * 4 + ["test"] * 5)
    assert len(made) == 2 * 4
    other, both = fold("other", ["test"] * 2 + ["train"] * 4 + ["test"] * 3)
    assert len(both) == 2 * 6
    assert {path: both[path] for path in made} == made
    shared = opened.manifest["clip_id"].iloc[2:4]
    for clip_id in shared:
        rows = [views.index.index[views.index["clip_id"] == clip_id] for views in (one, other)]
        assert len(rows[0]) == len(rows[1]) == 2 * 3
        for first, again in zip(*rows, strict=True):
            assert np.array_equal(one.row(first), other.row(again))
    # in a store of its own, too: a copy depends on its clip alone
    alone = views_of(corpus, tmp_path / "other", settings, 2, tmp_path / "elsewhere")
    assert all(np.array_equal(alone.row(row), other.row(row)) for row in range(len(other)))


@pytest.mark.parametrize("harm", ["cut", "flipped", "removed", "its digest removed"])
def test_a_damaged_view_is_made_again(harm: str, corpus: Path, tmp_path: Path) -> None:
    settings, store = _settings("ast", tmp_path), tmp_path / "views"
    views_of(corpus, split_of(corpus), settings, 1, store)
    path = min(store.rglob("*-1.npy"))
    others = {other: other.stat().st_mtime_ns for other in store.rglob("*-1.npy") if other != path}
    content = path.read_bytes()
    if harm == "cut":
        path.write_bytes(content[:-10])
    elif harm == "flipped":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        (path if harm == "removed" else path.with_suffix(".json")).unlink()
    views_of(corpus, split_of(corpus), settings, 1, store)
    assert path.read_bytes() == content
    assert {other: other.stat().st_mtime_ns for other in others} == others
    assert not list(store.rglob("*.half"))


def test_features_of_one_splits_clips_hold_what_it_trains_and_validates_on(
    corpus: Path, tmp_path: Path
) -> None:
    settings = _settings("hubert", tmp_path)
    whole = extract(corpus, settings, tmp_path / "whole", device="cpu")
    document = extract(corpus, settings, tmp_path / "part", device="cpu", split=split_of(corpus))
    assert (whole.split_fingerprint, document.windows) == (None, whole.windows * 6 // 9)
    assert document.fingerprint != whole.fingerprint
    features, parts = Features.open(tmp_path / "part"), Split.open(split_of(corpus))
    features.assign(parts)
    assert set(features.index["split"]) == {"train", "validation"}
    opened = Corpus.open(corpus)
    write_split(tmp_path / "other", opened.document, opened.manifest, ["train", "test"] * 4 + ["test"])
    with pytest.raises(CorpusError, match=r"another split's clips only .*extract them again"):
        Features.open(tmp_path / "part").assign(Split.open(tmp_path / "other"))


def test_heads_and_dropout_do_not_reach_the_representation(tmp_path: Path) -> None:
    settings = _settings("hubert", tmp_path)
    one = representation(settings).canonical()
    for change in ({"dropout": 0.5}, {"projection": None}, {"views": 3}, {"layers": "weighted"}):
        assert representation(settings | change).canonical() == one
    assert representation(settings | {"hop_seconds": 0.5}).canonical() != one
    network = family_named("mfcc_cnn")
    spectral = [network.representation(network.settings_type(dropout=dropout)) for dropout in (0.1, 0.5)]
    assert spectral[0].canonical() == spectral[1].canonical()


def test_the_same_corpus_and_settings_give_the_same_features(corpus: Path, tmp_path: Path) -> None:
    settings = _settings("hubert", tmp_path)
    first = extract(corpus, settings, tmp_path / "first", device="cpu")
    again = extract(corpus, settings, tmp_path / "again", device="cpu")
    assert first == again
    assert (tmp_path / "first" / "windows.npy").read_bytes() == (
        tmp_path / "again" / "windows.npy"
    ).read_bytes()
    other = extract(corpus, settings | {"hop_seconds": 0.5}, tmp_path / "other", device="cpu")
    assert other.fingerprint != first.fingerprint


@pytest.mark.parametrize("layout", ["hubert", "whisper"])
def test_changed_weights_under_the_same_name_are_resolved_and_trained_again(
    layout: str, corpus: Path, tmp_path: Path
) -> None:
    # their windows are the same: whisper's are spectrograms, and of hubert only the transformer changes
    settings = _settings(layout, tmp_path)
    parts, chosen, encoder = Split.open(split_of(corpus)).document, EncoderSettings(**settings), Encoder()

    def made(name: str) -> tuple[FeaturesDocument, str | None, str]:
        document = extract(corpus, settings, tmp_path / name, device="cpu")
        run = key(document, parts, encoder, chosen, TrainingSettings())
        return document, encoder.backbone_digest(chosen), run

    before = made("before")
    weights = tmp_path / layout / "model.safetensors"
    tensors = load_file(weights)
    tensors[next(name for name in sorted(tensors) if "layers.1." in name)] += 1
    save_file(tensors, weights, metadata={"format": "pt"})
    after = made("after")
    windows = [(tmp_path / name / "windows.npy").read_bytes() for name in ("before", "after")]
    assert windows[0] == windows[1]
    assert before[1] != after[1]
    assert before[2] != after[2]
    # where no stage is frozen, features depend on no weights, and stay in the cache
    frozen = before[0].representation.stage != "inputs"
    assert (before[0].fingerprint != after[0].fingerprint) == frozen


def test_cuda_is_checked_before_use(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"resources\.device=cuda, but .* set resources\.device=auto"):
        extract(corpus, _settings("hubert", tmp_path), tmp_path / "out", device="cuda")
    with pytest.raises(SettingsError, match="no device; it can be auto, cpu, cuda"):
        extract(corpus, _settings("hubert", tmp_path), tmp_path / "out", device="gpu")


def test_a_clip_shorter_than_a_window_becomes_one_window(tmp_path: Path) -> None:
    short = [(genre, split, samples[:4_000], rate) for genre, split, samples, rate in tones(GENRES)]
    corpus = write_corpus(tmp_path / "corpus", short, GENRES)
    document = extract(corpus, _settings("hubert", tmp_path), tmp_path / "features", device="cpu")
    assert document.windows == len(short)


def test_windows_lie_in_a_plain_numpy_file(corpus: Path, tmp_path: Path) -> None:
    document = extract(corpus, _settings("ast", tmp_path), tmp_path / "features", device="cpu")
    windows = np.load(tmp_path / "features" / "windows.npy", allow_pickle=False)
    assert windows.shape == (document.windows, 128, 32)
    assert windows.dtype == np.float16
    assert len(pd.read_parquet(tmp_path / "features" / "index.parquet")) == document.windows


def test_progress_counts_the_clips(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENREFLOW_PROGRESS", str(tmp_path / "events.jsonl"))
    extract(corpus, _settings("ast", tmp_path), tmp_path / "features", device="cpu")
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert {event["step"] for event in events} == {"extract_features"}
    assert (events[-1]["done"], events[-1]["total"]) == (9, 9)


def test_an_unfrozen_front_end_is_reported_as_uncached(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENREFLOW_PROGRESS", str(tmp_path / "events.jsonl"))
    settings = _settings("hubert", tmp_path, freeze_front_end=False)
    document = extract(corpus, settings, tmp_path / "features", device="cpu")
    made = document.representation
    assert (made.stage, made.dtype, document.window_shape) == ("inputs", "float32", (16_000,))
    assert "nothing is cached" in (tmp_path / "events.jsonl").read_text()


def test_what_cannot_be_extracted_is_refused_with_an_error_message(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="methd"):
        extract(corpus, {"methd": "probe"}, tmp_path / "out")
    unknown = representation(_settings("hubert", tmp_path)).model_copy(update={"kind": "gramophone"})
    with pytest.raises(SettingsError, match="no kind of backbone 'gramophone'"):
        extraction.extract(corpus, unknown, tmp_path / "out")
    with pytest.raises(ModelError):
        extract(corpus, {"backbone": str(tmp_path)}, tmp_path / "out")
    with pytest.raises(GenreflowError, match=r"corpus\.json"):
        extract(tmp_path, _settings("ast", tmp_path), tmp_path / "out")


def test_damaged_features_are_refused(corpus: Path, tmp_path: Path) -> None:
    extract(corpus, _settings("ast", tmp_path), tmp_path / "features", device="cpu")
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
from genreflow.core.documents import Representation
from genreflow.extraction import extract
corpora, representation = sys.argv[1], Representation.model_validate_json(sys.argv[2])
for corpus in corpora.split(","):
    extract(Path(corpus), representation, Path(corpus + "-features"), device="cpu")
    print(int(peak()))
"""
)


def test_extraction_without_a_frozen_stage_does_not_load_pytorch(corpus: Path, tmp_path: Path) -> None:
    family = family_named("mfcc_cnn")
    wanted = family.representation(family.settings({})).canonical()
    code = (
        "import sys; from pathlib import Path; from genreflow import steps\n"
        f"steps.extract_features(Path({str(corpus)!r}), {wanted!r}, Path({str(tmp_path / 'features')!r}))\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 20 * 8_000).astype(np.float32)
    corpora = []
    for count in (8, 80):  # windows of 20 s of waveform overlap fourfold: 5 MB a clip, 400 MB in all
        clips = [(GENRES[index % 2], "train", noise, 8_000) for index in range(count)]
        corpora.append(str(write_corpus(tmp_path / f"corpus{count}", clips, GENRES)))
    settings = _settings("hubert", tmp_path, freeze_front_end=False, hop_seconds=0.25)
    arguments = [",".join(corpora), representation(settings).canonical()]
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True
    )
    small, large = map(int, run.stdout.split())
    assert (Path(corpora[1] + "-features") / "windows.npy").stat().st_size > 380e6
    assert large - small < 100, f"{small} MB for 8 clips, {large} MB for 80"


def test_a_batch_too_large_for_the_memory_gives_an_error_message(corpus: Path, tmp_path: Path) -> None:
    chosen = representation(_settings("hubert", tmp_path))

    def compute(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    stage = replace(load_stage(chosen, "cpu"), compute=compute)
    with pytest.raises(
        ModelError, match=r"ran out of memory in the backbone's front_end with 8 windows of 16000"
    ):
        list(extraction.iter_rows(Corpus.open(corpus), range(4), chosen.input_spec, stage))
