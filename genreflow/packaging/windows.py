"""Real windows of a corpus, on which a packaged model is measured and calibrated."""

from itertools import chain, zip_longest

import numpy as np
from numpy.typing import NDArray

from genreflow.core.documents import ModelDocument
from genreflow.core.errors import CorpusError
from genreflow.corpus.store import Corpus
from genreflow.features import window_inputs

SPARE_SECONDS = 0.1
"""Cut with a window so that resampling cannot leave it a sample short."""


def real_windows(
    document: ModelDocument,
    corpus: Corpus,
    count: int,
    splits: tuple[str, ...] = ("validation", "train"),
) -> NDArray[np.float32]:
    """Up to `count` windows of real clips, the genres in turn, as model inputs: (n, *input shape).

    The middle of each clip first; where there are fewer clips than windows, other places of them.

    Args:
        splits: the first that has clips is taken.

    Raises:
        CorpusError: there are no validation and no training clips.
    """
    rows: list[int] = next(filter(None, map(corpus.rows, splits)), [])
    if not rows:
        raise CorpusError(
            "The corpus has neither validation nor training clips, and parity is measured on real windows: "
            "package with the corpus that the model was trained on."
        )
    genres = corpus.manifest["genre"]
    by_genre = [[row for row in rows if genres.iloc[row] == genre] for genre in document.genres]
    in_turn = [row for row in chain.from_iterable(zip_longest(*by_genre)) if row is not None]
    places = [(row, place) for place in (0.5, 0.15, 0.85, 0.3) for row in in_turn]
    places = [
        (row, place)
        for row, place in places
        if place == 0.5 or len(corpus.samples(row)) > _length(document, corpus, row)
    ]
    return np.concatenate([_window(document, corpus, row, place) for row, place in places[:count]])


def _length(document: ModelDocument, corpus: Corpus, row: int) -> int:
    """Samples of a clip that surely hold a window."""
    return round((document.input_spec.window_seconds + SPARE_SECONDS) * corpus.sample_rate(row))


def _window(document: ModelDocument, corpus: Corpus, row: int, place: float) -> NDArray[np.float32]:
    samples, rate = corpus.samples(row), corpus.sample_rate(row)
    length = _length(document, corpus, row)
    start = round(max(0, len(samples) - length) * place)
    inputs, _ = window_inputs(document.input_spec, samples[start : start + length], rate)
    return inputs[:1]
