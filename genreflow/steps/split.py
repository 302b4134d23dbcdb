"""Split: every clip to train, validation, test or none of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genreflow.core.documents import SplitDocument
from genreflow.steps.reporting import report_step


def split(corpus: Path, settings: Mapping[str, Any], out: Path) -> SplitDocument:
    """Assign every clip to train, validation, test or none of them.

    Args:
        corpus: the corpus artifact's folder.
        settings: of `SplitSettings`.
        out: the split artifact's folder.

    Raises:
        CorpusError: the protocol does not fit these clips.
    """
    from genreflow.corpus import splitting
    from genreflow.corpus.settings import SplitSettings

    with report_step("split", out, corpus=corpus):
        return splitting.split(corpus, SplitSettings.model_validate(dict(settings)), out)
