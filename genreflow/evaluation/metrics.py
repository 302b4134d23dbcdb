"""The metrics, scikit-learn's where it has them, with None for what is undefined.

Truth and answers are label ids (n,), probabilities (n, genres). Undefined figures are None, never a zero.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support, roc_auc_score

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


def macro_f1(truth: Labels, answers: Labels) -> float:
    """Mean F1 over the genres that are present or predicted."""
    return float(f1_score(truth, answers, average="macro", zero_division=0))


def macro_f1_of(confusions: NDArray[Any]) -> NDArray[np.float64]:
    """`macro_f1` of (…, genres, genres) confusions → (…), of all resampled ones of a bootstrap at once."""
    hits = np.diagonal(confusions, axis1=-2, axis2=-1).astype(np.float64)
    involved = confusions.sum(-1) + confusions.sum(-2)
    f1 = np.divide(2 * hits, involved, out=np.zeros_like(hits), where=involved > 0)
    result: NDArray[np.float64] = f1.sum(-1) / np.maximum((involved > 0).sum(-1), 1)
    return result


def auc(positive: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> float | None:
    """Area under the ROC curve; None without both classes."""
    return float(roc_auc_score(positive, scores)) if 0 < positive.sum() < len(positive) else None


def macro_auc(truth: Labels, probabilities: Probabilities) -> float | None:
    """Mean one-against-the-rest AUC over the genres where it is defined; None where it is for none."""
    areas = [auc(truth == label, probabilities[:, label]) for label in range(probabilities.shape[1])]
    defined = [area for area in areas if area is not None]
    return float(np.mean(defined)) if defined else None


def per_genre(truth: Labels, probabilities: Probabilities, genres: Sequence[str]) -> dict[str, GenreScores]:
    """Precision, recall with its interval, F1 and one-against-the-rest AUC of every genre."""
    answers = probabilities.argmax(1)
    labels = np.arange(len(genres))
    predicted = np.bincount(answers, minlength=len(genres))
    figures = precision_recall_fscore_support(truth, answers, labels=labels, zero_division=np.nan)
    scores = {}
    for label, (precision, recall, f1, support) in enumerate(zip(*figures, strict=True)):
        hits = int(((truth == label) & (answers == label)).sum())
        scores[genres[label]] = GenreScores(
            support=int(support),
            predicted=int(predicted[label]),
            precision=_defined(precision),
            recall=_defined(recall),
            recall_ci95=wilson(hits, support) if support else None,
            f1=_defined(f1),
            auc=auc(truth == label, probabilities[:, label]),
        )
    return scores


def _defined(figure: float) -> float | None:
    return None if np.isnan(figure) else float(figure)


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
    matrix = confusion_matrix(truth, answers, labels=np.arange(len(genres)))
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
    """Mean over clips of the squared error summed over genres (Brier 1950), 0 to 2.

    scikit-learn's `brier_score_loss` warns of, and refuses, float32 probabilities for their rounding: sums
    that are not quite 1, and single ones above it.
    """
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
