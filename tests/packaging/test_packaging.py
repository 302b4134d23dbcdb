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
from corpora import ingest_and_split, split_of
from safetensors.torch import load_file, save_file

from genreflow import packaging
from genreflow.core.documents import (
    CorpusDocument,
    ModelDocument,
    PackagedDocument,
    PackagingSettings,
    RuntimeReport,
    Served,
)
from genreflow.core.errors import CorpusError, ModelError, SettingsError
from genreflow.core.genres import GENRES
from genreflow.core.openvino import convert_module
from genreflow.corpus.settings import CorpusSettings
from genreflow.corpus.splitting import Split, open_corpus
from genreflow.corpus.store import Corpus
from genreflow.families import family
from genreflow.inference.backends import Predict, openvino
from genreflow.inference.backends.openvino import compile_openvino, import_openvino
from genreflow.inference.classifier import Classifier
from genreflow.inference.loading import (
    choose_runtime,
    fallback,
    load_checked_classifier,
    load_classifier,
    load_trained,
)
from genreflow.inference.package_files import OPENVINO_INT8, OPENVINO_MODEL, model_digest, read_reference
from genreflow.inference.parity import PARITY, Parity, Precision
from genreflow.packaging import quantization
from genreflow.packaging.export import export_openvino
from genreflow.packaging.measurement import measure, parity_problem
from genreflow.packaging.package import declared
from genreflow.packaging.quantization import CHANNEL_AXIS, quantize
from genreflow.packaging.windows import real_windows
from tests.checkpoints import LAYOUTS, tiny_checkpoint, window_seconds

LOUD = 1000.0
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
    return ingest_and_split(source, CorpusSettings(protocol="grouped"), folder / "corpus")


def trained(folder: Path, name: str, corpus: Path, seed: int = 0, **settings: Any) -> ModelDocument:
    """A model of that family with the weights it begins with, as training leaves one in `folder`."""
    kind = family(name)
    chosen = kind.settings_type.model_validate(settings)
    module = kind.build(chosen, GENRES, "inputs", seed)
    document = ModelDocument(
        family=name,
        settings=chosen.model_dump(mode="json"),
        genres=GENRES,
        input_spec=kind.input_spec(chosen),
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
    windows = real_windows(document, open_corpus(corpus, split_of(corpus)), 20)
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
        scale = SPREAD / (logits.amax(0) - logits.amin(0)).max()
        layers[-1].weight.mul_(scale)
        layers[-1].bias.copy_(-logits.mean(0) * scale)


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
    packaging.package(folder / "model", corpus, split_of(corpus), folder / "packaged")
    return folder / "packaged"


@pytest.fixture
def copy(packaged: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packaged, tmp_path / "packaged"))


def report(document: PackagedDocument, name: str, precision: str) -> RuntimeReport:
    return next(one for one in document.runtimes if (one.name, one.precision) == (name, precision))


@pytest.mark.numeric
@pytest.mark.parametrize("layout", [*LAYOUTS, "mfcc_cnn"])
def test_every_architecture_is_served_by_openvino_with_pytorchs_answers(
    layout: str, corpus: Path, tmp_path: Path
) -> None:
    if layout == "mfcc_cnn":
        document = trained(tmp_path / "model", "mfcc_cnn", corpus)
    else:
        document = encoder(tmp_path / "model", layout, corpus)
    inputs = real_windows(document, open_corpus(corpus, split_of(corpus)), 11)
    path = tmp_path / OPENVINO_MODEL
    export_openvino(tmp_path / "model", document, inputs, path)

    pytorch = load_trained(tmp_path / "model", document, "f32", "cpu")
    expected = pytorch.logits(inputs)
    predict = compile_openvino(path, "f32")
    # Batches of several sizes: a batch dimension frozen by tracing answers only some.
    answers = np.concatenate([predict(inputs[:1]), predict(inputs[1:4]), predict(inputs[4:])])
    spread = np.ptp(expected, axis=0).max()
    assert spread > 0.1, "the model answers all windows alike: parity means nothing"
    assert np.abs(answers - expected).max() < 1e-4 * max(1, spread)


