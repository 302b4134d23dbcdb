"""From a trained model to what is served: export, parity, latency, digest, and what is refused."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from genreflow import packaging, runtime
from genreflow.artifacts import (
    CorpusDocument,
    ModelDocument,
    PackagedDocument,
    PackagingSettings,
    RuntimeReport,
)
from genreflow.corpus.ingest import ingest, resolve
from genreflow.corpus.settings import CorpusSettings
from genreflow.corpus.store import Corpus
from genreflow.errors import CorpusError, ModelError, SettingsError
from genreflow.families import family
from genreflow.genres import GENRES
from tests.checkpoints import LAYOUTS, tiny_checkpoint, window_seconds

SPREAD = 4.0
"""Between the largest and the smallest logit of a genre over real windows."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty clips of four seconds, each genre a chord of its own under beats, ingested from a folder."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    time = np.arange(4 * 16_000) / 16_000
    for number, genre in enumerate(GENRES):
        (folder / "genres" / genre).mkdir(parents=True)
        for clip in range(3):
            root = 110 * 2 ** (number / 4 + clip / 30)
            chord = sum(np.sin(2 * np.pi * root * ratio * time) for ratio in (1, 1.25, 1.5 + number / 20))
            beat = np.exp(-30 * (time % (0.3 + number / 40))) * generator.standard_normal(len(time))
            path = folder / "genres" / genre / f"{genre}.{clip:05}.wav"
            soundfile.write(path, 0.15 * chord + 0.3 * beat, 16_000)
    source = str(folder / "genres")
    ingest(source, resolve(source, GENRES), CorpusSettings(protocol="grouped"), folder / "corpus")
    return folder / "corpus"


def trained(folder: Path, name: str, corpus: Path, seed: int = 0, **settings: Any) -> ModelDocument:
    """A model of that family with the weights it begins with, as training leaves one in `folder`."""
    kind = family(name)
    chosen = kind.settings_type.model_validate(settings)
    module = kind.build(chosen, GENRES, "inputs", seed)
    document = ModelDocument(
        family=name,
        settings=chosen.model_dump(mode="json"),
        genres=GENRES,
        hearing=kind.hearing(chosen),
        temperature=1.3,
        training={"epochs": 0, "seconds": 1.0},
        pretrained=kind.pretrained(chosen),
        synthetic=True,
        train_clips={},
        validation_clips={},
        corpus_fingerprint=CorpusDocument.read(corpus).fingerprint,
        features_fingerprint="f",
        protocol="grouped",
        fold=None,
        leaky=False,
        leak_reason=None,
        code_version="0",
        run_id="run",
    )
    windows = packaging.real_windows(document, Corpus.open(corpus), 20)
    if name == "mfcc_cnn":
        kind.fit_inputs(module, [torch.from_numpy(windows)])
    module.eval()
    give_opinions(module, windows)
    kind.save(module, folder)
    document.write(folder)
    return document


def give_opinions(module: torch.nn.Module, windows: np.ndarray) -> None:
    """Stretch an untrained head's answers, so that windows differ by logits as a trained one's do."""
    layers = [layer for layer in module.head.modules() if isinstance(layer, torch.nn.Linear)]  # type: ignore[union-attr, operator]
    with torch.no_grad():
        logits = module(torch.from_numpy(windows)).logits
        stretch = SPREAD / (logits.amax(0) - logits.amin(0)).max()
        layers[-1].weight.mul_(stretch)
        layers[-1].bias.copy_(-logits.mean(0) * stretch)


def encoder(folder: Path, layout: str, corpus: Path, seed: int = 0) -> ModelDocument:
    checkpoint = tiny_checkpoint(layout, folder.parent / f"{layout}-checkpoint")
    return trained(
        folder, "encoder", corpus, seed, backbone=str(checkpoint), window_seconds=window_seconds(layout)
    )


@pytest.fixture(scope="module")
def packaged(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DistilHuBERT, packaged; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("packaged")
    encoder(folder / "model", "hubert", corpus)
    packaging.package(folder / "model", corpus, folder / "packaged")
    return folder / "packaged"


@pytest.fixture
def copy(packaged: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packaged, tmp_path / "packaged"))


def report(document: PackagedDocument, name: str, precision: str) -> RuntimeReport:
    return next(one for one in document.runtimes if (one.name, one.precision) == (name, precision))


