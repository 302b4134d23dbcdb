"""Makes the evaluation artifact: the whole model on the audio of a corpus's test split.

Where every clip trained (the protocol `all`), the model hears those, and the document says that it is not
measured.
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd

from genreflow import runtime
from genreflow.artifacts import CorpusDocument, ModelDocument, code_version, file_digest, text_digest
from genreflow.corpus.store import Corpus
from genreflow.errors import CorpusError
from genreflow.evaluation import figures, metrics, uncertainty
from genreflow.evaluation.document import Confusion, EvaluationDocument, ModelIdentity
from genreflow.evaluation.exploration import Exploration, explore
from genreflow.evaluation.predictions import predict, probability_columns
from genreflow.evaluation.report import write_report
from genreflow.evaluation.worst import listen_to_worst
from genreflow.progress import report
from genreflow.runtime import Classifier

PREDICTIONS = "predictions.parquet"
REPORT = "report.html"
PLOTS = "plots"


def evaluate(corpus: Path, model: Path, out: Path) -> EvaluationDocument:
    """Have a trained model hear every test clip, and write what came of it into `out`.

    `out` gets `evaluation.json`, `predictions.parquet`, `report.html` and `plots/*.png`.

    Raises:
        CorpusError: the split has no test clips, or clips of genres that the model does not know.
        ModelError: `model` is no trained model.
    """
    opened = Corpus.open(Path(corpus))
    # What cannot be evaluated is refused before the model is loaded.
    rows = rows_to_evaluate(opened, ModelDocument.read(Path(model)))
    classifier = runtime.load(Path(model), runtime="pytorch", precision="f32")
    return evaluate_classifier(classifier, opened, rows, Path(out), weights_digest(Path(model)))


def evaluate_classifier(
    classifier: Classifier, corpus: Corpus, rows: list[int], out: Path, digest: str
) -> EvaluationDocument:
    """`evaluate` for a classifier that is loaded already; `digest` is that of its weights."""
    began = time.monotonic()
    predictions = predict(classifier, corpus, rows)
    seconds = time.monotonic() - began
    document = judge(predictions, classifier.document, corpus.document, digest, seconds)
    out.mkdir(parents=True, exist_ok=True)
    predictions.to_parquet(out / PREDICTIONS, index=False)
    report("evaluate", "listening closely to the worst clips")
    worst = listen_to_worst(classifier, corpus, predictions)
    report("evaluate", "looking at the corpus")
    explored = explore(corpus)
    report("evaluate", "writing the report")
    _write_plots(document, explored, out / PLOTS)
    write_report(document, classifier.document, corpus.document, explored, worst, out / REPORT)
    document.write(out)
    return document


def rows_to_evaluate(corpus: Corpus, model: ModelDocument) -> list[int]:
    """The rows of the test split; of all clips where every clip trained.

    Raises:
        CorpusError: there are none, or they are of genres that the model does not know.
    """
    rows = corpus.rows("train" if corpus.document.protocol == "all" else "test")
    if not rows:
        raise CorpusError(
            f"The corpus of {corpus.document.source} has no test clips under the protocol "
            f"{corpus.document.protocol!r}, so nothing can be said of the model. Choose another protocol "
            "(--protocol grouped) or add clips."
        )
    unknown = sorted(set(corpus.manifest["genre"].iloc[rows]) - set(model.genres))
    if unknown:
        raise CorpusError(
            f"The corpus has clips of {', '.join(unknown)}, which the model does not know: it tells "
            f"{', '.join(model.genres)} apart. Evaluate on the corpus that it was trained on."
        )
    return rows


def judge(
    predictions: pd.DataFrame, model: ModelDocument, corpus: CorpusDocument, digest: str, seconds: float
) -> EvaluationDocument:
    """All figures of a table of predictions (see `predictions.predict`)."""
    genres = model.genres
    clips = predictions[predictions["level"] == "clip"]
    windows = predictions[predictions["level"] == "window"]
    label = {genre: index for index, genre in enumerate(genres)}
    truth = clips["genre"].map(label).to_numpy(np.int64)
    probabilities = clips[probability_columns(genres)].to_numpy(float)
    answers = clips["predicted"].map(label).to_numpy(np.int64)
    clusters = clips["near_duplicate_cluster"].tolist()
    matrix = metrics.confusion(truth, answers, len(genres))
    return EvaluationDocument(
        accuracy=metrics.Accuracy().compute(predictions=answers, references=truth)["accuracy"],
        accuracy_ci95=uncertainty.accuracy_interval(truth == answers, clusters),
        macro_f1=metrics.MacroF1().compute(predictions=answers, references=truth, genres=len(genres))[
            "macro_f1"
        ],
        macro_f1_ci95=uncertainty.bootstrap_confusion(
            metrics.macro_f1_of, truth, answers, len(genres), clusters
        ),
        macro_auc=metrics.MacroAuc().compute(predictions=probabilities, references=truth)["macro_auc"],
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
        protocol=corpus.protocol,
        fold=corpus.fold,
        leaky=corpus.leaky,
        leak_reason=corpus.leak_reason,
        seen_clips=int(clips["seen"].sum()),
        synthetic=corpus.synthetic,
        pretrained=model.pretrained,
        seconds=seconds,
        code_version=code_version(),
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
