"""Robustness: a model's accuracy on distorted copies of clips, against the clips as they are."""

import zlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from genreflow.audio.distortions import DISTORTIONS, Distortion
from genreflow.core.digests import code_version
from genreflow.core.documents import Document, Frozen
from genreflow.core.errors import CorpusError, GenreflowError
from genreflow.core.progress import track
from genreflow.corpus.store import Corpus
from genreflow.evaluation import figures, uncertainty
from genreflow.evaluation.document import Interval
from genreflow.inference.classifier import Classifier

STEP = "evaluate"
SEED = 20020715
CLEAN = "undistorted"
MOST_CLIPS = 100
"""A clip is predicted some twenty times: of larger test sets so many are drawn."""


class Condition(Frozen):
    """Scores under one distortion."""

    name: str
    kind: str
    accuracy: float
    accuracy_ci95: Interval
    """Wilson interval; clips with the same recording count once in its width."""
    change: float
    """Accuracy less that on the clips as they are; of the same clips."""
    change_ci95: Interval
    """Paired (Newcombe 1998, method 10); clips with the same recording count once in its width."""
    equal_decisions: float
    """Share of clips with the same predicted genre as without distortion."""
    mean_confidence: float


class RobustnessDocument(Document):
    """A model's accuracy under distortions of the same clips."""

    file_name: ClassVar[str] = "robustness.json"
    source: str
    family: str
    pretrained: str | None
    clips: int
    of_clips: int
    """From how many they were drawn, in the proportions of their genres; as many where all were taken."""
    leaky: bool
    """Whether the clips are of a split whose figures are optimistic."""
    seed: int
    """Of the draw and of the noise."""
    clean: Condition
    """The clips as they are."""
    conditions: tuple[Condition, ...]
    runtime: str
    precision: str
    code_version: str


def robustness(
    classifier: Classifier,
    corpus: Corpus,
    rows: Sequence[int],
    leaky: bool = False,
    seed: int = SEED,
    most: int = MOST_CLIPS,
    distortions: Sequence[Distortion] | None = None,
) -> RobustnessDocument:
    """Predict clips of a corpus as they are and under every distortion.

    The noise of a clip depends on the seed, the distortion and the clip's id alone, not on the other clips.

    Args:
        rows: of the corpus, at least one: clips that the model was not trained on.
        leaky: whether these are test clips of a split whose figures are optimistic.
        most: of more clips so many are drawn, in the proportions of their genres.
        distortions: all of `DISTORTIONS` where None.

    Raises:
        CorpusError: there are no clips.
        AudioError: a clip cannot be encoded as an mp3 here.
        GenreflowError: the model predicted something that is not a number.
    """
    if not rows:
        raise CorpusError(f"There are no clips of {corpus.document.source} to distort.")
    distortions = DISTORTIONS if distortions is None else distortions
    given, rows = len(rows), _drawn(corpus, rows, most, seed)
    names = [CLEAN, *(each.name for each in distortions)]
    probabilities = np.empty((len(names), len(rows), len(classifier.document.genres)))
    for place, row in enumerate(track(STEP, rows, len(rows), "clips predicted under distortions")):
        samples, rate = corpus.samples(row), corpus.sample_rate(row)
        clip_id = str(corpus.manifest["clip_id"].iloc[row])
        probabilities[0, place] = _clip_probabilities(classifier, samples, rate, clip_id)
        for number, distortion in enumerate(distortions, start=1):
            drawn_from = [seed, zlib.crc32(distortion.name.encode()), zlib.crc32(clip_id.encode())]
            distorted = distortion.apply(samples, rate, np.random.default_rng(drawn_from))
            probabilities[number, place] = _clip_probabilities(classifier, distorted, rate, clip_id)
    manifest = corpus.manifest.iloc[list(rows)]
    label = {genre: index for index, genre in enumerate(classifier.document.genres)}
    truth = manifest["genre"].map(label).to_numpy(np.int64)
    clusters = manifest["near_duplicate_cluster"].tolist()
    kinds = ["clean", *(each.kind for each in distortions)]
    scored = [
        _condition(name, kind, truth, clusters, probabilities[0], found)
        for name, kind, found in zip(names, kinds, probabilities, strict=True)
    ]
    return RobustnessDocument(
        source=corpus.document.source,
        family=classifier.document.family,
        pretrained=classifier.document.pretrained,
        clips=len(rows),
        of_clips=given,
        leaky=leaky,
        seed=seed,
        clean=scored[0],
        conditions=tuple(scored[1:]),
        runtime=classifier.runtime,
        precision=classifier.precision,
        code_version=code_version(),
    )


def _drawn(corpus: Corpus, rows: Sequence[int], most: int, seed: int) -> list[int]:
    """At most so many of the rows, in order, each genre in proportion."""
    if len(rows) <= most:
        return list(rows)
    chance = np.random.default_rng(seed).permutation(len(rows))
    genres = corpus.manifest["genre"].iloc[list(rows)].to_numpy(str)
    by_genre = np.lexsort((chance, genres))
    places = by_genre[np.linspace(0, len(rows) - 1, most).round().astype(int)]
    return sorted(rows[place] for place in places.tolist())


def _clip_probabilities(
    classifier: Classifier, samples: NDArray[np.float32], rate: int, clip_id: str
) -> NDArray[np.float32]:
    """(genres,): the mean over the clip's windows."""
    logits, _ = classifier.window_logits(samples, rate)
    if not np.isfinite(logits).all():
        raise GenreflowError(
            f"The model predicts values for {clip_id} that are no numbers: its training diverged or its "
            "files are damaged. Train it again with a lower learning rate."
        )
    mean: NDArray[np.float32] = classifier.probabilities(logits).mean(axis=0)
    return mean


def _condition(
    name: str,
    kind: str,
    truth: NDArray[np.int64],
    clusters: Sequence[str],
    clean: NDArray[np.float64],
    found: NDArray[np.float64],
) -> Condition:
    """Scores of probabilities (clips, genres), beside those of the clips as they are."""
    before, after = clean.argmax(axis=1), found.argmax(axis=1)
    right_before, right = before == truth, after == truth
    change_ci95 = uncertainty.paired_interval(
        right.astype(float), right_before.astype(float), 0.95, len(set(clusters))
    )
    return Condition(
        name=name,
        kind=kind,
        accuracy=float(right.mean()),
        accuracy_ci95=uncertainty.accuracy_interval(right, clusters),
        change=float(right.mean() - right_before.mean()),
        change_ci95=change_ci95,
        equal_decisions=float((before == after).mean()),
        mean_confidence=float(found.max(axis=1).mean()),
    )


def figure(found: RobustnessDocument) -> Figure:
    """Accuracy with its 95 % interval and mean confidence under every distortion, the clean clips on top."""
    rows = [found.clean, *found.conditions]
    return figures.accuracy_by_condition(
        names=[each.name for each in rows],
        groups=[each.kind for each in rows],
        accuracies=[each.accuracy for each in rows],
        intervals=[each.accuracy_ci95 for each in rows],
        confidences=[each.mean_confidence for each in rows],
    )