@pytest.mark.parametrize("layout", [*LAYOUTS, "mfcc_cnn"])
def test_every_architecture_is_served_by_openvino_with_pytorchs_answers(
    layout: str, corpus: Path, tmp_path: Path
) -> None:
    if layout == "mfcc_cnn":
        document = trained(tmp_path / "model", "mfcc_cnn", corpus)
    else:
        document = encoder(tmp_path / "model", layout, corpus)
    inputs = packaging.real_windows(document, Corpus.open(corpus), 11)
    path = tmp_path / runtime.OPENVINO_MODEL
    packaging.export_openvino(tmp_path / "model", document, inputs, path)

    pytorch = runtime.load_pytorch(tmp_path / "model", document, "f32", "cpu")
    expected = pytorch.logits(inputs)
    predict = runtime.compile_openvino(path, "f32")
    # Batches of several sizes: a batch dimension frozen by tracing answers only some.
    answers = np.concatenate([predict(inputs[:1]), predict(inputs[1:4]), predict(inputs[4:])])
    spread = np.ptp(expected, axis=0).max()
    assert spread > 0.1, "the model answers all windows alike: parity means nothing"
    assert np.abs(answers - expected).max() < 1e-4 * max(1, spread)


def test_a_packaged_model_answers_through_openvino_as_through_pytorch(packaged: Path, corpus: Path) -> None:
    clips = Corpus.open(corpus)
    openvino = runtime.load(packaged, precision="f32")
    pytorch = runtime.load(packaged, runtime="pytorch")
    assert (openvino.runtime, pytorch.runtime) == ("openvino", "pytorch")
    for row in (0, 17):
        ours = openvino.classify_samples(clips.samples(row), clips.sample_rate(row))
        theirs = pytorch.classify_samples(clips.samples(row), clips.sample_rate(row))
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-4)
        assert ours.genre == theirs.genre
        assert ours.windows == 4


def test_the_document_says_parity_and_latency_of_every_runtime(packaged: Path) -> None:
    document = PackagedDocument.read(packaged)
    pytorch, f32 = report(document, "pytorch", "f32"), report(document, "openvino", "f32")
    assert pytorch.usable
    assert pytorch.max_probability_difference == 0.0
    assert f32.usable
    assert 0 < f32.max_probability_difference < 1e-3
    assert f32.decision_agreement == 1.0
    assert 0 < f32.latency_ms_p50 <= f32.latency_ms_p95
    assert {one.precision for one in document.runtimes if one.name == "openvino"} == {"f32", "bf16"}
    assert document.processor
    assert document.model.run_id == "run"


def test_reference_windows_are_real_and_answered_again_at_start_up(packaged: Path, corpus: Path) -> None:
    inputs, probabilities = runtime.read_reference(packaged)
    assert inputs.shape == (8, 16_000)
    assert probabilities.shape == (8, len(GENRES))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    document = PackagedDocument.read(packaged)
    np.testing.assert_array_equal(inputs, packaging.real_windows(document.model, Corpus.open(corpus), 8))
    assert runtime.load(packaged, precision="f32").check_reference(packaged) < 1e-4
    assert runtime.load_checked(packaged).runtime == "openvino"


def test_windows_are_taken_from_validation_clips_of_all_genres_and_never_from_the_test_split(
    corpus: Path, packaged: Path
) -> None:
    asked: list[int] = []

    class Watched(Corpus):
        def samples(self, row: int) -> np.ndarray:
            asked.append(row)
            return super().samples(row)

    document = PackagedDocument.read(packaged).model
    clips = Watched.open(corpus)
    assert len(packaging.real_windows(document, clips, 4)) == 4
    assert set(clips.manifest["split"].iloc[asked]) == {"train"}, "there are no validation clips yet"

    clips.manifest.loc[1::3, "split"] = "validation"
    asked.clear()
    windows = packaging.real_windows(document, clips, 12)
    assert windows.shape == (12, 16_000)
    assert set(clips.manifest["split"].iloc[asked]) == {"validation"}
    assert set(clips.manifest["genre"].iloc[asked[:10]]) == set(GENRES)
    assert len({window.tobytes() for window in windows}) == 12


def test_a_corpus_without_training_and_validation_clips_is_refused(corpus: Path, packaged: Path) -> None:
    class Empty(Corpus):
        def rows(self, split: Any = None) -> list[int]:
            return []

    with pytest.raises(CorpusError, match="neither validation nor training clips"):
        packaging.real_windows(PackagedDocument.read(packaged).model, Empty.open(corpus), 4)


