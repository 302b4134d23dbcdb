"""The encoder family on tiny checkpoints of every layout, against transformers' own classifiers."""

import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from checkpoints import LAYOUTS, tiny_checkpoint, tiny_model, window_seconds
from corpora import tones, write_corpus
from model_hub import ModelHub, Repository, model_hub
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, BertConfig, BertModel

from genreflow.backbones import load_stage
from genreflow.backbones.transformers.checkpoint import describe_checkpoint, load_encoder
from genreflow.backbones.transformers.scratch import mel_centres
from genreflow.core.errors import ModelError, SettingsError
from genreflow.extraction import extract
from genreflow.families.encoder import Encoder, EncoderSettings
from genreflow.families.encoder.module import CachedFrontEnd
from genreflow.features import represent

FAMILY = Encoder()
GENRES = ("blues", "jazz", "metal")
WAVEFORM = tuple(layout for layout in LAYOUTS if layout not in ("whisper", "ast"))
LABELS = torch.tensor([0, 1, 2])


def _settings(layout: str, tmp_path: Path, **changes: Any) -> EncoderSettings:
    folder = tmp_path / layout
    if not folder.exists():
        tiny_checkpoint(layout, folder)
    return EncoderSettings(**{"backbone": str(folder), "window_seconds": window_seconds(layout)} | changes)


def _inputs(settings: EncoderSettings, count: int = 3) -> torch.Tensor:
    spec = FAMILY.input_spec(settings)
    noise = np.random.default_rng(0).normal(0, 0.1, (count, spec.window_samples))
    return torch.from_numpy(represent(spec, noise.astype(np.float32)))


def _seed() -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - transformers draws its masks from the global generator


def _forward(module: Any, inputs: torch.Tensor) -> Any:
    _seed()
    return module(inputs.clone(), labels=LABELS)


