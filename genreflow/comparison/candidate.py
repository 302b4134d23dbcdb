"""A candidate of a comparison: a family, fitted, packaged and evaluated, with what it is chosen by.

The artifact's folder has `candidate.json`, `packaged/`, `evaluation/`, copies of `corpus.json` and
`split.json`, and `predictions.parquet`: rows of `genreflow.evaluation.predictions.predict` for training and
validation clips, and for held-out clips of the folds; the column `of` says which.
"""

import json
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from genreflow.comparison.seconds_heard import SecondsHeard, seconds_heard
from genreflow.core.documents import CorpusDocument, Document, Frozen, PackagedDocument, SplitDocument
from genreflow.core.errors import GenreflowError, SettingsError, one_line
from genreflow.core.progress import report
from genreflow.corpus.splitting import open_corpus
from genreflow.corpus.store import Corpus
from genreflow.evaluation import metrics, uncertainty
from genreflow.evaluation.artifact import rows_to_evaluate
from genreflow.evaluation.document import PREDICTIONS, EvaluationDocument, Interval
from genreflow.evaluation.predictions import predict, probability_columns
from genreflow.inference.backends import FALLBACK, backend
from genreflow.inference.classifier import Classifier
from genreflow.inference.loading import load_checked_classifier
from genreflow.inference.package_files import MODEL_FOLDER, ONNX_FOLDER, OPENVINO_FOLDER, OPENVINO_INT8
from genreflow.inference.processor import processor

PACKAGED, EVALUATION = "packaged", "evaluation"
TRAIN, VALIDATION, TEST, OUT_OF_FOLD = "train", "validation", "test", "out of fold"
TRAIN_CLIPS = 200
"""Training clips that are predicted at most, spread over all: they only show how far a model overfits."""
LATENCY_CLIP_SECONDS = 30.0
LATENCY_REPEATS = 7
LATENCY_BUDGET_SECONDS = 20.0
"""No more time than this goes into the latency of one model."""


class Score(Frozen):
    """Accuracy over clips."""

    clips: int
    accuracy: float
    accuracy_ci95: Interval
    """Wilson interval; clips with the same recording count once in its width."""
    nll: float
    """Mean negative log-likelihood of the true genre, in nats."""

    @classmethod
    def of(cls, predictions: pd.DataFrame, genres: Sequence[str]) -> "Score | None":
        """Of the clip rows of a table of predictions; None where there are none."""
        clips = predictions[predictions["level"] == "clip"]
        if clips.empty:
            return None
        truth = clips["genre"].map({genre: label for label, genre in enumerate(genres)}).to_numpy(np.int64)
        right = (clips["genre"] == clips["predicted"]).to_numpy()
        return cls(
            clips=len(clips),
            accuracy=float(right.mean()),
            accuracy_ci95=uncertainty.accuracy_interval(right, clips["near_duplicate_cluster"].tolist()),
            nll=float(metrics.losses(truth, clips[probability_columns(genres)].to_numpy(float)).mean()),
        )


class CandidateDocument(Document):
    """What a candidate of a comparison is."""

    file_name: ClassVar[str] = "candidate.json"
    name: str
    """Of the candidate: the family's, with its backbone where a family appears twice."""
    family: str
    run_id: str | None
    """The MLflow run that trained it."""
    train: Score | None
    """Over at most `TRAIN_CLIPS` of them."""
    validation: Score | None
    out_of_fold: Score | None
    """Over the clips outside the test split, each predicted by a model of other folds; None without."""
    folds: int
    """0 without."""
    folds_leak_reason: str | None = None
    """Why the figures over folds are optimistic; None where they do not."""
    training_seconds: float
    """Of the fit on the standard split, without extraction."""
    parameters: int | None
    """Numbers in the native weights, a frozen backbone's included; None where they are not safetensors."""
    served_bytes: int
    """Of the files that the declared runtime loads."""
    latency_30s_ms: float
    """Median milliseconds from 30 s of decoded audio to the predicted genre, with the declared runtime."""
    seconds_heard: tuple[SecondsHeard, ...]
    """Accuracy on the test split against the seconds of audio that a prediction is made from."""
    processor: str
    """On which latency and training time were measured."""
    code_version: str

    @property
    def real_time_factor(self) -> float:
        """Seconds of computing for a second of audio."""
        return self.latency_30s_ms / 1000 / LATENCY_CLIP_SECONDS