def test_an_identical_retraining_has_an_identical_digest(
    packaged: Path, corpus: Path, tmp_path: Path
) -> None:
    document = encoder(tmp_path / "again", "hubert", corpus)
    later = document.model_copy(update={"run_id": "another", "training": {"epochs": 0, "seconds": 7.0}})
    later.write(tmp_path / "again")
    again = packaging.package(tmp_path / "again", corpus, tmp_path / "packaged")
    assert again.digest == PackagedDocument.read(packaged).digest
    assert again.model.run_id == "another"


@pytest.mark.parametrize("change", ["weights", "int8", "temperature", "genres", "hearing", "settings"])
def test_whatever_decides_answers_changes_the_digest(packaged: Path, change: str) -> None:
    document = PackagedDocument.read(packaged)
    model, files = document.model, document.files
    assert runtime.model_digest(model, files) == document.digest
    changed = {
        "weights": (model, files | {"model/model.safetensors": "0" * 64}),
        "int8": (model, files | {runtime.OPENVINO_INT8: "0" * 64}),
        "temperature": (model.model_copy(update={"temperature": 1.4}), files),
        "genres": (model.model_copy(update={"genres": tuple(reversed(model.genres))}), files),
        "hearing": (
            model.model_copy(update={"hearing": model.hearing.model_copy(update={"extend": "silence"})}),
            files,
        ),
        "settings": (model.model_copy(update={"settings": model.settings | {"layers": "weighted"}}), files),
    }
    assert runtime.model_digest(*changed[change]) != document.digest


@pytest.mark.parametrize(
    "name",
    [
        "model/model.safetensors",
        "model/config.json",
        "openvino/model.bin",
        "openvino/model.xml",
        "reference.npz",
    ],
)
def test_an_altered_file_is_refused_by_name(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[-1] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name} was altered"):
        runtime.load(copy)


def test_missing_and_added_files_are_refused_by_name(copy: Path) -> None:
    (copy / "model/extra.json").write_text("{}")
    with pytest.raises(ModelError, match=r"model/extra\.json was added"):
        runtime.load(copy)
    (copy / "model/extra.json").unlink()
    (copy / "reference.npz").unlink()
    with pytest.raises(ModelError, match=r"reference\.npz is missing"):
        runtime.load(copy)


def test_openvino_serves_a_package_without_the_weights_that_only_pytorch_reads(
    copy: Path, packaged: Path
) -> None:
    shutil.rmtree(copy / "model")
    alone, whole = runtime.load_checked(copy), runtime.load_checked(packaged)
    assert alone.runtime == "openvino"
    with np.load(copy / "reference.npz") as reference:
        assert np.array_equal(alone.logits(reference["inputs"]), whole.logits(reference["inputs"]))
    with pytest.raises(ModelError, match=r"model/\S+ is missing"):
        runtime.load(copy, runtime="pytorch")
    (copy / "openvino" / "model.xml").unlink()
    with pytest.raises(ModelError, match=r"openvino/model\.xml is missing"):
        runtime.load(copy)


def test_a_document_that_claims_other_genres_is_refused(copy: Path) -> None:
    written = json.loads((copy / "packaged.json").read_text())
    written["model"]["genres"] = written["model"]["genres"][::-1]
    (copy / "packaged.json").write_text(json.dumps(written))
    with pytest.raises(ModelError, match="its digest does not fit"):
        runtime.load(copy)


