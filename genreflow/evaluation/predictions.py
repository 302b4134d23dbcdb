"""A classifier's predictions for clips, per window and per clip, as one table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genreflow.core.errors import GenreflowError
from genreflow.core.progress import track
from genreflow.corpus.duplicates import seen_in_training
from genreflow.corpus.store import Corpus
from genreflow.features import iter_window_batches
from genreflow.inference.answers import majority
from genreflow.inference.classifier import Classifier

CLIP_WINDOW = -1
"""`window` of a row that stands for the whole clip."""


def probability_columns(genres: Sequence[str]) -> list[str]:
    """The columns of the genres' probabilities, in label order."""
    return [f"p_{genre}" for genre in genres]


def predict(
    classifier: Classifier, corpus: Corpus, rows: Sequence[int], step: str = "evaluate"
) -> pd.DataFrame:
    """Predict the genre of clips of a corpus, one at a time.

    Args:
        rows: row numbers in the corpus' manifest.

    Returns:
        One row a window and, after a clip's windows, one a clip: `level` ("window", "clip"), `clip_id`,
        `sha256`, `duplicate_cluster`, `near_duplicate_cluster`, `genre`, `seen` (whether the model was
        trained or selected on the clip, or on an exact or near duplicate of it), `window` (-1 for the clip),
        `start_seconds`, `predicted` (of a clip: the genre with the highest mean window probability), `vote`
        (of a clip: the genre predicted for most windows), `p_<genre>` (after temperature).

    Raises:
        GenreflowError: the model predicted something that is not a number.
    """
    return predict_with_each([classifier], corpus, rows, step)[0]


def predict_with_each(
    classifiers: Sequence[Classifier], corpus: Corpus, rows: Sequence[int], step: str = "evaluate"
) -> list[pd.DataFrame]:
    """`predict` with several runtimes or precisions of one model, whose inputs are computed once.

    Args:
        classifiers: with equal documents.
    """
    spec = classifiers[0].document.input_spec
    logits: list[list[NDArray[np.float32]]] = [[] for _ in classifiers]
    starts: list[NDArray[np.float64]] = []
    for row in track(step, rows, len(rows), "clips predicted"):
        batches = list(iter_window_batches(spec, corpus.samples(row), corpus.sample_rate(row), None))
        starts.append(np.concatenate([begins for _, begins in batches]))
        for classifier, found in zip(classifiers, logits, strict=True):
            found.append(np.concatenate([classifier.logits(inputs) for inputs, _ in batches]))
    return [
        _table(classifier, corpus, rows, found, starts)
        for classifier, found in zip(classifiers, logits, strict=True)
    ]


def _table(
    classifier: Classifier,
    corpus: Corpus,
    rows: Sequence[int],
    logits: Sequence[NDArray[np.float32]],
    starts: Sequence[NDArray[np.float64]],
) -> pd.DataFrame:
    """`predict`'s table of the clips' window logits (windows, genres) and window starts (windows,)."""
    genres = classifier.document.genres
    identity = ["clip_id", "sha256", "duplicate_cluster", "near_duplicate_cluster", "genre", "seen"]
    learned = {**classifier.document.train_clips, **classifier.document.validation_clips}
    seen = seen_in_training(corpus.manifest, learned.keys(), learned.values())
    manifest = corpus.manifest.assign(seen=seen)[identity]
    probabilities: list[NDArray[np.float32]] = []
    facts: list[tuple[object, ...]] = []
    for row, of_windows, begins in zip(rows, logits, starts, strict=True):
        clip = tuple(manifest.iloc[row])
        if not np.isfinite(of_windows).all():
            raise GenreflowError(
                f"The model predicts values for {clip[0]} that are no numbers: its training diverged or its "
                "files are damaged. Train it again with a lower learning rate."
            )
        windows = classifier.probabilities(of_windows)
        mean = windows.mean(0, keepdims=True)
        probabilities += [windows, mean]
        for index, start in enumerate(begins):
            top = genres[int(windows[index].argmax())]
            facts.append(("window", *clip, index, float(start), top, None))
        facts.append(("clip", *clip, CLIP_WINDOW, 0.0, genres[int(mean.argmax())], genres[majority(windows)]))
    columns = ["level", *identity, "window", "start_seconds", "predicted", "vote"]
    table = pd.DataFrame(facts, columns=columns)
    chances = np.concatenate(probabilities) if probabilities else np.zeros((0, len(genres)))
    return pd.concat([table, pd.DataFrame(chances, columns=probability_columns(genres))], axis=1)
