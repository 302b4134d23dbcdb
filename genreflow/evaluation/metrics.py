"""The metrics: plain functions over labels and probabilities, the headline ones as `evaluate.Metric`, too.

Truth and answers are label ids (n,), probabilities (n, genres). Undefined figures are None, never a zero.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from genreflow.evaluation.document import Calibration, ConfusedPair, GenreScores, ReliabilityBin
from genreflow.evaluation.uncertainty import wilson

CALIBRATION_BINS = 15
"""Equal-width, as in Guo et al., On Calibration of Modern Neural Networks (2017)."""
SMALLEST_PROBABILITY = 1e-12
"""Floor under the logarithm, so that one impossible clip does not make the likelihood infinite."""
PAIRS = 8
EXAMPLES = 5

Labels = NDArray[np.int64]
Probabilities = NDArray[np.floating[Any]]


def accuracy(truth: Labels, answers: Labels) -> float:
    """Share of right answers."""
    return float(np.mean(np.asarray(truth) == np.asarray(answers)))


def confusion(truth: Labels, answers: Labels, genres: int) -> NDArray[np.int64]:
    """(genres, genres) counts, rows true, columns answered."""
    matrix = np.zeros((genres, genres), np.int64)
    np.add.at(matrix, (np.asarray(truth, np.int64), np.asarray(answers, np.int64)), 1)
    return matrix


def macro_f1_of(confusions: NDArray[Any]) -> NDArray[np.float64]:
    """Macro F1 of (…, genres, genres) confusions → (…): the mean over genres that are present or answered."""
    hits = np.diagonal(confusions, axis1=-2, axis2=-1).astype(np.float64)
    involved = confusions.sum(-1) + confusions.sum(-2)
    f1 = np.divide(2 * hits, involved, out=np.zeros_like(hits), where=involved > 0)
    result: NDArray[np.float64] = f1.sum(-1) / np.maximum((involved > 0).sum(-1), 1)
    return result


def macro_f1(truth: Labels, answers: Labels, genres: int) -> float:
    """Mean F1 over the genres that are present or answered: scikit-learn's `f1_score(average="macro")`."""
    return float(macro_f1_of(confusion(truth, answers, genres)))