@pytest.mark.numeric
def test_a_packaged_model_answers_through_openvino_as_through_pytorch(packaged: Path, corpus: Path) -> None:
    clips = Corpus.open(corpus)
    exported = load_classifier(packaged, precision="f32")
    pytorch = load_classifier(packaged, runtime="pytorch")
    assert (exported.runtime, pytorch.runtime) == ("openvino", "pytorch")
    for row in (0, 17):
        ours = exported.classify_samples(clips.samples(row), clips.sample_rate(row))
        theirs = pytorch.classify_samples(clips.samples(row), clips.sample_rate(row))
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-4)
        assert ours.genre == theirs.genre
        assert ours.windows == 4


@pytest.mark.numeric
def test_the_document_says_parity_and_latency_of_every_runtime(packaged: Path) -> None:
    document = PackagedDocument.read(packaged)
    pytorch, f32 = report(document, "pytorch", "f32"), report(document, "openvino", "f32")
    assert pytorch.usable
    assert pytorch.max_probability_difference == 0.0
    assert f32.usable
    assert f32.max_probability_difference < 1e-3
    assert f32.decision_agreement == 1.0
    assert 0 < f32.latency_ms_p50 <= f32.latency_ms_p95
    assert {one.precision for one in document.runtimes if one.name == "openvino"} == {"f32", "bf16"}
    assert document.processor
    assert document.model.run_id == "run"


def test_reference_windows_are_real_and_answered_again_at_start_up(packaged: Path, corpus: Path) -> None:
    inputs, probabilities = read_reference(packaged)
    assert inputs.shape == (8, 16_000)
    assert probabilities.shape == (8, len(GENRES))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    document = PackagedDocument.read(packaged)
    opened = open_corpus(corpus, split_of(corpus))
    np.testing.assert_array_equal(inputs, real_windows(document.model, opened, 8))
    assert load_classifier(packaged, precision="f32").check_reference(packaged) < 1e-4
    assert load_checked_classifier(packaged).runtime == "openvino"


def test_windows_are_taken_from_validation_clips_of_all_genres_and_never_from_the_test_split(
    corpus: Path, packaged: Path
) -> None:
    asked: list[int] = []

    class Watched(Corpus):
        def samples(self, row: int) -> np.ndarray:
            asked.append(row)
            return super().samples(row)

    document = PackagedDocument.read(packaged).model
    parts = Split.open(split_of(corpus))
    untouched = parts.table.assign(split="train")
    clips = Watched.open(corpus).with_split(parts.document, untouched)
    assert len(real_windows(document, clips, 4)) == 4
    assert set(clips.manifest["split"].iloc[asked]) == {"train"}, "there are no validation clips yet"

    clips.manifest.loc[1::3, "split"] = "validation"
    asked.clear()
    windows = real_windows(document, clips, 12)
    assert windows.shape == (12, 16_000)
    assert set(clips.manifest["split"].iloc[asked]) == {"validation"}
    assert set(clips.manifest["genre"].iloc[asked[:10]]) == set(GENRES)
    assert len({window.tobytes() for window in windows}) == 12


def test_a_corpus_without_training_and_validation_clips_is_refused(corpus: Path, packaged: Path) -> None:
    class Empty(Corpus):
        def rows(self, split: Any = None) -> list[int]:
            return []

    with pytest.raises(CorpusError, match="neither validation nor training clips"):
        real_windows(PackagedDocument.read(packaged).model, Empty.open(corpus), 4)


def test_an_identical_retraining_has_an_identical_digest(
    packaged: Path, corpus: Path, tmp_path: Path
) -> None:
    document = encoder(tmp_path / "again", "hubert", corpus)
    later = document.model_copy(update={"run_id": "another", "training": {"epochs": 0, "seconds": 7.0}})
    later.write(tmp_path / "again")
    again = packaging.package(tmp_path / "again", corpus, split_of(corpus), tmp_path / "packaged")
    assert again.digest == PackagedDocument.read(packaged).digest
    assert again.model.run_id == "another"


@pytest.mark.parametrize("change", ["weights", "int8", "temperature", "genres", "input_spec", "settings"])
def test_whatever_decides_answers_changes_the_digest(packaged: Path, change: str) -> None:
    document = PackagedDocument.read(packaged)
    model, files = document.model, document.files
    assert model_digest(model, files) == document.digest
    changed = {
        "weights": (model, files | {"model/model.safetensors": "0" * 64}),
        "int8": (model, files | {OPENVINO_INT8: "0" * 64}),
        "temperature": (model.model_copy(update={"temperature": 1.4}), files),
        "genres": (model.model_copy(update={"genres": tuple(reversed(model.genres))}), files),
        "input_spec": (
            model.model_copy(
                update={"input_spec": model.input_spec.model_copy(update={"extend": "silence"})}
            ),
            files,
        ),
        "settings": (model.model_copy(update={"settings": model.settings | {"layers": "weighted"}}), files),
    }
    assert model_digest(*changed[change]) != document.digest


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
        load_classifier(copy)


