"""Fine-tune: training within an MLflow run."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from genreflow.core import progress
from genreflow.core.documents import FeaturesDocument, ModelDocument, SplitDocument
from genreflow.core.errors import GenreflowError, ModelError
from genreflow.steps.reporting import report_step


def fine_tune(
    features: Path,
    split: Path,
    out: Path,
    family: str,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    experiment: str = "genreflow",
    corpus: Path | None = None,
    backbone: str | None = None,
    child_run: bool = False,
) -> ModelDocument:
    """Train, with live curves in an MLflow run that is opened here, or joined where the platform has one.

    Args:
        features: the features artifact's folder.
        split: the split artifact's folder, of the same corpus.
        out: the model artifact's folder.
        family: a name in `genreflow.families.families()`.
        model: the family's own settings.
        training: of the family's `training_type`.
        experiment: the MLflow experiment of a run that is opened here.
        child_run: open a run below the platform's instead of joining it.
        corpus: the corpus artifact's folder; read only where `views` in `model` is above 0.
        backbone: from `resolve`; of a hub id, the commit in it is loaded; other weights in a folder are
            refused. None checks nothing.

    Returns:
        The model's document; its `run_id` is the MLflow run, which is closed, as FAILED where training was.
        SIGTERM leaves the run open and a checkpoint behind: the next attempt goes on from both.

    Raises:
        ModelError: the backbone is no longer the one that was resolved.
        FailedBeforeError: an earlier attempt of this step ended in an error that another would end in, too.
        SettingsError, TrainingError: see `genreflow.fitting.fine_tuning.fine_tune`.
    """
    from genreflow import registry
    from genreflow.families import family as family_named
    from genreflow.fitting import fine_tuning, run_settings, training_settings

    with report_step("fine_tune", out, features=features, split=split, corpus=corpus):
        document, parts = FeaturesDocument.read(features), SplitDocument.read(split)
        kind = family_named(family)
        name, _, commit = (backbone or "").rpartition("@")
        if name and name == model.get("backbone"):
            model = {**model, "revision": commit}
        chosen = kind.settings(model)
        if backbone is not None and (kind.backbone_digest(chosen) or "") != backbone:
            raise ModelError(
                f"The backbone {kind.pretrained(chosen)} has changed since it was resolved: run again."
            )
        training = {**run_settings(kind), **training}
        settings = training_settings(kind, chosen, training)
        parameters = {
            "family": family,
            "protocol": parts.protocol,
            "fold": parts.fold,
            "model": dict(model),
            "training": settings.model_dump(mode="json"),
        }
        tags = {
            "genreflow.family": family,
            "genreflow.synthetic": str(document.synthetic).lower(),
            "genreflow.protocol": parts.protocol,
            "genreflow.leaky": str(parts.leaky).lower(),
            "genreflow.corpus_fingerprint": document.corpus_fingerprint,
            "genreflow.features_fingerprint": document.fingerprint,
            "genreflow.split_fingerprint": parts.fingerprint,
        }
        call = uuid.uuid4().hex
        run_id = registry.retry_while_unavailable(
            lambda: registry.open_run(
                experiment, parameters, tags, step=str(out.resolve()), call=call, child=child_run
            ),
            lambda sentence: progress.report("fine_tune", sentence),
        )
        status: Literal["FINISHED", "FAILED", "KILLED"] | None = "FAILED"
        try:
            with registry.log_curves(run_id) as curves:
                trained = fine_tuning.fine_tune(
                    features,
                    split,
                    out,
                    kind,
                    dict(model),
                    dict(training),
                    on_log=curves,
                    run_id=run_id,
                    corpus=corpus,
                )
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        except GenreflowError as error:
            if error.permanent:
                registry.record_failure(run_id, error)
            raise
        except SystemExit:
            status = None  # ended by SIGTERM: the attempt that goes on resumes the run
            raise
        finally:
            if status is not None:
                registry.close_run(run_id, status)
        if curves.trouble:
            progress.report("fine_tune", curves.trouble)
        return trained
