"""Predictions of packaged models for test clips, kept in the state folder between decisions of the gate."""

import logging
import os
from collections.abc import Collection

import pandas as pd

from genreflow.core import home
from genreflow.core.digests import code_version, text_digest
from genreflow.corpus.store import Corpus
from genreflow.evaluation.predictions import predict
from genreflow.inference.classifier import Classifier
from genreflow.inference.processor import instruction_set

log = logging.getLogger("genreflow")


def clip_predictions(
    classifier: Classifier,
    digest: str,
    corpus: Corpus,
    clip_ids: Collection[str],
    split_fingerprint: str,
    step: str = "promote",
) -> pd.DataFrame:
    """The clip-level rows of `predict` for clips of a corpus, read from the state folder where it has them.

    They are kept under the model's digest, its runtime and precision, the processor's instruction set, the
    split, the clips' content and the version of the code.

    Args:
        digest: of the packaged model.
        clip_ids: of the test clips.
        split_fingerprint: of the split that they are the test clips of.
        step: under whose name progress is reported.
    """
    wanted = set(clip_ids)
    rows = [row for row, clip_id in enumerate(corpus.manifest["clip_id"]) if clip_id in wanted]
    key = text_digest(
        [
            digest,
            classifier.runtime,
            classifier.precision,
            classifier.device,
            instruction_set(),
            split_fingerprint,
            code_version(),
            *sorted(corpus.manifest["sha256"].iloc[rows]),
        ]
    )
    path = home.scores_folder() / f"{key}.parquet"
    if path.is_file():
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:  # Arrow's errors are ValueErrors
            log.warning("%s cannot be read (%s): scoring again.", path, error)
    table = predict(classifier, corpus, rows, step)
    clips = table[table["level"] == "clip"].reset_index(drop=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}.new")
    clips.to_parquet(fresh, index=False)
    fresh.replace(path)
    return clips