@pytest.mark.numeric
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layers", ["last", "weighted"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_transformers_classifier_of_the_same_weights(
    layout: str, layers: Any, training: bool, tmp_path: Path
) -> None:
    if layout == "ast":
        layers = "last"  # transformers' AST knows no weighted sum
    settings = _settings(layout, tmp_path, layers=layers)
    module = FAMILY.build(settings, GENRES, "inputs", seed=1).train(training)
    FAMILY.save(module, tmp_path / "saved")
    theirs = AutoModelForAudioClassification.from_pretrained(tmp_path / "saved").train(training)
    inputs = _inputs(settings)
    ours, wanted = _forward(module, inputs), _forward(theirs, inputs)
    torch.testing.assert_close(ours.logits, wanted.logits, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.loss, wanted.loss, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_saved_is_a_complete_hugging_face_checkpoint(layout: str, tmp_path: Path) -> None:
    settings = _settings(layout, tmp_path)
    module = FAMILY.build(settings, GENRES, "inputs", seed=1)
    FAMILY.save(module, tmp_path / "saved")
    theirs, report = AutoModelForAudioClassification.from_pretrained(
        tmp_path / "saved", output_loading_info=True
    )
    assert not any(report.values())
    assert theirs.config.id2label == dict(enumerate(GENRES))
    windows = (
        np.random.default_rng(0).normal(0, 0.1, round(window_seconds(layout) * 16_000)).astype(np.float32)
    )
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "saved")
    actual = extractor(windows, sampling_rate=16_000, return_tensors="np")[
        theirs.main_input_name if layout != "whisper" else "input_features"
    ]
    np.testing.assert_allclose(
        represent(FAMILY.input_spec(settings), windows[None]), actual, rtol=0, atol=5e-4
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers": (1,), "pooling": "mean_std", "projection": None, "standardise": True},
        {"layers": "weighted", "normalise_layers": True, "projection": 8},
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_saved_model_loads_and_answers_as_before(
    layout: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    settings = _settings(layout, tmp_path, **changes)
    module = FAMILY.build(settings, GENRES, "inputs", seed=1).eval()
    FAMILY.save(module, tmp_path / "saved")
    loaded = FAMILY.load_module(tmp_path / "saved", settings, GENRES)
    assert not loaded.training
    inputs = _inputs(settings)
    torch.testing.assert_close(loaded(inputs).logits, module(inputs).logits, rtol=0, atol=0)


@pytest.mark.numeric
@pytest.mark.parametrize("layout", WAVEFORM)
def test_training_on_cached_frames_is_training_on_waveforms(layout: str, tmp_path: Path) -> None:
    # layerdrop 0.1 and masking are on: the same draws, the same loss, to the last digit that float32 has
    settings = _settings(layout, tmp_path, cache_precision="float32")
    part = load_stage(FAMILY.representation(settings), "cpu")
    assert part is not None
    assert (part.name, part.dtype) == ("front_end", "float32")
    inputs = _inputs(settings)
    cached = torch.from_numpy(part.compute(inputs.numpy()))
    plain = FAMILY.build(settings, GENRES, "inputs", seed=1).train()
    quick = FAMILY.build(settings, GENRES, "front_end", seed=1).train()
    for _ in range(3):
        losses = []
        for module, rows in ((plain, inputs), (quick, cached)):
            optimiser = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
            loss = _forward(module, rows).loss
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.numeric
@pytest.mark.parametrize("layout", WAVEFORM)
def test_frames_in_bfloat16_hardly_change_the_prediction(layout: str, tmp_path: Path) -> None:
    settings = _settings(layout, tmp_path)
    part = load_stage(FAMILY.representation(settings), "cpu")
    assert part is not None
    assert (part.name, part.dtype) == ("front_end", "bfloat16")
    inputs = _inputs(settings)
    bits = part.compute(inputs.numpy())
    assert bits.dtype == np.uint16
    cached = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)
    module = FAMILY.build(settings, GENRES, "front_end", seed=1).eval()
    whole = FAMILY.build(settings, GENRES, "inputs", seed=1).eval()
    torch.testing.assert_close(module(cached).logits, whole(inputs).logits, rtol=0, atol=5e-3)


@pytest.mark.parametrize("layout", ["hubert", "wav2vec2"])
def test_a_model_trained_on_cached_frames_is_saved_whole(layout: str, tmp_path: Path) -> None:
    settings = _settings(layout, tmp_path)
    module = FAMILY.build(settings, GENRES, "front_end", seed=1).eval()
    assert isinstance(module.encoder.feature_extractor, CachedFrontEnd)
    FAMILY.save(module, tmp_path / "saved")
    inputs = _inputs(settings)
    loaded = FAMILY.load_module(tmp_path / "saved", settings, GENRES)
    whole = FAMILY.build(settings, GENRES, "inputs", seed=1).eval()
    torch.testing.assert_close(loaded(inputs).logits, whole(inputs).logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers": "weighted"},
        {
            "layers": (0, 2),
            "pooling": "mean_std",
            "normalise_layers": True,
            "standardise": True,
            "projection": None,
        },
        {
            "layers": "inner",
            "combine": "concatenated",
            "pooling": "mean_std",
            "segments": 3,
            "standardise": True,
            "projection": None,
        },
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_probe_is_trained_on_pooled_states_of_the_frozen_encoder(
    layout: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    settings = _settings(layout, tmp_path, method="probe", **changes)
    part = load_stage(FAMILY.representation(settings), "cpu")
    assert part is not None
    assert (part.name, part.dtype) == ("pooled", "float32")
    inputs = _inputs(settings)
    rows = part.compute(inputs.numpy())
    states = {"weighted": 3, "inner": 1, "None": 1}.get(str(changes.get("layers")), 2)
    assert rows.shape == (3, changes.get("segments", 1), states, 48 if changes.get("pooling") else 24)
    module = FAMILY.build(settings, GENRES, "pooled", seed=1).eval()
    assert all(name.startswith("head.") for name in module.state_dict())
    FAMILY.save(module, tmp_path / "saved")
    whole = FAMILY.load_module(tmp_path / "saved", settings, GENRES)
    torch.testing.assert_close(module(torch.from_numpy(rows)).logits, whole(inputs).logits, rtol=0, atol=1e-5)


def test_segments_are_classified_on_their_own_and_learn_the_label_each(tmp_path: Path) -> None:
    settings = _settings("hubert", tmp_path, method="probe", segments=2, projection=None)
    module = FAMILY.build(settings, GENRES, "pooled", seed=0).eval()
    rows = torch.randn(4, 2, 1, 24)
    labels = torch.tensor([0, 1, 2, 0])
    found = module(rows, labels=labels)
    halves = [module.head.classifier(rows[:, half, 0]).log_softmax(dim=-1) for half in (0, 1)]
    torch.testing.assert_close(found.logits, (halves[0] + halves[1]) / 2)
    losses = [torch.nn.functional.nll_loss(half, labels) for half in halves]
    torch.testing.assert_close(found.loss, (losses[0] + losses[1]) / 2)


def test_concatenated_states_give_the_head_every_layer(tmp_path: Path) -> None:
    settings = _settings(
        "whisper", tmp_path, method="probe", layers=(0, 2), combine="concatenated", projection=None
    )
    module = FAMILY.build(settings, GENRES, "pooled", seed=0)
    assert module.head.layer_weights is None
    assert module.head.classifier.in_features == 2 * 24


def test_summary_tokens_cannot_be_cut_into_segments(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="segments"):
        FAMILY.input_spec(_settings("ast", tmp_path, segments=2))


def test_the_real_whisper_encoder_keeps_its_weights(shared: Path, tmp_path: Path) -> None:
    checkpoint = shared / "weights" / "whisper-tiny.en-encoder"
    settings = EncoderSettings(backbone=str(checkpoint))
    spec = FAMILY.input_spec(settings)
    assert (spec.window_seconds, spec.sample_rate, spec.extend) == (30.0, 16_000, "silence")
    module = FAMILY.build(settings, GENRES, "inputs", seed=0)
    published = load_file(checkpoint / "model.safetensors")
    for name, value in module.encoder.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, published[f"model.encoder.{name}"].float()), name
    FAMILY.save(module, tmp_path)
    theirs = AutoModelForAudioClassification.from_pretrained(tmp_path)
    inputs = torch.zeros(1, 80, 3000)
    torch.testing.assert_close(module.eval()(inputs).logits, theirs.eval()(inputs).logits, rtol=0, atol=1e-6)


def test_whisper_takes_shorter_windows_with_fewer_positions(tmp_path: Path) -> None:
    settings = _settings("whisper", tmp_path, window_seconds=1.0)
    module = FAMILY.build(settings, GENRES, "inputs", seed=0).eval()
    inputs = _inputs(settings)
    assert inputs.shape == (3, 80, 100)
    FAMILY.save(module, tmp_path / "saved")
    loaded = FAMILY.load_module(tmp_path / "saved", settings, GENRES)
    torch.testing.assert_close(loaded(inputs).logits, module(inputs).logits, rtol=0, atol=0)
    assert (
        AutoModelForAudioClassification.from_pretrained(tmp_path / "saved").config.max_source_positions == 50
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_precision_checkpoints_are_trained_in_single(layout: str, tmp_path: Path) -> None:
    tiny_checkpoint(layout, tmp_path / layout, dtype=torch.float16)
    module = FAMILY.build(_settings(layout, tmp_path), GENRES, "inputs", seed=0)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_a_folder_is_identified_by_its_content_only(tmp_path: Path) -> None:
    first, copy = tiny_checkpoint("hubert", tmp_path / "a"), tmp_path / "b"
    shutil.copytree(first, copy, copy_function=shutil.copyfile)  # with times of its own
    (copy / "README.md").write_text("The same model.")
    known = [FAMILY.representation(EncoderSettings(backbone=str(folder))).digest for folder in (first, copy)]
    assert known[0] == known[1]
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"layerdrop": 0.2}))
    assert FAMILY.representation(EncoderSettings(backbone=str(copy))).digest != known[0]
    assert FAMILY.representation(EncoderSettings(from_scratch={})).digest is None


