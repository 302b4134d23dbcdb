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
import torch
from corpora import split_of, tones, write_corpus, write_split_table
from safetensors.numpy import load_file
from scipy.special import softmax

from genreflow import steps
from genreflow.backbones import load_stage
from genreflow.core import home
from genreflow.core.documents import FeaturesDocument, ModelDocument
from genreflow.core.errors import SettingsError, TrainingError
from genreflow.families import family
from genreflow.families.mfcc_cnn import MfccCnn
from genreflow.fitting import OnLog, fine_tuning, training_settings
from genreflow.fitting.calibration import ClipMetrics
from genreflow.registry.store import connect
from genreflow.training import TrainingSettings
from genreflow.training.checkpoint_digests import verify_checkpoint
from genreflow.training.family import TorchFamily
from tests.checkpoints import tiny_checkpoint

GENRES = ("blues", "disco", "metal")
FRAMES = 16
FAST = {"epochs": 3, "batch_size": 16, "device": "cpu", "precision": "fp32", "seed": 1, "learning_rate": 1e-2}


def write_features(
    folder: Path,
    name: str,
    model: dict[str, Any],
    rows: list[dict[str, Any]],
    windows: np.ndarray,
    genres: tuple[str, ...],
    fingerprint: str,
    stage: str = "inputs",
) -> Path:
    """A features artifact with a split beside it, and in `trained.json` the family that is trained on it.

    Args:
        rows: of the index, each with its `split`.
    """
    kind = family(name)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "windows.npy", windows)
    index = pd.DataFrame(rows)
    index.drop(columns="split").to_parquet(folder / "index.parquet")
    representation = kind.representation(kind.settings_type.model_validate(model))
    assert representation.stage == stage
    FeaturesDocument(
        fingerprint=fingerprint,
        corpus_fingerprint="corpus",
        representation=representation,
        window_shape=windows.shape[1:],
        windows=len(rows),
        genres=genres,
        synthetic=True,
        code_version="test",
    ).write(folder)
    clips = index.drop_duplicates("clip_id")
    write_split_table(split_of(folder), "corpus", clips, clips["split"].tolist(), fold=0)
    (folder / "trained.json").write_text(json.dumps({"family": name, "model": model}))
    return folder


def fine_tune(
    source: Path,
    out: Path,
    settings: dict[str, Any],
    on_log: OnLog | None = None,
    run_id: str | None = None,
) -> ModelDocument:
    """Train the family that `write_features` names."""
    trained = json.loads((source / "trained.json").read_text())
    kind = family(trained["family"])
    return fine_tuning.fine_tune(
        source, split_of(source), out, kind, trained["model"], settings, on_log, run_id
    )


def features(
    folder: Path,
    train_clips: int = 8,
    validation_clips: int = 4,
    windows: int = 2,
    genres: tuple[str, ...] = GENRES,
    noise: float = 1.0,
    seed: int = 0,
) -> Path:
    """A features artifact of mfcc_cnn: each genre raises another channel of the feature map, in noise."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    feature_maps = []
    for split, clips in (("train", train_clips), ("validation", validation_clips)):
        for label, genre in enumerate(genres):
            for clip in range(clips):
                for window in range(windows):
                    feature_map = rng.normal(0, noise, (5, 40, FRAMES)).astype(np.float32)
                    feature_map[label] += 1
                    feature_maps.append(5 * feature_map + 3)
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
    fingerprint = f"features-{seed}-{noise}-{train_clips}"
    return write_features(folder, "mfcc_cnn", {}, rows, np.stack(feature_maps), genres, fingerprint)


def test_a_trained_model_separates_the_genres_and_lists_its_training_clips(tmp_path: Path) -> None:
    document = fine_tune(features(tmp_path / "f"), tmp_path / "m", {**FAST, "epochs": 6}, run_id="run")
    assert document == ModelDocument.read(tmp_path / "m")
    assert document.training["validation"]["eval_accuracy"] == 1.0
    assert document.train_clips["sha-blues.train0"] == "cluster-blues.train0"
    assert len(document.train_clips) == 24
    assert set(document.validation_clips) == {f"sha-{g}.validation{c}" for g in GENRES for c in range(4)}
    assert (document.run_id, document.synthetic, document.pretrained) == ("run", True, None)
    assert document.features_fingerprint == "features-0-1.0-8"
    assert document.training["epochs"] == 6
    predict = family("mfcc_cnn").load(tmp_path / "m", family("mfcc_cnn").settings_type(), GENRES)
    inputs = np.zeros((2, 5, 40, FRAMES), np.float32)
    assert predict(inputs).shape == (2, len(GENRES))
    assert document.calibration == "validation clips"


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
from genreflow.families import family
from genreflow.fitting.fine_tuning import fine_tune
source = Path(sys.argv[1])
def on_log(step, metrics):
    if "eval_loss" in metrics and round(metrics["epoch"]) == 4:
        print("epoch 4", flush=True)
        time.sleep(60)
fine_tune(source, source.with_name(source.name + "-split"), Path(sys.argv[2]), family("mfcc_cnn"), {},
    json.loads(sys.argv[3]), on_log=on_log)
"""