@dataclass(frozen=True)
class Candidate:
    """A candidate's artifact, opened."""

    folder: Path
    document: CandidateDocument
    packaged: PackagedDocument
    evaluation: EvaluationDocument
    test: pd.DataFrame
    """Predictions of the test split's clips and windows."""
    others: pd.DataFrame
    """`predictions.parquet`."""
    corpus: CorpusDocument
    split: SplitDocument

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a candidate's folder.

        Raises:
            GenreflowError: it is not one, or cannot be read.
        """
        document = CandidateDocument.read(folder)
        try:
            test = pd.read_parquet(folder / EVALUATION / PREDICTIONS)
            others = pd.read_parquet(folder / PREDICTIONS)
        except (OSError, ValueError) as error:
            raise GenreflowError(
                f"The predictions of {folder} cannot be read: {one_line(error)}. Train it again."
            ) from error
        return cls(
            folder,
            document,
            PackagedDocument.read(folder / PACKAGED),
            EvaluationDocument.read(folder / EVALUATION),
            test,
            others,
            CorpusDocument.read(folder),
            SplitDocument.read(folder),
        )

    @property
    def name(self) -> str:
        return self.document.name

    def clips(self, of: str) -> pd.DataFrame:
        """Clip rows of `predictions.parquet` that are of `of` (`train`, `validation`, `out of fold`)."""
        rows = self.others
        return rows[(rows["of"] == of) & (rows["level"] == "clip")].reset_index(drop=True)


def check_choosable(split: SplitDocument, folds: int) -> None:
    """Nothing where a candidate can be chosen, and shown on a test split, without using that test split.

    Raises:
        SettingsError: there are no clips to choose by, or none to test on.
    """
    where = f"The protocol {split.protocol} leaves"
    if not split.counts["test"]:
        raise SettingsError(
            f"{where} no test clips of these, and a leaderboard needs some: choose another protocol "
            "(--protocol grouped) or add clips."
        )
    if not split.counts["validation"] and not folds:
        raise SettingsError(
            f"{where} no validation clips of these, and a model is never chosen by its test clips: add "
            "--folds 3, which chooses by predictions of held-out folds, or choose another protocol."
        )


def describe(
    name: str,
    out: Path,
    corpus: Path,
    split: Path,
    run_id: str | None,
    held_out: pd.DataFrame | None,
    folds: int,
    folds_leak_reason: str | None,
    step: str,
) -> CandidateDocument:
    """Predict the training and validation clips with the packaged model of `out`, measure it, and write both.

    Args:
        out: the candidate's folder, with `packaged/` and `evaluation/` in it.
        held_out: predictions of held-out clips; None without folds.
        step: under whose name progress is reported.
    """
    packaged = PackagedDocument.read(out / PACKAGED)
    opened = open_corpus(corpus, split)
    classifier = load_checked_classifier(out / PACKAGED)
    genres = packaged.model.genres
    parts = {}
    for of in (TRAIN, VALIDATION):
        report(step, f"predicting the {of} clips")
        rows = opened.rows(of, TRAIN_CLIPS if of == TRAIN else None)
        parts[of] = predict(classifier, opened, rows, step)
    if held_out is not None:
        parts[OUT_OF_FOLD] = held_out
    scores = {of: Score.of(table, genres) for of, table in parts.items()}
    table = pd.concat([rows.assign(of=of) for of, rows in parts.items()], ignore_index=True)
    table.to_parquet(out / PREDICTIONS, index=False)
    report(step, "measuring the latency of 30 s of audio")
    document = CandidateDocument(
        name=name,
        family=packaged.model.family,
        run_id=run_id,
        train=scores[TRAIN],
        validation=scores[VALIDATION],
        out_of_fold=scores.get(OUT_OF_FOLD),
        folds=folds,
        folds_leak_reason=folds_leak_reason,
        training_seconds=float(packaged.model.training["seconds"]),
        parameters=parameters(out / PACKAGED / MODEL_FOLDER),
        served_bytes=served_bytes(out / PACKAGED, packaged),
        latency_30s_ms=latency_30s(classifier, opened),
        seconds_heard=_seconds_heard(out, packaged, opened),
        processor=processor(),
        code_version=packaged.code_version,
    )
    document.write(out)
    opened.document.write(out)
    opened.split.write(out)
    return document


def _seconds_heard(out: Path, packaged: PackagedDocument, corpus: Corpus) -> tuple[SecondsHeard, ...]:
    test = pd.read_parquet(out / EVALUATION / PREDICTIONS)
    seconds = corpus.manifest.set_index("clip_id")["seconds"].to_dict()
    window = packaged.model.input_spec.window_seconds
    return seconds_heard(test, packaged.model.genres, window, seconds)


def parameters(folder: Path) -> int | None:
    """Floating-point numbers in the safetensors files of a folder; None where it has none."""
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        return None
    return sum(_numbers(file) for file in files)


def _numbers(file: Path) -> int:
    """Of the header of a safetensors file: its length as 64 bits, then JSON."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header: Mapping[str, Any] = json.loads(opened.read(length))
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    return sum(int(np.prod(entry["shape"])) for entry in tensors if entry["dtype"][0] in "FB")


def served_bytes(folder: Path, document: PackagedDocument) -> int:
    """Bytes of the files that a packaged model's declared runtime loads."""
    served = document.served
    native = backend(served.runtime).reads_native_files
    exported = OPENVINO_FOLDER if served.runtime == FALLBACK else ONNX_FOLDER
    inside = MODEL_FOLDER if native else exported
    names = [name for name in document.files if name.startswith(f"{inside}/")]
    if inside == OPENVINO_FOLDER:
        # weights in int8 lie beside those of the other precisions
        int8 = Path(OPENVINO_INT8).stem
        names = [name for name in names if (Path(name).stem == int8) is (served.precision == "int8")]
    return sum((folder / name).stat().st_size for name in names)


def latency_30s(classifier: Classifier, corpus: Corpus) -> float:
    """Median milliseconds from 30 s of samples to a prediction: resampling, representation, model, mean.

    The samples are a test clip's, repeated or cut.
    """
    row = rows_to_evaluate(corpus, classifier.document)[0]
    rate = corpus.sample_rate(row)
    samples = np.resize(corpus.samples(row), round(LATENCY_CLIP_SECONDS * rate))
    began = time.perf_counter()
    classifier.classify_samples(samples, rate)
    times: list[float] = []
    while len(times) < LATENCY_REPEATS and (
        not times or time.perf_counter() - began < LATENCY_BUDGET_SECONDS
    ):
        start = time.perf_counter()
        classifier.classify_samples(samples, rate)
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times))