def test_a_model_of_the_hub_is_identified_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--someone--a-model"
    tiny_checkpoint("hubert", cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert (
        FAMILY.representation(EncoderSettings(backbone="someone/a-model")).digest
        == f"someone/a-model@{commit}"
    )


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    """A hub on this machine, and an empty cache."""
    with model_hub() as hub:
        for name, value in (
            ("HF_HUB_OFFLINE", False),
            ("HF_HUB_DISABLE_XET", True),
            ("ENDPOINT", hub.url),
            ("HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"),
            ("HF_HUB_CACHE", str(tmp_path / "cache")),
        ):
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        yield hub


def commit_to(hub: ModelHub, name: str, folder: Path) -> str:
    """Make the files of a folder the newest commit of a repository of the hub."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    repository = hub.repositories.setdefault(name, Repository(private=False, commits=[]))
    commit = f"{len(repository.commits) + 1:040x}"
    repository.commits.append((commit, files))
    return commit


def weights_of(module: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.encoder.state_dict().items()}


def test_the_commit_that_was_fingerprinted_is_loaded_though_the_hub_has_a_newer_one(
    hub: ModelHub, tmp_path: Path
) -> None:
    name = "someone/a-model"
    folders = [tiny_checkpoint("hubert", tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    wanted, other = (
        weights_of(FAMILY.build(EncoderSettings(backbone=str(folder)), GENRES, "inputs", 0))
        for folder in folders
    )
    first = commit_to(hub, name, folders[0])
    corpus = write_corpus(tmp_path / "corpus", tones(("blues", "jazz")), ("blues", "jazz"))
    settings = FAMILY.pinned(EncoderSettings(backbone=name, window_seconds=1.0))
    representation = FAMILY.representation(settings)
    assert representation.digest == f"{name}@{first}"
    assert settings.revision == first

    commit_to(hub, name, folders[1])
    # in another pod, with a cache of its own
    shutil.rmtree(tmp_path / "cache")
    extract(corpus, representation, tmp_path / "features", "cpu")
    shutil.rmtree(tmp_path / "cache")
    assert FAMILY.backbone_digest(settings) == representation.digest
    assert FAMILY.representation(settings) == representation
    found = weights_of(FAMILY.build(settings, GENRES, "inputs", 0))
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert any(not torch.equal(found[key], other[key]) for key in wanted)


def test_a_hub_that_changes_between_two_files_gives_the_files_of_one_commit(
    hub: ModelHub, tmp_path: Path
) -> None:
    name = "someone/a-model"
    first, second = (tiny_checkpoint("hubert", tmp_path / str(seed), seed=seed) for seed in (1, 2))
    wanted = weights_of(FAMILY.build(EncoderSettings(backbone=str(first)), GENRES, "inputs", 0))
    commit_to(hub, name, first)
    described = describe_checkpoint(name)
    commit_to(hub, name, second)
    found = load_encoder(described, EncoderSettings(backbone=name), GENRES, 0).state_dict()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_a_revision_can_be_named_and_one_that_is_not_there_is_reported(hub: ModelHub, tmp_path: Path) -> None:
    name = "someone/a-model"
    commits = [
        commit_to(hub, name, tiny_checkpoint("hubert", tmp_path / str(seed), seed=seed)) for seed in (1, 2)
    ]
    settings = EncoderSettings(backbone=name, revision=commits[0])
    assert FAMILY.backbone_digest(settings) == f"{name}@{commits[0]}"
    with pytest.raises(ModelError, match=r"has no revision v9: correct model\.revision"):
        FAMILY.input_spec(EncoderSettings(backbone=name, revision="v9"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_checkpoint_without_part_of_its_encoder_is_refused(layout: str, tmp_path: Path) -> None:
    folder = tiny_checkpoint(layout, tmp_path / layout)
    weights = load_file(folder / "model.safetensors")
    gone = next(
        name for name in sorted(weights) if "encoder" in name and "decoder" not in name and "1" in name
    )
    del weights[gone]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 weights"):
        FAMILY.build(_settings(layout, tmp_path), GENRES, "inputs", seed=0)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint("hubert", tmp_path / "hubert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with pytest.raises(ModelError, match="another shape"):
        FAMILY.build(_settings("hubert", tmp_path), GENRES, "inputs", seed=0)


def test_what_is_no_backbone_is_refused_with_an_error_message(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    text = tmp_path / "text"
    BertModel(
        BertConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=8
        )
    ).save_pretrained(text)
    unknown = tiny_checkpoint("hubert", tmp_path / "unknown")
    (unknown / "config.json").write_text('{"model_type": "gramophone"}')
    broken = tiny_checkpoint("hubert", tmp_path / "broken")
    (broken / "config.json").write_text("not json")
    mute = tiny_checkpoint("hubert", tmp_path / "mute")
    (mute / "preprocessor_config.json").unlink()
    weightless = tiny_checkpoint("hubert", tmp_path / "weightless")
    (weightless / "model.safetensors").unlink()
    for backbone, words in {
        str(empty): "no config.json",
        str(text): "is a bert model",
        str(unknown): "gramophone",
        str(broken): "is not a model that can be read",
        str(mute): "preprocessor_config.json",
        str(weightless): "no weights",
        str(tmp_path / "nowhere"): "There is no folder",
        "./nowhere": "There is no folder",
        "someone/no-such-model": "HF_HUB_OFFLINE is set",
        "no model at all!": "neither a folder nor a name",
    }.items():
        with pytest.raises(ModelError, match=words) as caught:
            FAMILY.input_spec(EncoderSettings(backbone=backbone))
        assert "\n" not in str(caught.value)


def test_an_unreachable_hub_is_reported_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}"
        )
        begun = time.monotonic()
        with pytest.raises(ModelError, match="hub cannot be reached"):
            FAMILY.input_spec(EncoderSettings(backbone="someone/no-such-model"))
        assert time.monotonic() - begun < 5


def test_truncated_weights_are_refused_with_an_error_message(tmp_path: Path) -> None:
    folder = tiny_checkpoint("hubert", tmp_path / "hubert")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="is not a model that can be read"):
        FAMILY.build(_settings("hubert", tmp_path), GENRES, "inputs", seed=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": (3,)},
        {"layers": ()},
        {"layers": (1, 1)},
        {"frozen_layers": 3},
        {"mel_front_end": True},
        {"window_seconds": 0.01},
    ],
)
def test_settings_that_do_not_fit_the_backbone_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        FAMILY.input_spec(_settings("hubert", tmp_path, **changes))


def test_a_saved_model_whose_weights_do_not_fit_is_refused(tmp_path: Path) -> None:
    settings = _settings("hubert", tmp_path)
    FAMILY.save(FAMILY.build(settings, GENRES, "inputs", seed=0), tmp_path / "saved")
    with pytest.raises(ModelError, match="genres"):
        FAMILY.load_module(tmp_path / "saved", settings, (*GENRES, "rock"))
    with pytest.raises(ModelError, match="do not fit"):
        FAMILY.load_module(tmp_path / "saved", settings.model_copy(update={"projection": 5}), GENRES)
    (tmp_path / "saved" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be read"):
        FAMILY.load_module(tmp_path / "saved", settings, GENRES)


def test_the_same_seed_builds_the_same_head(tmp_path: Path) -> None:
    settings = _settings("hubert", tmp_path)
    first, again, other = (
        FAMILY.build(settings, GENRES, "inputs", seed).head.state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_building_does_not_touch_the_global_generators(tmp_path: Path) -> None:
    settings = _settings("hubert", tmp_path)
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    FAMILY.build(settings, GENRES, "front_end", seed=1)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("method", ["probe", "fine_tune"])
def test_standardised_states_have_the_statistics_of_the_training_rows(method: str, tmp_path: Path) -> None:
    settings = _settings("wav2vec2", tmp_path, method=method, standardise=True, layers="weighted")
    part = load_stage(FAMILY.representation(settings), "cpu")
    assert part is not None
    module = FAMILY.build(settings, GENRES, part.name, seed=1)
    probing = method == "probe"
    rows = part.compute(_inputs(settings, 40).numpy())
    tensor = torch.from_numpy(rows) if probing else torch.from_numpy(rows.view(np.int16)).view(torch.bfloat16)
    FAMILY.fit_inputs(module, iter((tensor[:24], tensor[24:])))
    assert module.training, "fitting leaves the mode as it was"
    if probing:
        standard = module.head.standard(tensor.flatten(1))
        torch.testing.assert_close(standard.mean(dim=0), torch.zeros(72), rtol=0, atol=1e-3)
        torch.testing.assert_close(standard.std(dim=0, unbiased=False), torch.ones(72), rtol=0, atol=1e-2)
    assert module.head.standard.deviation.max() < 1


def test_what_is_frozen_gets_no_gradient_and_no_group(tmp_path: Path) -> None:
    settings = _settings("hubert", tmp_path, frozen_layers=1)
    module = FAMILY.build(settings, GENRES, "inputs", seed=1)
    trainable = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert not any(
        "feature_extractor" in name or "layers.0." in name or "pos_conv" in name for name in trainable
    )
    assert any("layers.1." in name for name in trainable)
    groups = FAMILY.parameter_groups(module, settings, _training())
    assert sum(len(group["params"]) for group in groups) == len(trainable)


def test_an_unfrozen_front_end_is_trained_on_waveforms(tmp_path: Path) -> None:
    settings = _settings("hubert", tmp_path, freeze_front_end=False)
    assert FAMILY.representation(settings).stage == "inputs"
    module = FAMILY.build(settings, GENRES, "inputs", seed=1).train()
    _forward(module, _inputs(settings)).loss.backward()
    assert all(parameter.grad is not None for parameter in module.encoder.feature_extractor.parameters())


def _training(**changes: Any) -> SimpleNamespace:
    defaults = {"learning_rate": 1e-4, "head_learning_rate": None, "weight_decay": 0.01, "layer_decay": 1.0}
    return SimpleNamespace(**defaults | changes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rates_fall_from_layer_to_layer_and_the_head_has_its_own(layout: str, tmp_path: Path) -> None:
    settings = _settings(layout, tmp_path)
    module = FAMILY.build(settings, GENRES, "inputs", seed=1)
    groups = FAMILY.parameter_groups(module, settings, _training(layer_decay=0.5, head_learning_rate=1e-3))
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    seen = {
        name: rates[id(parameter)] for name, parameter in module.named_parameters() if parameter.requires_grad
    }
    assert {rate for name, rate in seen.items() if name.startswith("head.")} == {1e-3}
    assert {rate for name, rate in seen.items() if ".layers.1." in name} == {1e-4}
    assert {rate for name, rate in seen.items() if ".layers.0." in name} == {5e-5}
    assert min(seen.values()) == 2.5e-5, "what lies below the layers learns slowest"


def test_vectors_have_no_weight_decay(tmp_path: Path) -> None:
    settings = _settings("hubert", tmp_path, layers="weighted")
    module = FAMILY.build(settings, GENRES, "inputs", seed=1)
    for group in FAMILY.parameter_groups(module, settings, _training()):
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.01 if parameter.ndim > 1 else 0.0)


@pytest.mark.parametrize("layout", ["whisper", "ast"])
def test_spectrograms_are_masked_in_training_only(layout: str, tmp_path: Path) -> None:
    settings = _settings(
        layout, tmp_path, mask_time_prob=0.3, mask_time_length=5, mask_feature_prob=0.2, mask_feature_length=4
    )
    module = FAMILY.build(settings, GENRES, "inputs", seed=1).train()
    inputs = _inputs(settings)
    _seed()
    masked = module._mask(inputs.clone())
    share = (masked != inputs).float().mean().item()
    assert 0.2 < share < 0.6
    assert torch.equal(masked[masked != inputs], torch.zeros(int((masked != inputs).sum())))
    module.eval()
    torch.testing.assert_close(module(inputs).logits, module(inputs).logits, rtol=0, atol=0)


@pytest.mark.parametrize("layout", WAVEFORM)
def test_masking_set_here_reaches_the_encoder(layout: str, tmp_path: Path) -> None:
    settings = _settings(layout, tmp_path, mask_time_prob=0.4, mask_time_length=3)
    config = FAMILY.build(settings, GENRES, "inputs", seed=1).encoder.config
    assert (config.mask_time_prob, config.mask_time_length, config.apply_spec_augment) == (0.4, 3, True)


@pytest.mark.parametrize(("given", "kept"), [(None, True), (False, False)])
def test_the_extractors_settings_stay_with_the_model(given: bool | None, kept: bool, tmp_path: Path) -> None:
    settings = _settings("hubert", tmp_path, normalise=given)
    assert FAMILY.input_spec(settings).parameters == {"normalise": kept}
    FAMILY.save(FAMILY.build(settings, GENRES, "inputs", seed=0), tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "preprocessor_config.json").read_text())
    assert (saved["do_normalize"], saved["sampling_rate"]) == (kept, 16_000)


def test_a_fine_tuned_checkpoint_with_other_labels_is_a_backbone_too(tmp_path: Path) -> None:
    first = _settings("wav2vec2", tmp_path)
    FAMILY.save(FAMILY.build(first, GENRES, "inputs", seed=0), tmp_path / "tuned")
    again = FAMILY.build(
        first.model_copy(update={"backbone": str(tmp_path / "tuned")}), ("a", "b", "c", "d"), "inputs", seed=0
    )
    assert again(_inputs(first)).logits.shape == (3, 4)
    source = tiny_model("wav2vec2").state_dict()
    assert all(torch.equal(value, source[name]) for name, value in again.encoder.state_dict().items())


def test_from_scratch_the_frozen_front_end_is_the_one_that_extraction_used(tmp_path: Path) -> None:
    config = tiny_model("hubert").config.to_diff_dict()
    settings = EncoderSettings(from_scratch=config, window_seconds=1.0, cache_precision="float32")
    part = load_stage(FAMILY.representation(settings), "cpu")
    assert part is not None
    assert FAMILY.pretrained(settings) is None
    inputs = _inputs(settings)
    cached = torch.from_numpy(part.compute(inputs.numpy()))
    for seed in (1, 2):
        module = FAMILY.build(settings, GENRES, "front_end", seed=seed).eval()
        whole = FAMILY.build(settings, GENRES, "inputs", seed=seed).eval()
        torch.testing.assert_close(module(cached).logits, whole(inputs).logits, rtol=0, atol=1e-5)
    with pytest.raises(SettingsError, match="probe"):
        FAMILY.input_spec(settings.model_copy(update={"method": "probe"}))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "gramophone"}, "gramophone"),
        ({"hiden_size": 8}, "nearest is 'hidden_size'"),
        ({"hidden_size": 24, "num_attention_heads": 5}, "describes no HuBERT"),
        ({"conv_dim": [8, 8], "conv_kernel": [10], "conv_stride": [5]}, "describes no HuBERT"),
        ({"hidden_size": "large"}, "describes no HuBERT"),
    ],
)
def test_a_configuration_from_scratch_that_cannot_be_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        FAMILY.build(EncoderSettings(from_scratch=config), GENRES, "inputs", seed=0)


def test_a_mel_front_end_responds_to_each_band_at_its_frequency() -> None:
    bands, rate = 16, 8_000
    config = {
        "conv_dim": [8, 4 * bands, bands, 8 * bands, bands],
        "conv_kernel": [4, 96, 6, 1, 1],
        "conv_stride": [4, 16, 4, 1, 1],
        "conv_bias": True,
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
        "sampling_rate": rate,
    }
    settings = EncoderSettings(
        from_scratch=config, mel_front_end=True, window_seconds=1.0, cache_precision="float32"
    )
    part = load_stage(FAMILY.representation(settings), "cpu")
    assert part is not None
    centres, _ = mel_centres(bands, rate)
    tones = np.sin(2 * np.pi * centres[:, None] * np.arange(rate) / rate).astype(np.float32)
    frames = part.compute(represent(FAMILY.input_spec(settings), tones))
    loudest = frames.mean(axis=1).argmax(axis=1)
    assert np.abs(loudest - np.arange(bands)).max() <= 1
    assert (loudest == np.arange(bands)).mean() > 0.8
