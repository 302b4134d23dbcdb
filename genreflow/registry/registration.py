"""Registering a packaged model: one MLflow version a content, with evaluation, signature and lineage."""

import io
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from genreflow.core.digests import file_digest, text_digest
from genreflow.core.documents import CorpusDocument, PackagedDocument, SplitDocument
from genreflow.core.errors import ModelError, RegistryError
from genreflow.evaluation.document import EvaluationDocument
from genreflow.inference.backends import backend
from genreflow.inference.package_files import native_files, package_differences
from genreflow.registry import card
from genreflow.registry.champions import refresh_overview
from genreflow.registry.lock import registry_lock
from genreflow.registry.runs import (
    DIGEST_CHARACTERS,
    dataset_name,
    environment_tags,
    finish_run,
    flatten,
    log_dataset,
    metric_name,
    open_run,
)
from genreflow.registry.store import EXPERIMENT, MODEL_NAME, connect, translate_errors
from genreflow.registry.versions import LOGGED_MODEL_TAG, METRIC_PREFIX, PACKAGED, entries, logged_model_id

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

PYFUNC_MODEL = Path(__file__).with_name("pyfunc_model.py")
SERVING_PACKAGES = ("mlflow", "numpy", "scipy", "pandas", "pydantic", "soundfile", "soxr", "av", "openvino")
EXAMPLE_RATE = 8_000
EXAMPLE_SECONDS = 0.5
EXAMPLE_HERTZ = 440

log = logging.getLogger("genreflow")


@dataclass(frozen=True)
class Registered:
    """What `register` did."""

    version: str
    created: bool
    """False where the same content was registered before."""
    digest: str


def register(packaged: Path, evaluation: Path, corpus: Path, split: Path, run_id: str | None) -> Registered:
    """Register a packaged model with evaluation and lineage; the same content again finds the first.

    The version comes into being in one call with everything on it: what fails before leaves none behind.

    Args:
        packaged: folder with `packaged.json`.
        evaluation: folder with `evaluation.json` of that very model on that very corpus.
        corpus: folder with `corpus.json`.
        split: folder with `split.json`, of that corpus.
        run_id: the run that trained it; where None or unknown to this store, a new one is opened.

    Raises:
        RegistryError: the three do not belong together, or the store refuses.
        ModelError: the packaged model is damaged.
    """
    package, scores = PackagedDocument.read(packaged), EvaluationDocument.read(evaluation)
    music, parts = CorpusDocument.read(corpus), SplitDocument.read(split)
    _check_belonging(package, scores, music, parts)
    client = connect(create=True)
    if run_id:
        with translate_errors("finish the training run"):
            finish_run(client, run_id)
    with translate_errors("look for the model"):
        found = _first_of(client, package.digest)
    if found is not None:
        with translate_errors("list the versions"), registry_lock(client):
            refresh_overview(client)
        return found
    wrong = next(package_differences(packaged, package), None)
    if wrong is not None:
        raise ModelError(f"The packaged model in {packaged} cannot be registered: {wrong}. Package it anew.")
    with translate_errors("log the evaluation"):
        run_id = _known_run(client, run_id, package)
        client.log_artifacts(run_id, str(evaluation), "evaluation")
        with registry_lock(client):  # MLflow fails where two runs name a new dataset at once
            log_dataset(client, run_id, music, parts, ("training", "evaluation"))
        client.set_tag(run_id, "mlflow.note.content", card.headline(scores))
        experiment = client.get_run(run_id).info.experiment_id
    with (
        translate_errors("register the model"),
        _logged_model(client, experiment, run_id, packaged, package) as model_id,
    ):
        _log_metrics(client, run_id, model_id, scores, music)
        document = file_digest(packaged / PackagedDocument.file_name)
        _ensure_registered_model(client)
        with registry_lock(client):
            registered = _first_of(client, package.digest, model_id)
            if registered is None:
                created = client.create_model_version(
                    MODEL_NAME,
                    # not `models:/`, which MLflow's SQL registry resolves in its process-wide default store
                    source=client.get_logged_model(model_id).artifact_location,
                    run_id=run_id,
                    tags=card.tags(package, scores, music, document) | {LOGGED_MODEL_TAG: model_id},
                    description=card.describe(package, scores, music, parts, card.Trace(experiment, run_id)),
                    model_id=model_id,
                )
                registered = _first_of(client, package.digest, model_id)
            if registered is None:
                raise RegistryError(f"Version {created.version} was deleted while it was registered.")
            refresh_overview(client)
    return registered


def _first_of(client: "MlflowClient", digest: str, model_id: str | None = None) -> Registered | None:
    """The lowest version of that digest; what else this process made of it is deleted. None where none is.

    A request whose answer was lost did its work all the same, and is sent again by MLflow's client: versions
    that stand on one logged model are one. And a process that registers the same content at the same time
    finds the same lowest version, should a lock have been taken for left behind that was not.

    Args:
        model_id: the logged model that was just made for it; None where none was.
    """
    same = entries(client, f"tags.digest = '{digest}'")[::-1]
    if not same:
        return None
    winner = same[0]
    doubled = {logged_model_id(winner), model_id} - {None}
    for entry in same[1:]:
        if logged_model_id(entry) in doubled:
            client.delete_model_version(MODEL_NAME, str(entry.version))
    if model_id is not None:
        _discard(client, model_id)
    created = model_id is not None and logged_model_id(winner) == model_id
    return Registered(str(winner.version), created, digest)


def _discard(client: "MlflowClient", model_id: str) -> None:
    """Delete a logged model, unless a version stands on it: one whose creation "failed" may be there."""
    if not entries(client, f"tags.{LOGGED_MODEL_TAG} = '{model_id}'", most=1):
        client.delete_logged_model(model_id)


