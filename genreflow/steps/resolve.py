"""Resolve: fingerprints of what lies behind the names of source and backbone, and whether MLflow answers."""

import os
from collections.abc import Mapping
from typing import Any

from genreflow.core import home, progress
from genreflow.core.home import HOME_VARIABLE
from genreflow.steps.reporting import report_step

STEP = "resolve"


def check_platform(step: str) -> None:
    """Check that MLflow answers under its name and with the log-in, and that the state folder can be written.

    Args:
        step: under whose name waiting is reported.

    Raises:
        GenreflowError: the state folder that `GENREFLOW_HOME` names cannot be written.
        RegistryError: the tracking server does not answer, or rejects the name or the log-in.
    """
    from genreflow import registry

    if registry.served(home.tracking_uri()):
        registry.retry_while_unavailable(registry.check, lambda sentence: progress.report(step, sentence))
    if HOME_VARIABLE in os.environ:
        home.check_writable(home.home(), HOME_VARIABLE)


def fingerprint_model(family: str, model: Mapping[str, Any]) -> tuple[str, str]:
    """A family's canonical representation, and what identifies the backbone that training begins from.

    Raises:
        ModelError, SettingsError: there is no such backbone, or the settings do not fit it.
    """
    from genreflow.families import family as family_named

    kind = family_named(family)
    chosen = kind.pinned(kind.settings(model))
    return kind.representation(chosen).canonical(), kind.backbone_digest(chosen) or ""


def resolve(
    source: str, corpus: Mapping[str, Any], family: str, model: Mapping[str, Any]
) -> tuple[str, str, str]:
    """Fingerprint what lies behind the source's and the backbone's names: KFP's cache sees only the names.

    Before that, a tracking server has to answer under the name it is called by and with the log-in that is
    given: training begins hours later.

    Args:
        source: as `genreflow.corpus.sources.open_source` takes it.
        corpus: of `IngestSettings`.
        family: a name in `genreflow.families.families()`.
        model: the family's own settings.

    Returns:
        The source's fingerprint; the canonical representation that the family is trained on (see
        `Representation`); what identifies the backbone that training begins from: a digest of a folder's
        files, a hub id with its commit, empty from scratch.

    Raises:
        CorpusError: there is no such source, or nothing in it that can be trained on.
        ModelError, SettingsError: there is no such backbone, or the settings do not fit it.
        GenreflowError: the state folder that `GENREFLOW_HOME` names cannot be written.
        RegistryError: the tracking server does not answer, or rejects the name or the log-in.
    """
    from genreflow.corpus import ingest as corpus_ingest
    from genreflow.corpus.settings import IngestSettings

    with report_step(STEP):
        check_platform(STEP)
        representation, backbone = fingerprint_model(family, model)
        genres = IngestSettings.model_validate(dict(corpus)).genres
        return corpus_ingest.resolve(source, genres), representation, backbone
