"""Resolve candidates: fingerprints of what lies behind the names of the source and of all backbones."""

from collections.abc import Mapping, Sequence
from typing import Any

from genreflow.steps.reporting import report_step
from genreflow.steps.resolve import check_platform, fingerprint_model

STEP = "resolve_candidates"


def resolve_candidates(
    source: str,
    corpus: Mapping[str, Any],
    candidates: Sequence[Mapping[str, Any]],
    also_test: str | None = None,
) -> tuple[str, list[tuple[str, str]]]:
    """`resolve` for several families at once: the source is listed once.

    Args:
        source: as `genreflow.corpus.sources.open_source` takes it.
        corpus: of `IngestSettings`.
        candidates: each with `family` and the family's settings `model`.
        also_test: another source that the best candidates are to be scored on, which is only listed: what
            `compare` would fail at is found before anything is trained.

    Returns:
        The source's fingerprint; of each candidate, in order, the canonical representation and what
        identifies the backbone.

    Raises:
        CorpusError: there is no such source, or nothing in it that can be trained on; or `also_test` has
            fewer than two of the genres.
        ModelError, SettingsError: there is no such backbone, or the settings do not fit it.
        GenreflowError, RegistryError: see `check_platform`.
    """
    from genreflow.corpus import ingest as corpus_ingest
    from genreflow.corpus.settings import IngestSettings

    with report_step(STEP):
        check_platform(STEP)
        found = [fingerprint_model(candidate["family"], candidate["model"]) for candidate in candidates]
        genres = IngestSettings.model_validate(dict(corpus)).genres
        fingerprint = corpus_ingest.resolve(source, genres)
        if also_test is not None:
            from genreflow.comparison.generalisation import common_genres

            common_genres(also_test, genres)
        return fingerprint, found