def test_missing_and_added_files_are_refused_by_name(copy: Path) -> None:
    (copy / "model/extra.json").write_text("{}")
    with pytest.raises(ModelError, match=r"model/extra\.json was added"):
        load_classifier(copy)
    (copy / "model/extra.json").unlink()
    (copy / "reference.npz").unlink()
    with pytest.raises(ModelError, match=r"reference\.npz is missing"):
        load_classifier(copy)


def test_openvino_serves_a_package_without_the_weights_that_only_pytorch_reads(
    copy: Path, packaged: Path
) -> None:
    shutil.rmtree(copy / "model")
    alone, whole = load_checked_classifier(copy), load_checked_classifier(packaged)
    assert alone.runtime == "openvino"
    with np.load(copy / "reference.npz") as reference:
        assert np.array_equal(alone.logits(reference["inputs"]), whole.logits(reference["inputs"]))
    with pytest.raises(ModelError, match=r"model/\S+ is missing"):
        load_classifier(copy, runtime="pytorch")
    (copy / "openvino" / "model.xml").unlink()
    with pytest.raises(ModelError, match=r"openvino/model\.xml is missing"):
        load_classifier(copy)


def test_a_document_that_claims_other_genres_is_refused(copy: Path) -> None:
    written = json.loads((copy / "packaged.json").read_text())
    written["model"]["genres"] = written["model"]["genres"][::-1]
    (copy / "packaged.json").write_text(json.dumps(written))
    with pytest.raises(ModelError, match="its digest does not match"):
        load_classifier(copy)


