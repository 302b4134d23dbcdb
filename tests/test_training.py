"""The training engine: it learns, selects on clips, goes on after being killed, and says what is wrong."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from scipy.special import softmax

from genreflow import home
from genreflow.artifacts import FeaturesDocument, ModelDocument
from genreflow.errors import SettingsError, TrainingError
from genreflow.families import family
from genreflow.training import TrainingSettings, fine_tune, training_settings
from tests.checkpoints import tiny_checkpoint

GENRES = ("blues", "disco", "metal")
FRAMES = 16
FAST = {"epochs": 3, "batch_size": 16, "device": "cpu", "precision": "fp32", "seed": 1, "learning_rate": 1e-2}


def features(
    folder: Path,
    train_clips: int = 8,
    validation_clips: int = 4,
    windows: int = 2,
    genres: tuple[str, ...] = GENRES,
    noise: float = 1.0,
    seed: int = 0,
) -> Path:
    """A features artifact of mfcc_cnn: each genre lights another channel of the picture, amid noise."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    pictures = []
    for split, clips in (("train", train_clips), ("validation", validation_clips)):
        for label, genre in enumerate(genres):
            for clip in range(clips):
                for window in range(windows):
                    picture = rng.normal(0, noise, (5, 40, FRAMES)).astype(np.float32)
                    picture[label] += 1
                    pictures.append(5 * picture + 3)
                    name = f"{genre}.{split}{clip}"
                    rows.append(
                        {
                            "row": len(rows),
                            "clip_id": name,
                            "sha256": f"sha-{name}",
                            "duplicate_cluster": f"cluster-{name}",
                            "genre": genre,
                            "label": label,
                            "split": split,
                            "start_seconds": 3.0 * window,
                            "view": 0,
                        }
                    )
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "windows.npy", np.stack(pictures))
    pd.DataFrame(rows).to_parquet(folder / "index.parquet")
    settings = family("mfcc_cnn").settings_type()
    FeaturesDocument(
        fingerprint=f"features-{seed}-{noise}-{train_clips}",
        corpus_fingerprint="corpus",
        family="mfcc_cnn",
        settings=settings.model_dump(),
        hearing=family("mfcc_cnn").hearing(settings),
        backbone=None,
        stage="inputs",
        dtype="float32",
        window_shape=(5, 40, FRAMES),
        windows=len(rows),
        genres=genres,
        synthetic=True,
        protocol="grouped",
        fold=0,
        leaky=False,
        leak_reason=None,
        code_version="test",
    ).write(folder)
    return folder


def test_a_trained_model_tells_the_genres_apart_and_names_what_it_was_trained_on(tmp_path: Path) -> None:
    document = fine_tune(features(tmp_path / "f"), tmp_path / "m", {**FAST, "epochs": 6}, run_id="run")
    assert document == ModelDocument.read(tmp_path / "m")
    assert document.training["validation"]["eval_accuracy"] == 1.0
    assert document.train_clips["sha-blues.train0"] == "cluster-blues.train0"
    assert len(document.train_clips) == 24
    assert set(document.validation_clips) == {f"sha-{g}.validation{c}" for g in GENRES for c in range(4)}
    assert (document.run_id, document.synthetic, document.pretrained) == ("run", True, None)
    assert document.features_fingerprint == "features-0-1.0-8"
    assert document.training["epochs"] == 6
    module = family("mfcc_cnn").load(tmp_path / "m", family("mfcc_cnn").settings_type(), GENRES)
    assert not module.training


def test_live_curves_carry_loss_rate_gradient_norm_and_clip_level_validation(tmp_path: Path) -> None:
    points: list[tuple[int, dict[str, float]]] = []
    fine_tune(features(tmp_path / "f"), tmp_path / "m", FAST, on_log=lambda *point: points.append(point))
    steps = [step for step, _ in points]
    assert steps == sorted(steps)
    losses = [metrics for _, metrics in points if "loss" in metrics]
    assert len(losses) == 9  # three steps an epoch
    assert all({"learning_rate", "grad_norm", "epoch", "seconds"} <= set(metrics) for metrics in losses)
    evaluations = [metrics for _, metrics in points if "eval_loss" in metrics]
    assert [round(metrics["epoch"]) for metrics in evaluations] == [1, 2, 3]
    assert all({"eval_accuracy", "eval_window_accuracy"} <= set(metrics) for metrics in evaluations)


