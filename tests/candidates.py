"""Small packaged models, evaluations and corpora to register: documents complete, the model real but tiny."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pandas as pd
from corpora import split_of
from openvino import opset13 as ops

from genreflow.core.digests import file_digest
from genreflow.core.documents import (
    SPLIT_FIELDS,
    CorpusDocument,
    InputSpec,
    ModelDocument,
    PackagedDocument,
    RuntimeReport,
    Served,
    SplitDocument,
)
from genreflow.core.genres import GENRES
from genreflow.evaluation.artifact import weights_digest
from genreflow.evaluation.document import (
    Calibration,
    Confusion,
    EvaluationDocument,
    GenreScores,
    ModelIdentity,
)
from genreflow.inference.answers import softmax
from genreflow.inference.package_files import model_digest
from genreflow.inference.processor import instruction_set

SAMPLES = 2_000
INPUT_SPEC = InputSpec(
    sample_rate=8_000, window_seconds=0.25, hop_seconds=0.25, extend="repeat", representation="waveform"
)


@dataclass(frozen=True)
class Candidate:
    """The three folders that `register` takes."""

    packaged: Path
    evaluation: Path
    corpus: Path

    @property
    def digest(self) -> str:
        return PackagedDocument.read(self.packaged).digest


def model_document(**fields: Any) -> ModelDocument:
    given: dict[str, Any] = {
        "family": "encoder",
        "settings": {"backbone": "ntu-spml/distilhubert", "views": 2},
        "genres": GENRES,
        "input_spec": INPUT_SPEC,
        "temperature": 1.2,
        "training": {"epochs": 12, "learning_rate": 5e-5, "seed": 42},
        "pretrained": "ntu-spml/distilhubert",
        "synthetic": False,
        "train_clips": {f"train {index}": f"cluster {index}" for index in range(443)},
        "validation_clips": {f"validation {index}": f"cluster v{index}" for index in range(197)},
        "corpus_fingerprint": "c0" * 32,
        "features_fingerprint": "fe" * 32,
        "protocol": "fault-filtered",
        "fold": None,
        "leaky": False,
        "leak_reason": None,
        "code_version": "0.1+abc",
        "run_id": None,
    }
    return ModelDocument(**(given | fields))


def write_packaged(folder: Path, seed: int, fields: dict[str, Any], work: int = 0) -> None:
    """A linear model on the waveform: small, but a real OpenVINO model that really answers.

    Args:
        work: how often the waveform is multiplied by the identity before: 4 million multiplications a window.
    """
    document = model_document(**fields)
    genres = len(document.genres)
    weights = np.random.default_rng(seed).normal(size=(SAMPLES, genres)).astype(np.float32) / 40
    (folder / "model").mkdir(parents=True)
    (folder / "openvino").mkdir()
    np.save(folder / "model" / "weights.npy", weights)
    document.write(folder / "model")
    inputs = ops.parameter([-1, SAMPLES], np.float32, name="inputs")
    outputs: Any = inputs
    for _ in range(work):
        outputs = ops.matmul(outputs, ops.constant(np.eye(SAMPLES, dtype=np.float32)), False, False)
    graph = openvino.Model([ops.matmul(outputs, ops.constant(weights), False, False)], [inputs], "linear")
    openvino.save_model(graph, folder / "openvino" / "model.xml", compress_to_fp16=False)
    windows = np.random.default_rng(1).normal(size=(4, SAMPLES)).astype(np.float32)
    expected = softmax((windows @ weights) / document.temperature)
    np.savez(folder / "reference.npz", inputs=windows, probabilities=expected)
    files = {
        path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()
    }
    report = RuntimeReport(
        name="openvino",
        precision="f32",
        usable=True,
        max_probability_difference=1e-6,
        decision_agreement=1.0,
        latency_ms_p50=93.0,
        latency_ms_p95=101.0,
    )
    PackagedDocument(
        digest=model_digest(document, files),
        model=document,
        files=files,
        runtimes=(report,),
        served=Served(runtime="openvino", precision="f32"),
        processor="a processor",
        code_version="0.1+abc",
    ).write(folder)


def write_corpus(folder: Path, fields: dict[str, Any]) -> None:
    given: dict[str, Any] = {
        "fingerprint": "c0" * 32,
        "source": "/music/gtzan",
        "source_fingerprint": "50" * 32,
        "synthetic": False,
        "genres": GENRES,
        "clips": 1000,
        "quarantined": 1,
        "duplicate_clusters": 3,
        "code_version": "0.1+abc",
    }
    of_split = {name: value for name, value in fields.items() if name in SPLIT_FIELDS}
    of_corpus = {name: value for name, value in fields.items() if name not in SPLIT_FIELDS}
    document = CorpusDocument(**(given | of_corpus))
    document.write(folder)
    parts: dict[str, Any] = {
        "fingerprint": "5b" * 32,
        "corpus_fingerprint": document.fingerprint,
        "protocol": "fault-filtered",
        "fold": None,
        "seed": 42,
        "leaky": False,
        "leak_reason": None,
        "counts": {"train": 443, "validation": 197, "test": 290, "unused": 70},
        "code_version": "0.1+abc",
    }
    SplitDocument(**(parts | of_split)).write(split_of(folder))


def write_evaluation(folder: Path, packaged: Path, accuracy: float, fields: dict[str, Any]) -> None:
    package = PackagedDocument.read(packaged)
    model = package.model
    scores = GenreScores(
        support=29,
        predicted=30,
        precision=0.79,
        recall=accuracy,
        recall_ci95=(max(0.0, accuracy - 0.14), min(1.0, accuracy + 0.12)),
        f1=accuracy,
        auc=0.95,
    )
    size = len(model.genres)
    given: dict[str, Any] = {
        "accuracy": accuracy,
        "accuracy_ci95": (max(0.0, accuracy - 0.05), min(1.0, accuracy + 0.04)),
        "macro_f1": accuracy - 0.01,
        "macro_f1_ci95": (max(0.0, accuracy - 0.06), min(1.0, accuracy + 0.03)),
        "vote_accuracy": accuracy - 0.02,
        "window_accuracy": accuracy - 0.1,
        "per_genre": dict.fromkeys(model.genres, scores),
        "confusion": Confusion(genres=model.genres, matrix=((1,) * size,) * size),
        "most_confused": (),
        "calibration": Calibration(ece=0.04, brier=0.3, nll=0.6, mean_confidence=0.8, bins=()),
        "clips": 290,
        "windows": 870,
        "genres": model.genres,
        "model": ModelIdentity(
            family=model.family,
            pretrained=model.pretrained,
            weights_digest=weights_digest(packaged / "model"),
            features_fingerprint=model.features_fingerprint,
            corpus_fingerprint=model.corpus_fingerprint,
            code_version=model.code_version,
            run_id=model.run_id,
            packaged_digest=package.digest,
        ),
        "runtime": package.served.runtime,
        "precision": package.served.precision,
        "instruction_set": instruction_set(),
        "corpus_fingerprint": "c0" * 32,
        "split_fingerprint": "5b" * 32,
        "source": "/music/gtzan",
        "protocol": model.protocol,
        "fold": model.fold,
        "leaky": model.leaky,
        "leak_reason": model.leak_reason,
        "seen_clips": 0,
        "synthetic": model.synthetic,
        "pretrained": model.pretrained,
        "seconds": 41.0,
        "code_version": "0.1+abc",
    }
    EvaluationDocument(**(given | fields)).write(folder)
    (folder / "report.html").write_text("<h1>Report</h1>")
    (folder / "plots").mkdir()
    (folder / "plots" / "confusion.png").write_bytes(b"\x89PNG")


def write_predictions(evaluation: Path) -> None:
    """Forty clips, all answered rightly."""
    rows = [
        {
            "level": "clip",
            "clip_id": f"clip {number}",
            "sha256": f"test {number}",
            "duplicate_cluster": f"test {number}",
            "near_duplicate_cluster": f"test {number}",
            "seen": False,
            "genre": GENRES[number % 10],
            "predicted": GENRES[number % 10],
        }
        for number in range(40)
    ]
    pd.DataFrame(rows).to_parquet(evaluation / "predictions.parquet", index=False)


@dataclass(frozen=True)
class Populated:
    """A store with three versions: 1 synthetic, 2 and 3 real; none is champion yet."""

    candidates: tuple[Candidate, ...]