def test_a_killed_run_resumes_and_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
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


def test_a_batch_of_one_window_is_refused_where_the_network_normalises_over_batches(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"training.batch_size is at least 2, not 1"):
        fine_tune(features(tmp_path / "f", train_clips=2), tmp_path / "m", {**FAST, "batch_size": 1})


@pytest.mark.parametrize("validation_clips", [4, 11], ids=["less than a batch", "a batch and a rest"])
def test_every_validation_clip_counts_where_a_last_training_batch_of_one_window_is_left_out(
    validation_clips: int, tmp_path: Path
) -> None:
    source = features(tmp_path / "f", train_clips=11, validation_clips=validation_clips, windows=1)
    document = fine_tune(
        source, tmp_path / "m", {**FAST, "epochs": 1}
    )  # 33 windows: two batches and one more
    assert document.training["steps"] == 2
    assert document.training["validation"]["eval_accuracy"] > 0
    assert len(document.validation_clips) == 3 * validation_clips


def test_probing_first_trains_the_head_only(tmp_path: Path) -> None:

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
    part = load_stage(encoder.representation(settings), "cpu")
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    waveforms = rng.normal(0, 1, (24, 8000)).astype(np.float32)
    waveforms[labels == 1, 4000:] *= 0.1
    index = [
        {
            "row": number,
            "clip_id": f"clip{number}",
            "sha256": f"clip{number}",
            "duplicate_cluster": f"clip{number}",
            "genre": GENRES[label],
            "label": label,
            "split": "train" if number < 16 else "validation",
            "start_seconds": 0.0,
            "view": 0,
        }
        for number, label in enumerate(labels.tolist())
    ]
    model = settings.model_dump(mode="json")
    stored = part.compute(waveforms)
    return write_features(
        folder, "encoder", model, index, stored, GENRES[:2], json.dumps(changes), stage=part.name
    )


@pytest.mark.parametrize("method", ["fine_tune", "probe", "probe_then_fine_tune"])
def test_an_encoder_learns_from_its_cached_part_and_answers_waveforms(tmp_path: Path, method: str) -> None:
    source = encoder_features(tmp_path, method=method, standardise=True, projection=None)
    chosen = {"device": "cpu", "batch_size": 8, "epochs": 12, "learning_rate": 1e-2, "precision": "fp32"}
    document = fine_tune(source, tmp_path / "m", chosen)
    assert document.training["validation"]["eval_accuracy"] >= 0.75
    assert document.pretrained == str(tmp_path / "backbone")
    encoder = family("encoder")
    settings = encoder.settings_type.model_validate(document.settings)
    predict = encoder.load(tmp_path / "m", settings, document.genres)
    waveform = np.random.default_rng(1).normal(0, 1, (1, 8000)).astype(np.float32)
    assert predict(waveform).shape == (1, 2)


def test_a_backbone_replaced_since_extraction_is_not_trained_on(tmp_path: Path) -> None:
    source = encoder_features(tmp_path)
    tiny_checkpoint("hubert", tmp_path / "backbone", seed=1)
    with pytest.raises(TrainingError, match=r"backbone .* has changed: extract them again"):
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


