"""Ingest: from a source to a corpus."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genreflow.core.documents import CorpusDocument
from genreflow.steps.reporting import report_step


def ingest(source: str, source_fingerprint: str, settings: Mapping[str, Any], out: Path) -> CorpusDocument:
    """Decode, check, quarantine, find duplicates.

    Args:
        source: as `genreflow.corpus.sources.open_source` takes it.
        source_fingerprint: from `resolve`.
        settings: of `IngestSettings`.
        out: the corpus artifact's folder.

    Raises:
        CorpusError: no usable corpus can be made of the source.
    """
    from genreflow.corpus import ingest as corpus_ingest
    from genreflow.corpus.settings import IngestSettings

    with report_step("ingest", out):
        return corpus_ingest.ingest(
            source, source_fingerprint, IngestSettings.model_validate(dict(settings)), out
        )