def test_nothing_is_written_to_standard_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fine_tune(features(tmp_path / "f"), tmp_path / "m", FAST)
    assert capfd.readouterr().out == ""


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    source = features(tmp_path / "f")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fine_tune(source, tmp_path / name, {**FAST, "seed": seed, "mixup": 0.2})
    a, b, c = (load_file(str(tmp_path / name / "model.safetensors")) for name in "abc")
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(a["head.0.weight"], c["head.0.weight"])


KILLED = """
import json, os, sys, time
from pathlib import Path
from genreflow.training import fine_tune
def on_log(step, metrics):
    if "eval_loss" in metrics and round(metrics["epoch"]) == 4:
        print("epoch 4", flush=True)
        time.sleep(60)
fine_tune(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), on_log=on_log)
"""


def test_a_killed_run_goes_on_and_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    source = features(tmp_path / "f", noise=4.0)
    settings = {
        **FAST,
        "epochs": 6,
        "probe_epochs": 1,
        "mixup": 0.2,
        "label_smoothing": 0.1,
        "class_weights": True,
    }
    settings["checkpoint_seconds"] = 0
    arguments = [str(source), str(tmp_path / "killed"), json.dumps(settings)]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "epoch 4\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    [folder] = home.checkpoints_folder().iterdir()
    assert not (tmp_path / "killed" / "genreflow.json").exists()
    # a checkpoint that was being written when the process died
    broken = folder / "tune" / "checkpoint-99999"
    broken.mkdir()
    (broken / "trainer_state.json").write_text('{"epoch": ')

    resumed = fine_tune(source, tmp_path / "killed", settings)
    assert resumed.training["resumed_from_step"] == 3 + 9  # the probe's steps, and three epochs
    assert "checkpoint-99999 was not written to its end" in resumed.training["notes"][0]
    assert not folder.exists()
    undisturbed = fine_tune(source, tmp_path / "whole", settings)
    assert undisturbed.training["resumed_from_step"] is None
    for fact in ("best_epoch", "epochs_run", "validation"):
        assert resumed.training[fact] == undisturbed.training[fact], fact
    assert resumed.temperature == undisturbed.temperature
    killed, whole = (load_file(str(tmp_path / name / "model.safetensors")) for name in ("killed", "whole"))
    assert all(np.array_equal(killed[name], whole[name]) for name in whole)


def test_checkpoints_hold_no_pickled_arguments(tmp_path: Path) -> None:
    seen: set[str] = set()

    def on_log(step: int, metrics: dict[str, float]) -> None:
        seen.update(path.name for path in (tmp_path / "c").rglob("checkpoint-*/*"))

    uri = (tmp_path / "c").as_uri()
    fine_tune(
        features(tmp_path / "f"),
        tmp_path / "m",
        {**FAST, "checkpoint_uri": uri, "checkpoint_seconds": 0},
        on_log=on_log,
    )
    assert {"model.safetensors", "best.safetensors", "optimizer.pt", "trainer_state.json"} <= seen
    assert "training_args.bin" not in seen


def test_training_ends_early_when_validation_stops_improving_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    source = features(tmp_path / "f", noise=30.0)  # nothing to learn but the training clips by heart
    points: list[dict[str, float]] = []
    document = fine_tune(
        source,
        tmp_path / "m",
        {**FAST, "epochs": 40, "patience": 2},
        on_log=lambda _, metrics: points.append(metrics),
    )
    assert document.training["epochs_run"] == document.training["best_epoch"] + 2 < 40
    evaluations = [(m["eval_accuracy"], -m["eval_loss"]) for m in points if "eval_loss" in m]
    assert evaluations.index(max(evaluations)) + 1 == document.training["best_epoch"]
    assert max(evaluations) == (
        document.training["validation"]["eval_accuracy"],
        -document.training["validation"]["eval_loss"],
    )