def auc(positive: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> float | None:
    """Area under the ROC curve by ranks (Mann and Whitney), ties counting half; None without both classes."""
    positives = int(np.sum(positive))
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def per_genre(truth: Labels, probabilities: Probabilities, genres: Sequence[str]) -> dict[str, GenreScores]:
    """Precision, recall with its interval, F1 and one-against-the-rest AUC of every genre."""
    answers = probabilities.argmax(1)
    scores = {}
    for label, genre in enumerate(genres):
        present, answered = truth == label, answers == label
        support, predicted, hits = int(present.sum()), int(answered.sum()), int((present & answered).sum())
        scores[genre] = GenreScores(
            support=support,
            predicted=predicted,
            precision=hits / predicted if predicted else None,
            recall=hits / support if support else None,
            recall_ci95=wilson(hits, support) if support else None,
            f1=2 * hits / (support + predicted) if support + predicted else None,
            auc=auc(present, probabilities[:, label]),
        )
    return scores


def most_confused(
    truth: Labels,
    probabilities: Probabilities,
    genres: Sequence[str],
    clip_ids: Sequence[str],
    pairs: int = PAIRS,
    examples: int = EXAMPLES,
) -> tuple[ConfusedPair, ...]:
    """The pairs of genres most often confused, most clips first, with the surest mistakes as examples."""
    answers = probabilities.argmax(1)
    matrix = confusion(truth, answers, len(genres))
    np.fill_diagonal(matrix, 0)
    ranking = sorted(zip(*np.nonzero(matrix), strict=True), key=lambda pair: (-matrix[pair], pair))
    found = []
    for genre, answer in ranking[:pairs]:
        clips = np.flatnonzero((truth == genre) & (answers == answer))
        clips = clips[np.argsort(-probabilities[clips, answer], kind="stable")]
        found.append(
            ConfusedPair(
                genre=genres[genre],
                predicted=genres[answer],
                count=len(clips),
                share=len(clips) / int((truth == genre).sum()),
                examples=tuple(clip_ids[clip] for clip in clips[:examples]),
            )
        )
    return tuple(found)


def brier(truth: Labels, probabilities: Probabilities) -> float:
    """Mean over clips of the squared error summed over genres (Brier 1950), 0 to 2."""
    return float(np.mean(np.sum((probabilities - np.eye(probabilities.shape[1])[truth]) ** 2, axis=1)))


def losses(truth: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """(n,) negative log-likelihood of the true genre, in nats."""
    true = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return -np.log(np.maximum(true, SMALLEST_PROBABILITY))


def reliability(
    truth: Labels, probabilities: Probabilities, bins: int = CALIBRATION_BINS
) -> tuple[ReliabilityBin, ...]:
    """Confidence against accuracy in equal-width bins of the top probability, open below, closed above."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == truth
    edges = np.linspace(0, 1, bins + 1)
    # A probability a rounding above 1 belongs into the last bin, 0 into the first.
    member = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    found = []
    for index in range(bins):
        inside = member == index
        count = int(inside.sum())
        found.append(
            ReliabilityBin(
                lower=float(edges[index]),
                upper=float(edges[index + 1]),
                count=count,
                confidence=float(confidence[inside].mean()) if count else None,
                accuracy=float(right[inside].mean()) if count else None,
            )
        )
    return tuple(found)


def calibration(truth: Labels, probabilities: Probabilities, bins: int = CALIBRATION_BINS) -> Calibration:
    """Expected calibration error over equal-width bins, Brier score, likelihood, and the bins themselves."""
    found = reliability(truth, probabilities, bins)
    gaps = sum(
        entry.count * abs(entry.accuracy - entry.confidence)
        for entry in found
        if entry.accuracy is not None and entry.confidence is not None
    )
    return Calibration(
        ece=gaps / len(truth),
        brier=brier(truth, probabilities),
        nll=float(losses(truth, probabilities).mean()),
        mean_confidence=float(probabilities.max(1).mean()),
        bins=found,
    )


class _Metric(evaluate.Metric):
    """An `evaluate.Metric` that lives here: no hub, no download, nothing written to a cache folder."""

    description = ""
    of_probabilities = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"keep_in_memory": True, **options})

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("int64")
        answer = datasets.List(datasets.Value("float64")) if self.of_probabilities else label
        taken = "probabilities (n, genres)" if self.of_probabilities else "label ids (n,)"
        return evaluate.MetricInfo(
            description=self.description,
            citation="",
            inputs_description=f"predictions: {taken}; references: label ids (n,)",
            features=datasets.Features({"predictions": answer, "references": label}),
        )


class Accuracy(_Metric):
    """`evaluate.Metric`: share of right answers."""

    description = "Share of right answers."

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"accuracy": accuracy(np.asarray(references), np.asarray(predictions))}


class MacroF1(_Metric):
    """`evaluate.Metric`: mean F1 over the genres that are present or answered."""

    description = "Mean F1 over the genres that are present or answered."

    def _compute(
        self, predictions: Sequence[int], references: Sequence[int], genres: int | None = None
    ) -> dict[str, float]:
        truth, answers = np.asarray(references), np.asarray(predictions)
        labels = genres or int(max(truth.max(), answers.max())) + 1
        return {"macro_f1": macro_f1(truth, answers, labels)}


class MacroAuc(_Metric):
    """`evaluate.Metric`: mean one-against-the-rest AUC over the genres where it is defined, else None."""

    description = "Mean one-against-the-rest area under the ROC curve over the genres where it is defined."
    of_probabilities = True

    def _compute(
        self, predictions: Sequence[Sequence[float]], references: Sequence[int]
    ) -> dict[str, float | None]:
        probabilities, truth = np.asarray(predictions), np.asarray(references)
        areas = [auc(truth == label, probabilities[:, label]) for label in range(probabilities.shape[1])]
        defined = [area for area in areas if area is not None]
        return {"macro_auc": float(np.mean(defined)) if defined else None}