@pytest.mark.numeric
@pytest.mark.parametrize("windows", [1, 2, 3])
def test_windowed_attention_is_pytorchs_to_the_same_dropped_weights_and_gradients(
    windows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.mark.numeric
def test_windowed_attention_drops_as_much_in_bfloat16_and_keeps_the_mean() -> None:

    from genreflow.training.attention import attend

    torch.manual_seed(0)
    query = torch.zeros((4, 2, 300, 8), dtype=torch.bfloat16)
    value = torch.ones_like(query)
    out = attend(torch.nn.Module(), query, query, value, None, 0.25)[0].float()
    assert float(out.mean()) == pytest.approx(1.0, abs=0.01)
    # of 300 equal weights each stays with probability 3/4: the deviation of their mean, over 3/4
    assert float(out.std()) == pytest.approx((0.25 / 0.75 / 300) ** 0.5, rel=0.2)


def test_settings_of_the_user_override_the_familys_and_those_the_engines() -> None:
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


def test_no_training_windows_gives_an_error_message(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no training windows"):
        fine_tune(features(tmp_path / "f", train_clips=0), tmp_path / "m", FAST)


def test_one_genre_alone_gives_an_error_message(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="All training clips are blues"):
        fine_tune(features(tmp_path / "f", genres=("blues",)), tmp_path / "m", FAST)


def test_a_loss_that_is_no_number_gives_an_error_message_and_writes_no_model(tmp_path: Path) -> None:
    source = features(tmp_path / "f")
    windows = np.load(source / "windows.npy")
    windows[:40] = np.inf
    np.save(source / "windows.npy", windows)
    with pytest.raises(TrainingError, match=r"loss became nan.*learning_rate"):
        fine_tune(source, tmp_path / "m", FAST)
    assert not (tmp_path / "m" / "genreflow.json").exists()


@pytest.mark.parametrize("joined", [False, True], ids=["own run", "the platform's run"])
def test_a_diverged_step_is_not_trained_again_until_its_settings_change(
    joined: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KFP tries a step again that failed, up to KFP 2.16 for any reason."""
    source = features(tmp_path / "f")
    windows = np.load(source / "windows.npy")
    np.save(source / "windows.npy", np.full_like(windows, np.inf))
    if joined:
        client = connect(create=True)
        # not the experiment 0, whose artifacts go to the working folder
        place = client.create_experiment("kfp", artifact_location=str(tmp_path / "artifacts"))
        monkeypatch.setenv("MLFLOW_RUN_ID", client.create_run(place).info.run_id)
    trained = []
    fit = MfccCnn.fit
    monkeypatch.setattr(MfccCnn, "fit", lambda *given: trained.append(1) or fit(*given))

    def attempt(place: str = "model", **changed: Any) -> str:
        split, settings = split_of(source), {**FAST, **changed}
        with pytest.raises(TrainingError) as caught:
            steps.fine_tune(source, split, tmp_path / place, "mfcc_cnn", {}, settings)
        return str(caught.value)

    first = attempt()
    assert "loss became nan" in first
    assert not first.endswith("it is not made.")
    again = "An earlier attempt of this step ended so, and this one would, too: it is not made."
    assert attempt() == attempt() == f"{first} {again}"
    assert len(trained) == 1
    assert "it is not made" not in attempt(learning_rate=1e-4)  # other settings
    assert "it is not made" not in attempt("model of another run")
    assert len(trained) == 3


class ForwardFails(MfccCnn):
    """The family on a device where the module's forward pass raises."""

    fit = TorchFamily.fit  # the family's own refuses a batch of one window

    def __init__(self, forward: Callable[[], Any]) -> None:
        self.forward = forward

    def build(self, *arguments: Any, **named: Any) -> torch.nn.Module:
        def hook(*_: Any) -> None:
            self.forward()

        module = super().build(*arguments, **named)
        module.register_forward_pre_hook(hook)
        return module


def _cuda_out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def _invalid() -> None:
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(
    "forward",
    [_cuda_out_of_memory, lambda: torch.empty(1 << 50), lambda: np.empty(1 << 50)],
    ids=["CUDA", "PyTorch on the CPU", "NumPy"],
)
def test_a_batch_too_large_for_the_memory_gives_an_error_message_that_names_the_setting(
    forward: Callable[[], Any], tmp_path: Path
) -> None:
    source = features(tmp_path / "f")
    settings = {**FAST, "batch_size": 15, "gradient_accumulation": 2}
    with pytest.raises(TrainingError) as raised:
        fine_tuning.fine_tune(source, split_of(source), tmp_path / "m", ForwardFails(forward), {}, settings)
    sentence = str(raised.value)
    assert "out of memory on cpu with training.batch_size=15" in sentence
    assert "training.batch_size, for instance to 5 with training.gradient_accumulation=6" in sentence
    assert not (tmp_path / "m" / "genreflow.json").exists()


def test_where_one_window_does_not_fit_into_memory_no_smaller_batch_is_suggested(tmp_path: Path) -> None:
    source, kind = features(tmp_path / "f"), ForwardFails(_cuda_out_of_memory)
    settings = {**FAST, "batch_size": 1}
    with pytest.raises(TrainingError, match=r"the smallest there is: shorten the model's windows"):
        fine_tuning.fine_tune(source, split_of(source), tmp_path / "m", kind, {}, settings)


def test_another_runtime_error_is_not_mistaken_for_a_lack_of_memory(tmp_path: Path) -> None:
    source = features(tmp_path / "f")
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fine_tuning.fine_tune(source, split_of(source), tmp_path / "m", ForwardFails(_invalid), {}, FAST)


@pytest.mark.parametrize("uri", ["gs://bucket/runs", "s3://", "s3:///runs"])
def test_checkpoints_elsewhere_than_in_a_folder_or_a_bucket_are_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"{uri}.*s3://BUCKET/PREFIX"):
        fine_tune(features(tmp_path / "f"), tmp_path / "m", {**FAST, "checkpoint_uri": uri})


def test_a_gpu_that_is_not_there_gives_an_error_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="no CUDA device"):
        fine_tune(features(tmp_path / "f"), tmp_path / "m", {**FAST, "device": "cuda"})


def test_two_processes_share_the_work_and_find_the_same_kind_of_model(tmp_path: Path) -> None:
    from genreflow.training import launch

    source = features(tmp_path / "f", validation_clips=5)
    points: list[tuple[int, dict[str, float]]] = []
    network = family("mfcc_cnn")
    context = fine_tuning.open_context(
        source,
        split_of(source),
        tmp_path / "m",
        network,
        {},
        {**FAST, "epochs": 6},
        lambda *point: points.append(point),
        "run",
    )
    (tmp_path / "m").mkdir()
    result = launch.fit(network, context, processes=2)
    assert network.load(tmp_path / "m", network.settings_type(), GENRES)
    assert result.training["processes"] == 2
    assert result.training["validation"]["eval_accuracy"] == 1.0
    assert max(step for step, _ in points) == 18  # 48 windows, 16 a step of both processes together
    assert list(home.checkpoints_folder().iterdir()) == []


TERMINATED = """
import os, signal, sys
from pathlib import Path
from genreflow.families import family
from genreflow.fitting import fine_tuning
from genreflow.training import launch
source, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir()
split, kind = source.with_name(source.name + "-split"), family("mfcc_cnn")
context = fine_tuning.open_context(source, split, out, kind, {},
    {"epochs": 5000, "patience": 0, "batch_size": 4, "device": "cpu", "checkpoint_seconds": 3600},
    lambda *_: os.kill(os.getpid(), signal.SIGTERM))
launch.fit(kind, context, processes=2)
"""


def test_sigterm_ends_two_processes_with_a_checkpoint(tmp_path: Path) -> None:
    arguments = [str(features(tmp_path / "f", validation_clips=5)), str(tmp_path / "m")]
    done = subprocess.run([sys.executable, "-c", TERMINATED, *arguments], check=False)
    assert done.returncode == 128 + signal.SIGTERM
    (checkpoint,) = home.checkpoints_folder().glob("*/tune/checkpoint-*")
    assert verify_checkpoint(checkpoint) is None


@pytest.mark.parametrize("processes", [1, 2])
def test_augmented_views_of_the_training_clips_are_trained_on_and_kept(
    processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genreflow.extraction import extract
    from genreflow.training import launch

    corpus = write_corpus(tmp_path / "corpus", tones(GENRES), GENRES)
    network = family("mfcc_cnn")
    extract(corpus, network.representation(network.settings_type()), tmp_path / "f", device="cpu")
    monkeypatch.setattr(launch, "processes_wanted", lambda _: processes)

    def train(name: str, views: int, corpus: Path | None = corpus) -> ModelDocument:
        return fine_tuning.fine_tune(
            tmp_path / "f", split_of(tmp_path / "corpus"), tmp_path / name, network, {"views": views},
            {**FAST, "epochs": 1, "batch_size": 4}, corpus=corpus,
        )  # fmt: skip

    clean = train("clean", 0, None)
    assert not home.views_folder().exists()
    augmented = train("augmented", 2)
    assert augmented.training["windows"] == 3 * clean.training["windows"]
    assert augmented.training["processes"] == processes
    assert augmented.train_clips == clean.train_clips
    kept = {path.name: path.stat().st_mtime_ns for path in home.views_folder().rglob("*.npy")}
    assert len(kept) == 2 * len(clean.train_clips) == 2 * 6
    train("again", 2)
    assert {path.name: path.stat().st_mtime_ns for path in home.views_folder().rglob("*.npy")} == kept
    with pytest.raises(SettingsError, match=r"model\.views = 2 needs the corpus"):
        train("without", 2, None)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_error_in_a_launched_process_is_handed_to_the_one_that_launched_it(
    rank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genreflow.families.__main__ import main

    monkeypatch.setenv("RANK", rank)
    source, job = features(tmp_path / "f"), tmp_path / "job.json"
    settings_of_job = {"features": str(source), "split": str(split_of(source)), "out": str(tmp_path / "m")}
    settings_of_job |= {
        "corpus": None,
        "family": "mfcc_cnn",
        "model": {},
        "training": {"epoch": 1},
        "run_id": None,
    }  # type: ignore[dict-item]
    job.write_text(
        json.dumps({**settings_of_job, "curves": str(tmp_path / "c"), "error": str(tmp_path / "error.json")})
    )
    assert main(job) == 1
    error = json.loads((tmp_path / "error.json").read_text())
    assert error["type"] == "SettingsError"
    assert "'epochs'" in error["message"]