def test_without_validation_clips_all_epochs_are_trained_and_the_document_says_so(tmp_path: Path) -> None:
    document = fine_tune(features(tmp_path / "f", validation_clips=0), tmp_path / "m", FAST)
    assert document.training["epochs_run"] == 3
    assert document.training["selection"] == "none: no validation clips"
    assert (document.validation_clips, document.temperature) == ({}, 1.0)


def test_probing_first_trains_the_head_alone(tmp_path: Path) -> None:
    import torch

    source = features(tmp_path / "f")
    module = family("mfcc_cnn").build(family("mfcc_cnn").settings_type(), GENRES, "inputs", 1)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    found: dict[str, torch.Tensor] = {}

    def on_log(step: int, metrics: dict[str, float]) -> None:
        for path in home.checkpoints_folder().rglob("probe.safetensors"):
            from safetensors.torch import load_file as load

            found.update(load(str(path)))

    fine_tune(source, tmp_path / "m", {**FAST, "epochs": 1, "probe_epochs": 2}, on_log=on_log)
    assert torch.equal(found["body.0.weight"], before["body.0.weight"])
    assert not torch.equal(found["head.0.weight"], before["head.0.weight"])
    after = load_file(str(tmp_path / "m" / "model.safetensors"))
    assert not np.array_equal(after["body.0.weight"], before["body.0.weight"].numpy())


def test_the_temperature_is_fitted_on_clips_and_makes_them_likelier() -> None:
    from genreflow.training.engine import ClipMetrics

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    logits = rng.normal(0, 1, (600, 3)).astype(np.float32)
    logits[np.arange(600), labels] += 1
    metrics = ClipMetrics(np.arange(600), labels)
    temperature = metrics.temperature(4 * logits)  # four times as sure as it may be

    def cost(value: float) -> float:
        return float(-np.log(softmax(4 * logits / value, axis=1)[np.arange(600), labels]).mean())

    assert 3 < temperature < 5
    assert cost(temperature) < cost(1.0)
    assert cost(temperature) <= min(cost(temperature * 0.8), cost(temperature * 1.25))


def test_validation_counts_clips_by_their_windows_mean() -> None:
    from transformers.trainer_utils import EvalPrediction

    from genreflow.training.engine import ClipMetrics

    labels = np.array([0, 0, 0, 1])
    logits = np.log(np.array([[0.1, 0.9], [0.8, 0.2], [0.8, 0.2], [0.3, 0.7]], dtype=np.float32))
    found = ClipMetrics(np.array([0, 0, 0, 1]), labels)(EvalPrediction(predictions=logits, label_ids=labels))
    assert found["accuracy"] == 1.0
    assert found["window_accuracy"] == 0.75
    assert found["loss"] == pytest.approx(-(np.log(1.7 / 3) + np.log(0.7)) / 2)


