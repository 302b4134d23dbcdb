"""A classifier's answers to clips, per window and per clip, as one table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genreflow.corpus.duplicates import heard
from genreflow.corpus.store import Corpus
from genreflow.errors import GenreflowError
from genreflow.progress import track
from genreflow.runtime import Classifier, majority

CLIP_WINDOW = -1
"""`window` of a row that stands for the whole clip."""


def probability_columns(genres: Sequence[str]) -> list[str]:
    """The columns of the genres' probabilities, in label order."""
    return [f"p_{genre}" for genre in genres]


def predict(
    classifier: Classifier, corpus: Corpus, rows: Sequence[int], step: str = "evaluate"
) -> pd.DataFrame:
    """Listen to clips of a corpus, one at a time, and tell what was answered.

    Args:
        rows: row numbers in the corpus' manifest.

    Returns:
        One row a window and, after a clip's windows, one a clip: `level` ("window", "clip"), `clip_id`,
        `sha256`, `duplicate_cluster`, `near_duplicate_cluster`, `genre`, `seen` (whether the model was
        trained or selected on the clip, or on an exact or near duplicate of it), `window` (-1 for the clip),
        `start_seconds`, `predicted` (of a clip: the genre with the highest mean window probability), `vote`
        (of a clip: the genre most windows answer), `p_<genre>` (after temperature).

    Raises:
        GenreflowError: the model answered something that is not a number.
    """
    genres = classifier.document.genres
    told = ["clip_id", "sha256", "duplicate_cluster", "near_duplicate_cluster", "genre", "seen"]
    learned = {**classifier.document.train_clips, **classifier.document.validation_clips}
    seen = heard(corpus.manifest, learned.keys(), learned.values())
    manifest = corpus.manifest.assign(seen=seen)[told]
    answers: list[NDArray[np.float32]] = []
    facts: list[tuple[object, ...]] = []
    for row in track(step, rows, len(rows), "listening to test clips"):
        logits, starts = classifier.listen(corpus.samples(row), corpus.sample_rate(row))
        clip = tuple(manifest.iloc[row])
        if not np.isfinite(logits).all():
            raise GenreflowError(
                f"The model answered {clip[0]} with values that are no numbers: its training diverged or its "
                "files are damaged. Train it again with a lower learning rate."
            )
        windows = classifier.probabilities(logits)
        mean = windows.mean(0, keepdims=True)
        answers += [windows, mean]
        for index, start in enumerate(starts):
            answered = genres[int(windows[index].argmax())]
            facts.append(("window", *clip, index, float(start), answered, None))
        facts.append(("clip", *clip, CLIP_WINDOW, 0.0, genres[int(mean.argmax())], genres[majority(windows)]))
    columns = ["level", *told, "window", "start_seconds", "predicted", "vote"]
    table = pd.DataFrame(facts, columns=columns)
    chances = np.concatenate(answers) if answers else np.zeros((0, len(genres)))
    return pd.concat([table, pd.DataFrame(chances, columns=probability_columns(genres))], axis=1)