def test_a_package_with_a_pickle_in_it_is_refused(copy: Path) -> None:
    load_classifier(copy)
    (copy / "scaler.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"scaler\.pkl"):
        load_classifier(copy)


def test_a_gpu_that_is_not_there_gives_an_error_message(
    packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="no CUDA device"):
        load_classifier(packaged, runtime="pytorch", device="cuda")


def test_a_model_with_a_pickle_is_not_packaged(copy: Path, corpus: Path, tmp_path: Path) -> None:
    (copy / "model/training_args.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"training_args\.bin"):
        packaging.package(copy / "model", corpus, split_of(corpus), tmp_path / "out")


def test_a_conversion_that_fails_leaves_the_root_logger_as_it_was() -> None:
    class Unknown(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.special.airy_ai(inputs)

    root = logging.getLogger()
    before = (root.level, root.filters[:], root.handlers[:])
    with pytest.raises(ModelError, match="cannot be converted"):
        convert_module(Unknown().eval(), np.zeros((2, 4), np.float32))
    after = (root.level, root.filters[:], root.handlers[:])
    root.setLevel(before[0])  # a failure here is not one of the tests after it
    root.filters[:] = before[1]
    assert after == before


def test_a_model_that_cannot_be_exported_is_served_by_pytorch_with_the_reason(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import openvino as library

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operation: aten::chirp\nand a long trace")

    encoder(tmp_path / "model", "hubert", corpus)
    caplog.set_level(logging.WARNING, "genreflow")
    monkeypatch.setattr(library, "convert_model", refuse)
    document = packaging.package(tmp_path / "model", corpus, split_of(corpus), tmp_path / "packaged")
    f32 = report(document, "openvino", "f32")
    assert not f32.usable
    assert "aten::chirp" in str(f32.reason)
    assert report(document, "pytorch", "f32").usable
    assert "aten::chirp" in caplog.text
    assert document.served == Served(runtime="pytorch", precision="f32")
    assert load_classifier(tmp_path / "packaged").runtime == "pytorch"
    with pytest.raises(ModelError, match="aten::chirp"):
        load_classifier(tmp_path / "packaged", runtime="openvino")


def test_a_runtime_off_by_too_much_is_not_served(packaged: Path) -> None:
    document = PackagedDocument.read(packaged).model
    inputs, expected = read_reference(packaged)
    original = load_classifier(packaged, precision="f32")

    def measured(error: float, precision: Precision) -> RuntimeReport:
        def predict(given: np.ndarray) -> np.ndarray:
            return original.logits(given) + np.float32(error) * np.eye(len(GENRES), dtype=np.float32)[0]

        wrong = Classifier(document, predict, "openvino", precision)
        return measure(lambda: wrong, "openvino", precision, inputs, expected)

    assert measured(0.0, "f32").usable
    slightly, far = measured(0.05, "bf16"), measured(5.0, "bf16")
    assert slightly.usable
    assert not measured(0.05, "f32").usable
    assert not far.usable
    assert "differ from those in fp32" in str(far.reason)


def test_a_runtime_that_decides_otherwise_is_not_served() -> None:
    assert parity_problem("bf16", 0.01, 1.0) is None
    assert "93.8% of the windows" in str(parity_problem("bf16", 0.01, 30 / 32))
    assert "at least 100%" in str(parity_problem("f32", 1e-4, 31 / 32))


def test_a_runtime_that_predicts_nan_is_not_served(packaged: Path) -> None:
    inputs, expected = read_reference(packaged)
    document = PackagedDocument.read(packaged).model

    def predict(given: np.ndarray) -> np.ndarray:
        return np.full((len(given), len(GENRES)), np.nan, dtype=np.float32)

    broken = Classifier(document, predict, "openvino", "f32")
    assert not measure(lambda: broken, "openvino", "f32", inputs, expected).usable


def declare(folder: Path, precision: str, runtime: str = "openvino") -> PackagedDocument:
    """Let a package declare a precision, and report it as usable."""
    document = PackagedDocument.read(folder)
    reports = tuple(
        one.model_copy(update={"usable": True, "reason": None})
        if (one.name, one.precision) == (runtime, precision)
        else one
        for one in document.runtimes
    )
    served = Served(runtime=runtime, precision=precision)
    document = document.model_copy(update={"runtimes": reports, "served": served})
    document.write(folder)
    return document


def test_bf16_that_predicts_otherwise_on_this_processor_falls_back_to_f32_with_a_note(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = compile_openvino

    def compile_wrongly(path: Path, precision: Precision) -> Predict:
        predict = original(path, "f32")
        return predict if precision == "f32" else lambda inputs: predict(inputs)[:, ::-1] * 9

    declare(copy, "bf16")
    monkeypatch.setattr(openvino, "compile_openvino", compile_wrongly)
    monkeypatch.setattr(openvino, "openvino_precisions", lambda: ("bf16", "f32"))
    assert load_classifier(copy).precision == "bf16"
    with caplog.at_level(logging.WARNING, "genreflow"):
        classifier = load_checked_classifier(copy)
    assert (classifier.runtime, classifier.precision) == ("openvino", "f32")
    assert "using openvino f32" in caplog.text
    assert ["packaged probabilities on this processor" in note for note in classifier.notes] == [True]


def test_a_model_that_predicts_nan_on_this_processor_is_not_served(
    packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = compile_openvino

    def compile_to_nan(path: Path, precision: Precision) -> Predict:
        predict = original(path, "f32")
        return lambda inputs: predict(inputs) * np.float32(np.nan)

    monkeypatch.setattr(openvino, "compile_openvino", compile_to_nan)
    with pytest.raises(ModelError, match="does not reproduce its packaged probabilities on this processor"):
        load_checked_classifier(packaged)


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
    ("reports", "wanted", "served"),
    [
        (ON_CPU, "auto", ("openvino", "bf16")),
        (ON_CPU, "openvino", ("openvino", "bf16")),
        (ON_CPU, "pytorch", ("pytorch", "f32")),
        (NO_OPENVINO, "auto", ("pytorch", "f32")),
        ((measured("pytorch", "f32", 10), *ON_CPU[1:]), "auto", ("openvino", "bf16")),
        ((*ON_CPU, measured("pytorch", "bf16", 5)), "auto", ("pytorch", "bf16")),
        ((*ON_CPU, measured("pytorch", "bf16", 5)), "openvino", ("openvino", "bf16")),
        ((*ON_CPU, measured("pytorch", "bf16", 30)), "auto", ("openvino", "bf16")),
        ((*ON_CPU, measured("pytorch", "bf16", 5, usable=False)), "auto", ("openvino", "bf16")),
    ],
)
def test_the_fastest_usable_is_declared_and_pytorch_on_a_cpu_only_without_another(
    reports: tuple[RuntimeReport, ...], wanted: str, served: tuple[str, str]
) -> None:
    assert declared(reports, wanted) == Served(runtime=served[0], precision=served[1])


def test_a_runtime_that_does_not_serve_the_model_cannot_be_declared() -> None:
    with pytest.raises(ModelError, match="openvino f32: it is too far off"):
        declared(NO_OPENVINO, "openvino")


def served_by(document: PackagedDocument, reports: tuple[RuntimeReport, ...], served: Served) -> Any:
    return document.model_copy(update={"runtimes": reports, "served": served})


def test_auto_is_the_declared_runtime_and_a_refused_one_gives_an_error_message(packaged: Path) -> None:
    document = PackagedDocument.read(packaged)
    on_cuda = Served(runtime="pytorch", precision="bf16")
    one = served_by(document, (*ON_CPU, measured("pytorch", "bf16", 5)), on_cuda)
    wanted = ("auto", "openvino", "pytorch")
    assert [choose_runtime(one, name) for name in wanted] == ["pytorch", "openvino", "pytorch"]
    with pytest.raises(ModelError, match="ONNX Runtime does not serve this model"):
        choose_runtime(one, "onnxruntime")
    other = served_by(document, NO_OPENVINO, Served(runtime="pytorch", precision="f32"))
    with pytest.raises(ModelError, match=r"OpenVINO does not serve this model \(in f32, it is too far off\)"):
        choose_runtime(other, "openvino")


def test_the_fallback_is_openvino_f32_and_pytorch_f32_where_openvino_does_not_serve_the_model(
    packaged: Path,
) -> None:
    document = PackagedDocument.read(packaged)
    assert fallback(served_by(document, ON_CPU, document.served)).label == "openvino f32"
    assert fallback(served_by(document, NO_OPENVINO, document.served)).label == "pytorch f32"


@pytest.mark.parametrize(("reports", "served"), [(ON_CPU, "openvino bf16"), (NO_OPENVINO, "pytorch f32")])
def test_a_package_of_version_0_1_0_declares_what_that_version_served(
    copy: Path, reports: tuple[RuntimeReport, ...], served: str
) -> None:
    written = json.loads((copy / "packaged.json").read_text())
    del written["served"], written["schema_version"]
    written["runtimes"] = [
        {key: value for key, value in one.model_dump().items() if key != "nll_increase"} for one in reports
    ]
    (copy / "packaged.json").write_text(json.dumps(written))
    assert PackagedDocument.read(copy).served.label == served


def test_a_model_declared_for_cuda_is_served_by_openvino_f32_where_there_is_none(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    declare(copy, "bf16", "pytorch")
    with caplog.at_level(logging.WARNING, "genreflow"):
        classifier = load_checked_classifier(copy)
    assert (classifier.runtime, classifier.precision) == ("openvino", "f32")
    (note,) = classifier.notes
    assert (
        note == "pytorch bf16 is not used here, as PyTorch has no bf16 on this machine: using openvino f32."
    )
    assert note in caplog.text


def test_a_chosen_runtime_is_checked_and_its_deviations_are_reported(
    packaged: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    classifier = load_checked_classifier(packaged, "pytorch")
    assert (classifier.runtime, classifier.precision, classifier.device) == ("pytorch", "f32", "cpu")
    cpu, deviation = classifier.notes
    assert "no CUDA device" in cpu
    label = PackagedDocument.read(packaged).served.label
    assert deviation == f"Served with pytorch f32, as set; the model was evaluated with {label}."
    assert cpu in caplog.text
    assert load_checked_classifier(packaged).notes == ()


def test_a_precision_that_this_processor_lacks_is_not_used(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(copy, "bf16")
    monkeypatch.setattr(openvino, "openvino_precisions", lambda: ("f32",))
    assert load_classifier(copy).precision == "f32"
    with pytest.raises(ModelError, match="OpenVINO has no bf16 on this machine"):
        load_classifier(copy, runtime="openvino", precision="bf16")


def int8_package(
    model: Path, corpus: Path, out: Path, speed: float, monkeypatch: pytest.MonkeyPatch
) -> PackagedDocument:
    """Packaged with int8 asked for, which has to be `speed` times as fast as the others."""
    monkeypatch.setattr(quantization, "INT8_SPEED", speed)
    return packaging.package(model, corpus, split_of(corpus), out, PackagingSettings(int8=True))


@pytest.mark.numeric
def test_int8_that_meets_all_thresholds_is_served(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path / "model", "mfcc_cnn", corpus)
    plain = packaging.package(tmp_path / "model", corpus, split_of(corpus), tmp_path / "plain")
    out = tmp_path / "packaged"
    monkeypatch.setitem(PARITY, "int8", Parity(1.0, 0.0))  # random weights decide narrowly
    monkeypatch.setattr(quantization, "INT8_NLL_INCREASE", 1.0)
    document = int8_package(tmp_path / "model", corpus, out, 0.0, monkeypatch)
    int8 = report(document, "openvino", "int8")
    assert int8.usable, int8.reason
    assert int8.max_probability_difference > report(document, "openvino", "f32").max_probability_difference
    assert int8.nll_increase is not None
    assert int8.nll_increase <= quantization.INT8_NLL_INCREASE
    assert "FakeQuantize" in (out / OPENVINO_INT8).read_text()
    assert document.digest != plain.digest
    declare(out, "int8")  # its speed was not required, so that another may be the fastest
    classifier = load_checked_classifier(out)
    assert (classifier.runtime, classifier.precision) == ("openvino", "int8")
    assert load_classifier(out, precision="f32").check_reference(out) < 1e-4
    with pytest.raises(ModelError, match="pytorch int8"):
        load_classifier(out, runtime="pytorch", precision="int8")


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("kind", "speed", "reason"),
    [("mfcc_cnn", 1e9, "times as fast as"), ("hubert", 0.0, "differ from those in fp32")],
)
def test_int8_that_fails_a_threshold_does_not_change_the_model(
    kind: str, speed: float, reason: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too slow, or too far off: by any difference at all, as its size depends on the processor."""
    if kind == "mfcc_cnn":
        trained(tmp_path / "model", kind, corpus)
    else:
        encoder(tmp_path / "model", kind, corpus)
    plain = packaging.package(tmp_path / "model", corpus, split_of(corpus), tmp_path / "plain")
    out = tmp_path / "packaged"
    parity = Parity(0.0, 1.0) if speed == 0 else Parity(1.0, 0.0)
    monkeypatch.setitem(PARITY, "int8", parity)
    document = int8_package(tmp_path / "model", corpus, out, speed, monkeypatch)
    int8 = report(document, "openvino", "int8")
    assert not int8.usable
    assert reason in str(int8.reason)
    assert document.digest == plain.digest
    assert sorted(path.name for path in (out / "openvino").iterdir()) == ["model.bin", "model.xml"]
    assert load_checked_classifier(out).precision != "int8"


def test_int8_that_makes_the_validation_likelihood_worse_is_not_served(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within parity's bounds it may still be less calibrated: the temperature was fitted in fp32."""
    trained(tmp_path / "model", "mfcc_cnn", corpus)
    monkeypatch.setitem(PARITY, "int8", Parity(1.0, 0.0))  # random weights decide narrowly
    monkeypatch.setattr(quantization, "INT8_NLL_INCREASE", -1.0)
    document = int8_package(tmp_path / "model", corpus, tmp_path / "packaged", 0.0, monkeypatch)
    int8 = report(document, "openvino", "int8")
    assert not int8.usable
    assert "negative log-likelihood" in str(int8.reason)
    assert document.served.precision != "int8"
    assert not (tmp_path / "packaged" / OPENVINO_INT8).exists()


def test_the_likelihood_of_int8_is_measured_on_clips_of_all_genres(
    corpus: Path, packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A corpus is in the order of its genres: the first clips of a split are of the first genres alone."""
    clips, classifier = open_corpus(corpus, split_of(corpus)), load_classifier(packaged)
    there = clips.rows("train")  # of three clips a genre, none is a validation clip
    asked: list[int] = []
    monkeypatch.setattr(quantization, "INT8_NLL_CLIPS", len(there) - 4)
    monkeypatch.setattr(quantization, "mean_nll", lambda _, __, rows: asked.extend(rows) or 0.0)
    quantization._calibrated(measured("openvino", "int8", 1.0), classifier, classifier, clips)
    places = [there.index(row) for row in asked[: len(asked) // 2]]
    assert len(places) == len(there) - 4
    assert max(np.diff([-1, *places, len(there)])) <= 2


def test_int8_is_compared_with_pytorch_in_fp32(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared with OpenVINO f32 alone, what that is off itself came on top unseen."""
    compared: list[np.ndarray] = []
    original = quantization.measure

    def watched(load: Any, name: str, precision: Precision, inputs: Any, expected: np.ndarray) -> Any:
        compared.extend((inputs, expected))
        return original(load, name, precision, inputs, expected)

    model = trained(tmp_path / "model", "mfcc_cnn", corpus)
    monkeypatch.setattr(quantization, "measure", watched)
    int8_package(tmp_path / "model", corpus, tmp_path / "packaged", 0.0, monkeypatch)
    pytorch = load_trained(tmp_path / "model", model, "f32", "cpu")
    np.testing.assert_array_equal(compared[1], pytorch.probabilities(pytorch.logits(compared[0])))


@pytest.mark.numeric
def test_where_int8_deviates_it_is_kept_to_the_heaviest_operations(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer outside the heaviest gets one channel a thousand times as loud, which its weights ignore.

    In int8 the range of that channel leaves nothing of the others, on every processor.
    """
    checkpoint = tiny_checkpoint("hubert", tmp_path / "checkpoint")
    weights = load_file(checkpoint / "model.safetensors")
    weights["feature_extractor.conv_layers.2.conv.weight"][0] *= LOUD
    weights["feature_extractor.conv_layers.3.conv.weight"][:, 0] = 0
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    trained(tmp_path / "model", "encoder", corpus, backbone=str(checkpoint), window_seconds=1.0)
    monkeypatch.setitem(PARITY, "int8", Parity(0.2, 0.0))  # random weights decide narrowly
    monkeypatch.setattr(quantization, "INT8_NLL_INCREASE", 1.0)
    document = int8_package(tmp_path / "model", corpus, tmp_path / "packaged", 0.0, monkeypatch)
    int8 = report(document, "openvino", "int8")
    assert int8.usable, int8.reason
    served = import_openvino().Core().read_model(tmp_path / "packaged" / OPENVINO_INT8)
    quantised = {
        operation.get_friendly_name()
        for operation in served.get_ops()
        if operation.get_type_name() in CHANNEL_AXIS
        and operation.input_value(0).get_node().get_type_name() == "FakeQuantize"
    }
    assert {name.partition("conv_layers.")[2].partition(".")[0] for name in quantised} == {"1", "2"}


def test_a_model_whose_work_cannot_be_counted_is_not_quantised_in_part(
    packaged: Path, tmp_path: Path
) -> None:
    """As `package` expects it: what NNCF or OpenVINO raise in that ended the packaging of the whole model."""
    too_short = np.zeros((2, 10), dtype=np.float32)
    with pytest.raises(ModelError, match="cannot be quantised"):
        quantize(packaged / OPENVINO_MODEL, too_short, tmp_path / "int8.xml", True)


def test_quantising_leaves_the_handlers_of_others_as_they_are(packaged: Path, tmp_path: Path) -> None:
    """A handler of the process at NNCF's logger, as pytest's own is at each that does not propagate.

    NNCF raised its level to ERROR for good: no warning was seen from then on.
    """
    nncf, seen = logging.getLogger("nncf"), logging.NullHandler()
    nncf.addHandler(seen)
    try:
        with pytest.raises(ModelError, match="cannot be quantised"):
            quantize(packaged / OPENVINO_MODEL, np.zeros((2, 10), np.float32), tmp_path / "int8.xml", True)
    finally:
        nncf.removeHandler(seen)
    assert seen.level == logging.NOTSET
    assert nncf.level == logging.ERROR


def test_packaging_sends_no_telemetry(packaged: Path, corpus: Path, tmp_path: Path) -> None:
    """OpenVINO's converter and NNCF leave an identifier in the home of whom they report."""
    code = (
        "import sys; from pathlib import Path; from genreflow import packaging\n"
        "from genreflow.core.documents import PackagingSettings\n"
        "packaging.package(*map(Path, sys.argv[1:]), PackagingSettings(int8=True))\n"
    )
    folders = (packaged.parent / "model", corpus, split_of(corpus), tmp_path / "out")
    argv = [sys.executable, "-c", code, *map(str, folders)]
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | {"HOME": str(tmp_path)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "intel").exists()


def test_serving_a_package_loads_neither_torch_nor_transformers(packaged: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from genreflow.inference.loading import load_checked_classifier\n"
        f"classifier = load_checked_classifier(Path({str(packaged)!r}))\n"
        "classifier.classify_samples(np.sin(np.arange(32000, dtype=np.float32)), 16000)\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'pandas', 'datasets', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
