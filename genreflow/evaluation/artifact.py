"""Makes the evaluation artifact: the packaged model, as it is served, on the audio of a corpus's test split.

Where every clip trained (the protocol `all`), those are predicted, and the document says that it is not
measured.
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from genreflow.core.digests import code_version, file_digest, text_digest
from genreflow.core.documents import CorpusDocument, ModelDocument, PackagedDocument, SplitDocument
from genreflow.core.errors import CorpusError
from genreflow.core.progress import report
from genreflow.corpus.splitting import open_corpus
from genreflow.corpus.store import Corpus
from genreflow.evaluation import figures, metrics, uncertainty
from genreflow.evaluation.document import (
    PREDICTIONS,
    Confusion,
    EvaluationDocument,
    FallbackScores,
    ModelIdentity,
)
from genreflow.evaluation.exploration import Exploration, explore
from genreflow.evaluation.predictions import predict_with_each, probability_columns
from genreflow.evaluation.report import write_report
from genreflow.evaluation.worst_clips import collect_worst_clips
from genreflow.inference.classifier import Classifier
from genreflow.inference.loading import fallback, load_checked_classifier, load_classifier
from genreflow.inference.package_files import MODEL_FOLDER
from genreflow.inference.processor import instruction_set

REPORT = "report.html"
PLOTS = "plots"


def evaluate(packaged: Path, corpus: Path, split: Path, out: Path) -> EvaluationDocument:
    """Predict every test clip with a packaged model, as it is served, and write the evaluation into `out`.

    Predicted is with the runtime and precision that the packaged model declares, and with the fallback beside
    it. `out` gets `evaluation.json`, `predictions.parquet`, `report.html` and `plots/*.png`.

    Raises:
        CorpusError: the split has no test clips, or clips of genres that the model does not know.
        ModelError: `packaged` is no packaged model, or cannot be loaded here.
    """
    packaged = Path(packaged)
    opened, document = open_corpus(corpus, split), PackagedDocument.read(packaged)
    # What cannot be evaluated is refused before the model is loaded.
    rows = rows_to_evaluate(opened, document.model)
    classifier, spare = load_checked_classifier(packaged), fallback(document)
    for note in classifier.notes:
        report("evaluate", note)
    beside = None
    if (classifier.runtime, classifier.precision) != (spare.runtime, spare.precision):
        beside = load_classifier(packaged, spare.runtime, spare.precision)  # type: ignore[arg-type]
    return evaluate_classifier(
        classifier, opened, rows, Path(out), weights_digest(packaged / MODEL_FOLDER), document.digest, beside
    )


def evaluate_classifier(
    classifier: Classifier,
    corpus: Corpus,
    rows: list[int],
    out: Path,
    digest: str,
    packaged_digest: str | None = None,
    beside: Classifier | None = None,
) -> EvaluationDocument:
    """`evaluate` for a classifier that is loaded already.

    Args:
        digest: of its weights.
        packaged_digest: of the packaged model.
        beside: the same model with the fallback's runtime and precision.
    """
    began = time.monotonic()
    classifiers = [classifier] if beside is None else [classifier, beside]
    predictions, *others = predict_with_each(classifiers, corpus, rows)
    seconds = time.monotonic() - began
    document = judge(predictions, classifier.document, corpus.document, corpus.split, digest, seconds)
    document = document.model_copy(
        update={
            "model": document.model.model_copy(update={"packaged_digest": packaged_digest}),
            "runtime": classifier.runtime,
            "precision": classifier.precision,
            "instruction_set": instruction_set(),
            "fallback": None if beside is None else _fallback_scores(beside, others[0], predictions),
        }
    )
    out.mkdir(parents=True, exist_ok=True)
    predictions.to_parquet(out / PREDICTIONS, index=False)
    report("evaluate", "predicting the worst clips in smaller steps")
    worst = collect_worst_clips(classifier, corpus, predictions)
    report("evaluate", "describing the corpus")
    explored = explore(corpus)
    report("evaluate", "writing the report")
    _write_plots(document, explored, out / PLOTS)
    write_report(document, classifier.document, corpus, explored, worst, out / REPORT)
    document.write(out)
    return document


def rows_to_evaluate(corpus: Corpus, model: ModelDocument) -> list[int]:
    """The rows of the test split; of all clips where every clip trained.

    Raises:
        CorpusError: there are none, or they are of genres that the model does not know.
    """
    rows = corpus.rows("train" if corpus.split.protocol == "all" else "test")
    if not rows:
        raise CorpusError(
            f"The corpus of {corpus.document.source} has no test clips under the protocol "
            f"{corpus.split.protocol!r}, so the model cannot be evaluated. Choose another protocol "
            "(--protocol grouped) or add clips."
        )
    unknown = sorted(set(corpus.manifest["genre"].iloc[rows]) - set(model.genres))
    if unknown:
        raise CorpusError(
            f"The corpus has clips of {', '.join(unknown)}, which the model does not know: its genres "
            f"are {', '.join(model.genres)}. Evaluate on the corpus that it was trained on."
        )
    return rows


def judge(
    predictions: pd.DataFrame,
    model: ModelDocument,
    corpus: CorpusDocument,
    split: SplitDocument,
    digest: str,
    seconds: float,
) -> EvaluationDocument:
    """All figures of a table of predictions (see `predictions.predict`)."""
    from genreflow.evaluation import headline

    genres = model.genres
    clips = predictions[predictions["level"] == "clip"]
    windows = predictions[predictions["level"] == "window"]
    label = {genre: index for index, genre in enumerate(genres)}
    truth = clips["genre"].map(label).to_numpy(np.int64)
    probabilities = clips[probability_columns(genres)].to_numpy(float)
    answers = clips["predicted"].map(label).to_numpy(np.int64)
    clusters = clips["near_duplicate_cluster"].tolist()
    matrix = confusion_matrix(truth, answers, labels=np.arange(len(genres)))
    return EvaluationDocument(
        accuracy=headline.Accuracy().compute(predictions=answers, references=truth)["accuracy"],
        accuracy_ci95=uncertainty.accuracy_interval(truth == answers, clusters),
        macro_f1=headline.MacroF1().compute(predictions=answers, references=truth)["macro_f1"],
        macro_f1_ci95=uncertainty.bootstrap_confusion(
            metrics.macro_f1_of, truth, answers, len(genres), clusters
        ),
        macro_auc=headline.MacroAuc().compute(predictions=probabilities, references=truth)["macro_auc"],
        vote_accuracy=float((clips["vote"] == clips["genre"]).mean()),
        window_accuracy=float((windows["predicted"] == windows["genre"]).mean()),
        per_genre=metrics.per_genre(truth, probabilities, genres),
        confusion=Confusion(genres=genres, matrix=tuple(tuple(row) for row in matrix.tolist())),
        most_confused=metrics.most_confused(truth, probabilities, genres, clips["clip_id"].tolist()),
        calibration=metrics.calibration(truth, probabilities),
        clips=len(clips),
        windows=len(windows),
        genres=genres,
        model=ModelIdentity(
            family=model.family,
            pretrained=model.pretrained,
            weights_digest=digest,
            features_fingerprint=model.features_fingerprint,
            corpus_fingerprint=model.corpus_fingerprint,
            code_version=model.code_version,
            run_id=model.run_id,
        ),
        corpus_fingerprint=corpus.fingerprint,
        source=corpus.source,
        split_fingerprint=split.fingerprint,
        protocol=split.protocol,
        fold=split.fold,
        leaky=split.leaky,
        leak_reason=split.leak_reason,
        seen_clips=int(clips["seen"].sum()),
        synthetic=corpus.synthetic,
        pretrained=model.pretrained,
        pretraining=model.pretraining,
        seconds=seconds,
        code_version=code_version(),
    )


def _fallback_scores(beside: Classifier, predictions: pd.DataFrame, declared: pd.DataFrame) -> FallbackScores:
    """Scores of the fallback's predictions beside those with the declared runtime and precision."""
    genres = beside.document.genres
    label = {genre: index for index, genre in enumerate(genres)}
    clips = predictions[predictions["level"] == "clip"]
    others = declared[declared["level"] == "clip"]["predicted"].to_numpy()
    truth = clips["genre"].map(label).to_numpy(np.int64)
    found = clips["predicted"].map(label).to_numpy(np.int64)
    return FallbackScores(
        runtime=beside.runtime,
        precision=beside.precision,
        accuracy=float(np.mean(truth == found)),
        accuracy_ci95=uncertainty.accuracy_interval(truth == found, clips["near_duplicate_cluster"].tolist()),
        macro_f1=metrics.macro_f1(truth, found),
        equal_decisions=float(np.mean(clips["predicted"].to_numpy() == others)),
    )


def weights_digest(model: Path) -> str:
    """sha256 over the names and bytes of a model folder's native files."""
    files = sorted(
        path for path in model.rglob("*") if path.is_file() and path.name != ModelDocument.file_name
    )
    return text_digest(f"{path.relative_to(model).as_posix()} {file_digest(path)}" for path in files)


def _write_plots(document: EvaluationDocument, explored: Exploration, folder: Path) -> None:
    figures.write_png(figures.confusion(document.confusion), folder / "confusion.png")
    figures.write_png(figures.calibration(document.calibration), folder / "calibration.png")
    figures.write_png(figures.per_genre(document.per_genre), folder / "per_genre.png")
    figures.write_png(figures.genres_overview(explored), folder / "genres_overview.png")