def signature(genres: tuple[str, ...]) -> "ModelSignature":
    """What goes in (`audio`, a whole file's bytes) and what comes out, as MLflow states it."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    probabilities = [ColSpec("double", f"p_{genre}") for genre in genres]
    return ModelSignature(
        inputs=Schema([ColSpec("binary", "audio")]),
        outputs=Schema(
            [
                ColSpec("string", "genre"),
                ColSpec("double", "confidence"),
                ColSpec("boolean", "unsure"),
                ColSpec("string", "reason", required=False),
                *probabilities,
            ]
        ),
    )


def input_example() -> "pd.DataFrame":
    """One row: half a second of a tone as the bytes of a wav file."""
    import pandas as pd
    import soundfile

    times = np.arange(round(EXAMPLE_RATE * EXAMPLE_SECONDS)) / EXAMPLE_RATE
    tone = 0.3 * np.sin(2 * np.pi * EXAMPLE_HERTZ * times)
    file = io.BytesIO()
    soundfile.write(file, tone, EXAMPLE_RATE, format="WAV", subtype="PCM_16")
    return pd.DataFrame({"audio": [file.getvalue()]})


def serving_requirements(package: PackagedDocument) -> list[str]:
    """What a server of this version needs, pinned; PyTorch only where the model is served with it."""
    from importlib.metadata import version as installed

    names = [*SERVING_PACKAGES, *runtime_packages(package)]
    return [f"{name}=={installed(name).split('+')[0]}" for name in names]


def runtime_packages(package: PackagedDocument) -> tuple[str, ...]:
    """Packages that the declared runtime needs beside the library's core."""
    return backend(package.served.runtime).packages


def _check_belonging(
    package: PackagedDocument, scores: EvaluationDocument, music: CorpusDocument, split: SplitDocument
) -> None:
    evaluated, model = scores.model, package.model
    same_weights = evaluated.weights_digest == _weights_digest(package)
    same_features = evaluated.features_fingerprint == model.features_fingerprint
    if not same_weights or not same_features or scores.genres != model.genres:
        raise RegistryError("The evaluation is of another model than the packaged one: evaluate this model.")
    if evaluated.packaged_digest not in (None, package.digest):
        raise RegistryError("The evaluation is of this model in another form: evaluate the packaged one.")
    if scores.corpus_fingerprint != music.fingerprint:
        raise RegistryError("The evaluation was made on another corpus than the one given: name that corpus.")
    if scores.split_fingerprint != split.fingerprint:
        raise RegistryError("The evaluation was made on another split than the one given: name that split.")


def _weights_digest(package: PackagedDocument) -> str:
    """`evaluation.artifact.weights_digest` of the packaged native files, from the digests on record."""
    files = sorted(native_files(package.files).items(), key=lambda entry: PurePosixPath(entry[0]))
    return text_digest(f"{name} {digest}" for name, digest in files)


def _known_run(client: "MlflowClient", run_id: str | None, package: PackagedDocument) -> str:
    """The training run, or a new one that says that the training lies elsewhere."""
    from mlflow.exceptions import MlflowException

    if run_id:
        try:
            if client.get_run(run_id).info.lifecycle_stage == "active":
                return run_id
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            log.warning("This store does not know the training run %s: a new run is opened.", run_id)
    model = package.model
    parameters = {"family": model.family, "model": model.settings, "training": model.training}
    tags = {"genreflow.trained_in_run": run_id or "unknown"}
    new = open_run(EXPERIMENT, parameters, tags, call=f"register{package.digest}")
    client.set_terminated(new, "FINISHED")
    return new


@contextmanager
def _logged_model(
    client: "MlflowClient", experiment: str, run_id: str, packaged: Path, package: PackagedDocument
) -> Iterator[str]:
    """A logged model with all its files; deleted again where what follows fails."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model
    from mlflow.pyfunc import save_model
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    model = client.create_logged_model(
        experiment,
        name=package.model.family,
        source_run_id=run_id,
        params=flatten({"family": package.model.family, "model": package.model.settings}),
        tags={"digest": package.digest, **environment_tags()},
        model_type="audio-classifier",
    )
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            save_model(
                str(folder),
                python_model=str(PYFUNC_MODEL),
                artifacts={PACKAGED: str(packaged)},
                code_paths=[str(PYFUNC_MODEL.parent)],
                signature=signature(package.model.genres),
                input_example=input_example(),
                pip_requirements=serving_requirements(package),
                mlflow_model=Model(
                    artifact_path=model.artifact_location,
                    run_id=run_id,
                    model_uuid=model.model_id,
                    model_id=model.model_id,
                ),
            )
            client.log_model_artifacts(model.model_id, str(folder))
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        yield str(model.model_id)
    except BaseException:
        try:
            _discard(client, model.model_id)
        except (MlflowException, RequestException, SQLAlchemyError) as error:
            log.warning("The logged model %s may stay behind: %s", model.model_id, error)
        raise


def _log_metrics(
    client: "MlflowClient", run_id: str, model_id: str, scores: EvaluationDocument, music: CorpusDocument
) -> None:
    """The evaluation's figures on the run and on the model, tied to the corpus they were measured on."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[
            Metric(
                METRIC_PREFIX + metric_name(name),
                value,
                now,
                0,
                model_id=model_id,
                dataset_name=dataset_name(music, "evaluation"),
                dataset_digest=music.fingerprint[:DIGEST_CHARACTERS],
                run_id=run_id,
            )
            for name, value in scores.scalars().items()
        ],
    )


def _ensure_registered_model(client: "MlflowClient") -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(MODEL_NAME, description=card.MODEL_DESCRIPTION)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