def encoder_features(folder: Path, **changes: Any) -> Path:
    """Two genres of noise, one loud and one soft in the beginning, as an encoder's family trains on them."""
    checkpoint = tiny_checkpoint(
        "hubert",
        folder / "backbone",
        **{"layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0, "feat_proj_dropout": 0.0},
        **{"activation_dropout": 0.0, "mask_time_prob": 0.0},
    )
    encoder = family("encoder")
    settings = encoder.settings_type.model_validate(
        {"backbone": str(checkpoint), "window_seconds": 0.5, "cache_precision": "float32", **changes}
    )
    part = encoder.frozen_part(settings, "cpu")
    assert part is not None
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    waveforms = rng.normal(0, 1, (24, 8000)).astype(np.float32)
    waveforms[labels == 1, 4000:] *= 0.1
    rows = part.compute(waveforms)
    np.save(folder / "windows.npy", rows)
    names = [f"clip{number}" for number in range(24)]
    pd.DataFrame(
        {
            "row": np.arange(24),
            "clip_id": names,
            "sha256": names,
            "duplicate_cluster": names,
            "genre": [GENRES[label] for label in labels],
            "label": labels,
            "split": ["train"] * 16 + ["validation"] * 8,
            "start_seconds": 0.0,
            "view": 0,
        }
    ).to_parquet(folder / "index.parquet")
    FeaturesDocument(
        fingerprint=json.dumps(changes),
        corpus_fingerprint="corpus",
        family="encoder",
        settings=settings.model_dump(mode="json"),
        hearing=encoder.hearing(settings),
        backbone=encoder.backbone(settings),
        stage=part.stage,
        dtype=part.dtype,
        window_shape=rows.shape[1:],
        windows=24,
        genres=GENRES[:2],
        synthetic=True,
        protocol="grouped",
        fold=0,
        leaky=False,
        leak_reason=None,
        code_version="test",
    ).write(folder)
    return folder


@pytest.mark.parametrize("method", ["fine_tune", "probe", "probe_then_fine_tune"])
def test_an_encoder_learns_from_its_cached_part_and_answers_waveforms(tmp_path: Path, method: str) -> None:
    source = encoder_features(tmp_path, method=method, standardise=True, projection=None)
    training = {"device": "cpu", "batch_size": 8, "epochs": 12, "learning_rate": 1e-2, "precision": "fp32"}
    document = fine_tune(source, tmp_path / "m", training)
    assert document.training["validation"]["eval_accuracy"] >= 0.75
    assert document.pretrained == str(tmp_path / "backbone")
    encoder = family("encoder")
    settings = encoder.settings_type.model_validate(document.settings)
    module = encoder.load(tmp_path / "m", settings, document.genres)
    waveform = np.random.default_rng(1).normal(0, 1, (1, 8000)).astype(np.float32)
    import torch

    with torch.no_grad():
        assert module(torch.from_numpy(waveform)).logits.shape == (1, 2)


def test_a_backbone_replaced_since_extraction_is_not_trained_on(tmp_path: Path) -> None:
    source = encoder_features(tmp_path)
    tiny_checkpoint("hubert", tmp_path / "backbone", seed=1)
    with pytest.raises(TrainingError, match=r"backbone .* is no longer the one .* extract them again"):
        fine_tune(source, tmp_path / "m", {"device": "cpu", "epochs": 1})


def test_accumulated_gradients_make_the_same_steps_as_one_larger_batch(tmp_path: Path) -> None:
    source = encoder_features(tmp_path)
    losses = []
    for accumulation in (1, 2):
        points: list[float] = []
        settings = {"epochs": 2, "batch_size": 8 // accumulation, "gradient_accumulation": accumulation}
        fine_tune(
            source,
            tmp_path / str(accumulation),
            {**settings, "device": "cpu", "precision": "fp32", "learning_rate": 1e-3},
            on_log=lambda _, metrics, to=points: to.append(metrics.get("loss", np.nan)),  # type: ignore[misc]
        )
        losses.append([loss for loss in points if np.isfinite(loss)])
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("windows", [1, 2, 3])
def test_windowed_attention_is_pytorchs_to_the_same_dropped_weights_and_gradients(
    windows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from genreflow.training import attention
    from genreflow.training.attention import attend

    monkeypatch.setattr(attention, "WEIGHTS_AT_A_TIME", windows * 2 * 17 * 17)

    generator = torch.Generator().manual_seed(0)
    shape = (3, 2, 17, 8)
    inputs = [torch.randn(shape, generator=generator, requires_grad=True) for _ in range(3)]
    above = torch.randn(shape, generator=generator)

    def answers(function: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
        torch.manual_seed(7)
        out = function(*inputs)
        return [out, *torch.autograd.grad((out * above).sum(), inputs)]

    theirs = answers(lambda q, k, v: scaled_dot_product_attention(q, k, v, dropout_p=0.3))
    ours = answers(lambda q, k, v: attend(torch.nn.Module(), q, k, v, None, 0.3)[0].transpose(1, 2))
    for expected, found in zip(theirs, ours, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_windowed_attention_drops_as_much_in_bfloat16_and_keeps_the_mean() -> None:
    import torch

    from genreflow.training.attention import attend

    torch.manual_seed(0)
    query = torch.zeros((4, 2, 300, 8), dtype=torch.bfloat16)
    value = torch.ones_like(query)
    out = attend(torch.nn.Module(), query, query, value, None, 0.25)[0].float()
    assert float(out.mean()) == pytest.approx(1.0, abs=0.01)
    # of 300 equal weights each stays with probability 3/4: the deviation of their mean, over 3/4
    assert float(out.std()) == pytest.approx((0.25 / 0.75 / 300) ** 0.5, rel=0.2)


def test_settings_of_the_user_win_over_the_familys_and_those_over_the_engines() -> None:
    cnn = family("mfcc_cnn")
    settings = training_settings(cnn, cnn.settings_type(), {"learning_rate": 0.5})
    assert settings.learning_rate == 0.5
    assert settings.weight_decay == 1e-4
    assert settings.mixup == TrainingSettings().mixup


def test_an_unknown_setting_is_refused_with_the_nearest() -> None:
    cnn = family("mfcc_cnn")
    with pytest.raises(SettingsError, match=r"'learning_rat'.*'learning_rate'"):
        training_settings(cnn, cnn.settings_type(), {"learning_rat": 1})


def test_a_setting_that_does_not_fit_is_named_with_its_value() -> None:
    cnn = family("mfcc_cnn")
    with pytest.raises(SettingsError, match=r"training\.epochs = -3"):
        training_settings(cnn, cnn.settings_type(), {"epochs": -3})


def test_no_training_windows_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no training windows"):
        fine_tune(features(tmp_path / "f", train_clips=0), tmp_path / "m", FAST)


def test_one_genre_alone_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="All training clips are blues"):
        fine_tune(features(tmp_path / "f", genres=("blues",)), tmp_path / "m", FAST)


def test_a_loss_that_is_no_number_is_a_sentence_and_writes_no_model(tmp_path: Path) -> None:
    source = features(tmp_path / "f")
    windows = np.load(source / "windows.npy")
    windows[:40] = np.inf
    np.save(source / "windows.npy", windows)
    with pytest.raises(TrainingError, match=r"loss became nan.*learning_rate"):
        fine_tune(source, tmp_path / "m", FAST)
    assert not (tmp_path / "m" / "genreflow.json").exists()


@pytest.mark.parametrize("uri", ["gs://bucket/runs", "s3://", "s3:///runs"])
def test_checkpoints_elsewhere_than_in_a_folder_or_a_bucket_are_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"{uri}.*s3://BUCKET/PREFIX"):
        fine_tune(features(tmp_path / "f"), tmp_path / "m", {**FAST, "checkpoint_uri": uri})


def test_a_gpu_that_is_not_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="no CUDA device"):
        fine_tune(features(tmp_path / "f"), tmp_path / "m", {**FAST, "device": "cuda"})


def test_two_processes_share_the_work_and_find_the_same_kind_of_model(tmp_path: Path) -> None:
    from genreflow.training import launch

    source = features(tmp_path / "f", validation_clips=5)
    points: list[tuple[int, dict[str, float]]] = []
    document = launch.fine_tune(
        source, tmp_path / "m", {**FAST, "epochs": 6}, lambda *point: points.append(point), "run", processes=2
    )
    assert document.training["processes"] == 2
    assert document.training["validation"]["eval_accuracy"] == 1.0
    assert max(step for step, _ in points) == 18  # 48 windows, 16 a step of both processes together
    assert list(home.checkpoints_folder().iterdir()) == []


def test_an_error_in_a_launched_process_is_handed_to_the_one_that_launched_it(tmp_path: Path) -> None:
    from genreflow.training.__main__ import main

    source, job = features(tmp_path / "f"), tmp_path / "job.json"
    told = {"features": str(source), "out": str(tmp_path / "m"), "training": {"epoch": 1}, "run_id": None}
    job.write_text(json.dumps({**told, "curves": str(tmp_path / "c"), "error": str(tmp_path / "error.json")}))
    assert main(job) == 1
    error = json.loads((tmp_path / "error.json").read_text())
    assert error["type"] == "SettingsError"
    assert "'epochs'" in error["message"]