def test_a_package_with_a_pickle_in_it_is_refused(copy: Path) -> None:
    runtime.load(copy)
    (copy / "scaler.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"scaler\.pkl"):
        runtime.load(copy)


def test_a_gpu_that_is_not_there_is_a_sentence(packaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="no CUDA device"):
        runtime.load(packaged, runtime="pytorch", device="cuda")


def test_a_model_with_a_pickle_is_not_packaged(copy: Path, corpus: Path, tmp_path: Path) -> None:
    (copy / "model/training_args.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"training_args\.bin"):
        packaging.package(copy / "model", corpus, tmp_path / "out")


def test_a_model_that_cannot_be_exported_is_served_by_pytorch_with_the_reason(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import openvino

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operation: aten::chirp\nand a long trace")

    encoder(tmp_path / "model", "hubert", corpus)
    monkeypatch.setattr(openvino, "convert_model", refuse)
    document = packaging.package(tmp_path / "model", corpus, tmp_path / "packaged")
    f32 = report(document, "openvino", "f32")
    assert not f32.usable
    assert "aten::chirp" in str(f32.reason)
    assert report(document, "pytorch", "f32").usable
    with caplog.at_level(logging.WARNING, "genreflow"):
        assert runtime.load(tmp_path / "packaged").runtime == "pytorch"
    assert "aten::chirp" in caplog.text
    with pytest.raises(ModelError, match="aten::chirp"):
        runtime.load(tmp_path / "packaged", runtime="openvino")


def test_a_runtime_off_by_too_much_is_not_served(packaged: Path) -> None:
    document = PackagedDocument.read(packaged).model
    inputs, expected = runtime.read_reference(packaged)
    honest = runtime.load(packaged, precision="f32")

    def measured(error: float, precision: runtime.Precision) -> RuntimeReport:
        def predict(given: np.ndarray) -> np.ndarray:
            return honest.logits(given) + np.float32(error) * np.eye(len(GENRES), dtype=np.float32)[0]

        wrong = runtime.Classifier(document, predict, "openvino", precision)
        return packaging.measure(lambda: wrong, "openvino", precision, inputs, expected)

    assert measured(0.0, "f32").usable
    slightly, far = measured(0.05, "bf16"), measured(5.0, "bf16")
    assert slightly.usable
    assert not measured(0.05, "f32").usable
    assert not far.usable
    assert "differ from those in fp32" in str(far.reason)


def test_a_runtime_that_decides_otherwise_is_not_served() -> None:
    assert packaging.parity_problem("bf16", 0.01, 1.0) is None
    assert "93.8% of the windows" in str(packaging.parity_problem("bf16", 0.01, 30 / 32))
    assert "at least 100%" in str(packaging.parity_problem("f32", 1e-4, 31 / 32))


def test_a_runtime_that_answers_with_no_number_is_not_served(packaged: Path) -> None:
    inputs, expected = runtime.read_reference(packaged)
    document = PackagedDocument.read(packaged).model

    def predict(given: np.ndarray) -> np.ndarray:
        return np.full((len(given), len(GENRES)), np.nan, dtype=np.float32)

    broken = runtime.Classifier(document, predict, "openvino", "f32")
    assert not packaging.measure(lambda: broken, "openvino", "f32", inputs, expected).usable


def test_bf16_that_answers_otherwise_on_this_processor_falls_back_to_f32_loudly(
    packaged: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    honest = runtime.compile_openvino

    def compile_wrongly(path: Path, precision: runtime.Precision) -> runtime.Predict:
        predict = honest(path, "f32")
        return predict if precision == "f32" else lambda inputs: predict(inputs)[:, ::-1] * 9

    monkeypatch.setattr(runtime, "compile_openvino", compile_wrongly)
    monkeypatch.setattr(runtime, "openvino_precisions", lambda: ("bf16", "f32"))
    monkeypatch.setattr(runtime, "_choose_openvino", lambda _, precision: (precision or "bf16", ""))
    with caplog.at_level(logging.WARNING, "genreflow"):
        classifier = runtime.load_checked(packaged)
    assert classifier.precision == "f32"
    assert "serving in f32" in caplog.text


def test_a_model_that_answers_nan_on_this_processor_is_not_served(
    packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = runtime.compile_openvino

    def compile_to_nan(path: Path, precision: runtime.Precision) -> runtime.Predict:
        predict = honest(path, "f32")
        return lambda inputs: predict(inputs) * np.float32(np.nan)

    monkeypatch.setattr(runtime, "compile_openvino", compile_to_nan)
    with pytest.raises(ModelError, match="does not give its packaged answers here"):
        runtime.load_checked(packaged)


def measured(name: str, precision: str, latency: float, usable: bool = True) -> RuntimeReport:
    return RuntimeReport(
        name=name,  # type: ignore[arg-type]
        precision=precision,
        usable=usable,
        reason=None if usable else "it is too far off",
        max_probability_difference=0.0,
        decision_agreement=1.0,
        latency_ms_p50=latency,
        latency_ms_p95=latency,
    )


ON_CPU = (measured("pytorch", "f32", 90), measured("openvino", "f32", 40), measured("openvino", "bf16", 20))
NO_OPENVINO = (measured("pytorch", "f32", 90), measured("openvino", "f32", 40, usable=False))


@pytest.mark.parametrize(
    ("reports", "wanted", "cuda", "chosen"),
    [
        (ON_CPU, "auto", False, "openvino"),
        (ON_CPU, "auto", True, "openvino"),  # nobody measured what CUDA would bring
        (ON_CPU, "openvino", True, "openvino"),
        (ON_CPU, "pytorch", False, "pytorch"),
        (NO_OPENVINO, "auto", False, "pytorch"),
        ((*ON_CPU, measured("pytorch", "bf16", 5)), "auto", True, "pytorch"),
        ((*ON_CPU, measured("pytorch", "bf16", 5)), "auto", False, "openvino"),
        ((*ON_CPU, measured("pytorch", "bf16", 5)), "openvino", True, "openvino"),
        ((*ON_CPU, measured("pytorch", "bf16", 30)), "auto", True, "openvino"),
        ((*ON_CPU, measured("pytorch", "bf16", 5, usable=False)), "auto", True, "openvino"),
    ],
)
def test_pytorch_serves_where_it_is_wanted_or_measured_to_be_faster_on_cuda(
    reports: tuple[RuntimeReport, ...], wanted: str, cuda: bool, chosen: str
) -> None:
    assert runtime.choose_runtime(reports, wanted, lambda: cuda) == chosen


def test_openvino_is_refused_where_it_does_not_serve_the_model() -> None:
    with pytest.raises(ModelError, match=r"OpenVINO does not serve this model \(in f32, it is too far off\)"):
        runtime.choose_runtime(NO_OPENVINO, "openvino", lambda: False)


@pytest.mark.parametrize(
    ("reports", "device", "precision", "said"),
    [
        (ON_CPU, "cpu", "f32", "A GPU was expected"),
        (ON_CPU, "cuda", "bf16", None),
        (NO_OPENVINO, "cpu", "f32", "OpenVINO does not serve this model (in f32, it is too far off)"),
        ((*ON_CPU, measured("pytorch", "bf16", 5, usable=False)), "cuda", "f32", "it is too far off"),
    ],
)
def test_pytorch_in_openvinos_place_says_where_it_is_not_on_cuda_in_bf16(
    reports: tuple[RuntimeReport, ...], device: str, precision: str, said: str | None
) -> None:
    note = runtime.shortfall(reports, device, precision)
    assert note is None if said is None else said in str(note)


def test_pytorch_answers_in_bf16_on_cuda_unless_that_failed_its_parity() -> None:
    refused = (*ON_CPU, measured("pytorch", "bf16", 5, usable=False))
    asked = [(ON_CPU, "cuda"), ((*ON_CPU, measured("pytorch", "bf16", 5)), "cuda"), (refused, "cuda")]
    assert [runtime.pytorch_precision(*one) for one in (*asked, (ON_CPU, "cpu"))] == [
        "bf16",
        "bf16",
        "f32",
        "f32",
    ]


def test_pytorch_asked_for_on_a_cpu_is_checked_and_says_so(
    packaged: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    classifier = runtime.load_checked(packaged, "pytorch")
    assert (classifier.runtime, classifier.precision, classifier.device) == ("pytorch", "f32", "cpu")
    assert ["A GPU was expected" in note for note in classifier.notes] == [True]
    assert "A GPU was expected" in caplog.text
    assert runtime.load_checked(packaged).notes == ()


def test_a_precision_that_this_processor_lacks_is_not_chosen(
    packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "openvino_precisions", lambda: ("f32",))
    assert runtime.load(packaged).precision == "f32"
    with pytest.raises(ModelError, match="this processor has no bf16"):
        runtime.load(packaged, runtime="openvino", precision="bf16")


def int8_package(
    model: Path, corpus: Path, out: Path, speed: float, monkeypatch: pytest.MonkeyPatch
) -> PackagedDocument:
    """Packaged with int8 asked for, which has to be `speed` times as fast as the others."""
    monkeypatch.setattr(packaging, "INT8_SPEED", speed)
    return packaging.package(model, corpus, out, PackagingSettings(int8=True))


def test_int8_that_earns_its_place_is_served(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path / "model", "mfcc_cnn", corpus)
    plain = packaging.package(tmp_path / "model", corpus, tmp_path / "plain")
    out = tmp_path / "packaged"
    document = int8_package(tmp_path / "model", corpus, out, 0.0, monkeypatch)
    int8 = report(document, "openvino", "int8")
    assert int8.usable, int8.reason
    assert int8.max_probability_difference > report(document, "openvino", "f32").max_probability_difference
    assert "FakeQuantize" in (out / runtime.OPENVINO_INT8).read_text()
    assert document.digest != plain.digest
    classifier = runtime.load_checked(out)
    assert (classifier.runtime, classifier.precision) == ("openvino", "int8")
    assert runtime.load(out, precision="f32").check_reference(out) < 1e-4
    with pytest.raises(SettingsError, match="PyTorch serves no int8"):
        runtime.load(out, runtime="pytorch", precision="int8")


@pytest.mark.parametrize(
    ("kind", "speed", "reason"),
    [("mfcc_cnn", 1e9, "times as fast as"), ("hubert", 0.0, "differ from those in fp32")],
)
def test_int8_that_earns_no_place_leaves_the_model_what_it_was(
    kind: str, speed: float, reason: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights in int8 answer otherwise."""
    if kind == "mfcc_cnn":
        trained(tmp_path / "model", kind, corpus)
    else:
        encoder(tmp_path / "model", kind, corpus)
    plain = packaging.package(tmp_path / "model", corpus, tmp_path / "plain")
    out = tmp_path / "packaged"
    document = int8_package(tmp_path / "model", corpus, out, speed, monkeypatch)
    int8 = report(document, "openvino", "int8")
    assert not int8.usable
    assert reason in str(int8.reason)
    assert document.digest == plain.digest
    assert sorted(path.name for path in (out / "openvino").iterdir()) == ["model.bin", "model.xml"]
    assert runtime.load_checked(out).precision != "int8"


def test_where_int8_deviates_it_is_kept_to_the_heaviest_operations(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quantised as a whole, a HuBERT answered 0.2 off; its first layers, which do most of the work, 0.02."""
    encoder(tmp_path / "model", "hubert", corpus)
    monkeypatch.setitem(runtime.PARITY, "int8", runtime.Parity(0.1, 0.75))  # its weights are random
    document = int8_package(tmp_path / "model", corpus, tmp_path / "packaged", 0.0, monkeypatch)
    int8 = report(document, "openvino", "int8")
    assert int8.usable, int8.reason
    assert int8.max_probability_difference < 0.05
    served = runtime.openvino().Core().read_model(tmp_path / "packaged" / runtime.OPENVINO_INT8)
    quantised = {
        operation.get_friendly_name()
        for operation in served.get_ops()
        if operation.get_type_name() in packaging.CHANNEL_AXIS
        and operation.input_value(0).get_node().get_type_name() == "FakeQuantize"
    }
    assert {name.partition("conv_layers.")[2].partition(".")[0] for name in quantised} == {"1", "2"}


def test_a_model_whose_work_cannot_be_counted_is_not_quantised_in_part(
    packaged: Path, tmp_path: Path
) -> None:
    """As `package` expects it: what NNCF or OpenVINO raise in that ended the packaging of the whole model."""
    too_short = np.zeros((2, 10), dtype=np.float32)
    with pytest.raises(ModelError, match="cannot be quantised"):
        packaging.quantize(packaged / runtime.OPENVINO_MODEL, too_short, tmp_path / "int8.xml", True)


def test_packaging_tells_nobody(packaged: Path, corpus: Path, tmp_path: Path) -> None:
    """OpenVINO's converter and NNCF leave an identifier in the home of whom they report."""
    code = (
        "import sys; from pathlib import Path; from genreflow import packaging\n"
        "from genreflow.artifacts import PackagingSettings\n"
        "packaging.package(*map(Path, sys.argv[1:]), PackagingSettings(int8=True))\n"
    )
    argv = [sys.executable, "-c", code, str(packaged.parent / "model"), str(corpus), str(tmp_path / "out")]
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | {"HOME": str(tmp_path)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "intel").exists()


def test_serving_a_package_loads_neither_torch_nor_transformers(packaged: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from genreflow import runtime; import numpy as np\n"
        f"classifier = runtime.load_checked(Path({str(packaged)!r}))\n"
        "classifier.classify_samples(np.sin(np.arange(32000, dtype=np.float32)), 16000)\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'pandas', 'datasets', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
