"""Versions of the classifier: registered once a content, listed, fetched, promoted, rolled back."""

import io
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import genreflow
from genreflow import home
from genreflow.artifacts import CorpusDocument, PackagedDocument
from genreflow.errors import ModelError, RegistryError
from genreflow.evaluation.document import EvaluationDocument
from genreflow.gate import Decision
from genreflow.registry import card
from genreflow.registry.runs import (
    DIGEST_CHARACTERS,
    dataset_name,
    environment_tags,
    flatten,
    log_dataset,
    metric_name,
    open_run,
)
from genreflow.registry.store import MODEL_NAME, as_default_store, asking, connect
from genreflow.runtime import problems

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

CHAMPION = "champion"
CHALLENGER = "challenger"
HISTORY_TAG = "champion_history"
HISTORY_LENGTH = 20
HISTORY_REASON_CHARACTERS = 150
PACKAGED = "packaged"
SERVING_PACKAGES = ("mlflow", "numpy", "scipy", "pandas", "pydantic", "soundfile", "soxr", "av", "openvino")
PYTORCH_PACKAGES = ("torch", "transformers", "safetensors")
EXAMPLE_RATE = 8_000
EXAMPLE_SECONDS = 0.5

log = logging.getLogger("genreflow")


@dataclass(frozen=True)
class Registered:
    """What `register` did."""

    version: str
    created: bool
    """False where the same content was registered before."""
    digest: str


@dataclass(frozen=True)
class Version:
    """One registered version, as `genreflow models` lists it."""

    version: str
    aliases: tuple[str, ...]
    metrics: dict[str, float]
    tags: dict[str, str]
    run_id: str | None
    created: str
    """ISO 8601, UTC."""

    @property
    def digest(self) -> str | None:
        return self.tags.get("digest")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self) | {"aliases": list(self.aliases)}


def register(packaged: Path, evaluation: Path, corpus: Path, run_id: str | None) -> Registered:
    """Register a packaged model with evaluation and lineage; the same content again finds the first.

    The version comes into being in one call with everything on it: what fails before leaves none behind.

    Args:
        packaged: folder with `packaged.json`.
        evaluation: folder with `evaluation.json` of that very model on that very corpus.
        corpus: folder with `corpus.json`.
        run_id: the run that trained it; where None or unknown to this store, a new one is opened.

    Raises:
        RegistryError: the three do not belong together, or the store refuses.
        ModelError: the packaged model is damaged.
    """
    package, scores = PackagedDocument.read(packaged), EvaluationDocument.read(evaluation)
    music = CorpusDocument.read(corpus)
    _check_belonging(package, scores, music)
    client = connect()
    with asking("look for the model"):
        found = _by_digest(client, package.digest)
    if found is not None:
        return Registered(str(found.version), False, package.digest)
    wrong = next(problems(packaged, package), None)
    if wrong is not None:
        raise ModelError(f"The packaged model in {packaged} cannot be registered: {wrong}. Package it anew.")
    run_id = _known_run(client, run_id, package)
    with asking("log the evaluation"):
        client.log_artifacts(run_id, str(evaluation), "evaluation")
        log_dataset(client, run_id, music, ("training", "evaluation"))
        experiment = client.get_run(run_id).info.experiment_id
    with (
        asking("register the model"),
        _logged_model(client, experiment, run_id, packaged, package) as model_id,
        as_default_store(),
    ):
        _log_metrics(client, run_id, model_id, scores, music)
        _ensure_registered_model(client)
        created = client.create_model_version(
            MODEL_NAME,
            source=f"models:/{model_id}",
            run_id=run_id,
            tags=card.tags(package, scores),
            description=card.describe(package, scores, music, card.Trace(experiment, run_id)),
            model_id=model_id,
        )
    return Registered(str(created.version), True, package.digest)


def versions() -> list[Version]:
    """All versions, the newest first; none where nothing was registered."""
    client = connect()
    with asking("list the versions"):
        aliases = _aliases(client)
        return [_version(client, entry, aliases) for entry in _entries(client)]


def version(name: str) -> Version:
    """The version of an alias or number.

    Raises:
        RegistryError: there is none, with what there is.
    """
    client = connect()
    with asking("find the version"):
        return _version(client, _find(client, name), _aliases(client))


def champion() -> Version | None:
    """The champion; None where there is none yet."""
    return _of_alias(CHAMPION)


def challenger() -> Version | None:
    """The latest version that was compared and not promoted; None where there is none."""
    return _of_alias(CHALLENGER)


def fetch(alias_or_version: str) -> Path:
    """The packaged model of an alias or version, downloaded once a content and verified.

    Raises:
        RegistryError: there is no such version, or the store refuses.
        ModelError: what was downloaded is not what was registered.
    """
    client = connect()
    with asking("find the version"):
        entry = _find(client, alias_or_version)
    digest = entry.tags.get("digest")
    if not digest:
        raise RegistryError(
            f"Version {entry.version} of {MODEL_NAME} was not registered by genreflow: it has no digest."
        )
    folder = home.models_folder() / digest
    if folder.is_dir():
        wrong = _wrong(folder, digest)
        if wrong is None:
            return folder
        log.warning("%s is damaged (%s): fetching it again.", folder, wrong)
        shutil.rmtree(folder)
    home.models_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=home.models_folder()) as scratch:
        with asking(f"download version {entry.version}"), as_default_store():
            arrived = _download_packaged(client, entry, Path(scratch))
        wrong = _wrong(arrived, digest)
        if wrong is not None:
            raise ModelError(
                f"Version {entry.version} is not what was registered: {wrong}. Register it anew."
            )
        try:
            arrived.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process may have been faster
                raise
    return folder


def record_decision(version: str, decision: Decision, compared_with: str | None = None) -> None:
    """Write on a version what the gate decided and why; an `identical` verdict changes nothing.

    The alias is not touched: `set_champion` moves it last.

    Args:
        compared_with: the champion's version at the time.
    """
    if decision.verdict == "identical":
        return
    client = connect()
    with asking("record the gate's decision"):
        entry = _find(client, version)
        tags = {"decision": decision.verdict, "decision_reason": decision.reason}
        if compared_with is not None:
            tags["compared_with"] = compared_with
        word = "**Promoted.**" if decision.promote else "**No.**"
        _note(client, entry, tags, f"{word} {_sentence(decision.reason)}")
        if entry.run_id:
            client.log_dict(entry.run_id, decision.model_dump(mode="json"), "gate.json")


def set_champion(version: str, reason: str) -> Version:
    """Make a version champion, by the gate's decision recorded before or by hand; the alias moves last.

    Raises:
        RegistryError: there is no such version, or the store refuses.
    """
    if not reason.strip():
        raise RegistryError("A promotion needs a reason: it is kept with the version.")
    client = connect()
    with asking("promote the version"):
        entry = _find(client, version)
        before = _alias_version(client, CHAMPION)
        if before == str(entry.version):
            return _version(client, entry, _aliases(client))
        if entry.tags.get("decision_reason") != reason:
            tags = {"decision": "promoted by hand", "decision_reason": reason}
            _note(client, entry, tags, f"**Promoted by hand.** {_sentence(reason)}")
        _crown(client, str(entry.version), _pushed(_history(client), before, str(entry.version), reason))
        _note_displaced(client, before, str(entry.version))
        return _version(client, _find(client, str(entry.version)), _aliases(client))


def set_challenger(version: str) -> None:
    """Point the challenger's alias at a version; the champion is never its own challenger."""
    client = connect()
    with asking("name the challenger"):
        entry = _find(client, version)
        if _alias_version(client, CHAMPION) != str(entry.version):
            client.set_registered_model_alias(MODEL_NAME, CHALLENGER, str(entry.version))


def rollback(reason: str) -> Version:
    """Make the previous champion champion again.

    Raises:
        RegistryError: there is no champion, or none before it.
    """
    if not reason.strip():
        raise RegistryError("A rollback needs a reason: it is kept with the version.")
    client = connect()
    with asking("roll back"):
        current = _alias_version(client, CHAMPION)
        if current is None:
            raise RegistryError("There is no champion to roll back from.")
        history = _history(client)
        last = max((at for at, entry in enumerate(history) if entry["version"] == current), default=0)
        existing = {str(entry.version) for entry in _entries(client)}
        earlier = [entry for entry in history[:last] if entry["version"] in existing - {current}]
        if not earlier:
            raise RegistryError(
                f"There is no champion before version {current}: choose one with genreflow promote VERSION."
            )
        chosen = earlier[-1]["version"]
        again = {
            "decision": "champion again",
            "decision_reason": f"rolled back from version {current}: {reason}",
        }
        _note(
            client,
            _find(client, chosen),
            again,
            f"**Champion again.** Rolled back from version {current}: {_sentence(reason)}",
        )
        _crown(client, chosen, earlier)
        gone = {"decision": "rolled back", "decision_reason": reason}
        _note(
            client,
            _find(client, current),
            gone,
            f"**No: rolled back** to version {chosen}. {_sentence(reason)}",
        )
        return _version(client, _find(client, chosen), _aliases(client))


def _check_belonging(package: PackagedDocument, scores: EvaluationDocument, music: CorpusDocument) -> None:
    if (
        scores.model.features_fingerprint != package.model.features_fingerprint
        or scores.genres != package.model.genres
    ):
        raise RegistryError("The evaluation is of another model than the packaged one: evaluate this model.")
    if scores.corpus_fingerprint != music.fingerprint:
        raise RegistryError("The evaluation was made on another corpus than the one given: name that corpus.")


def _known_run(client: "MlflowClient", run_id: str | None, package: PackagedDocument) -> str:
    """The training run, or a new one that says that the training lies elsewhere."""
    from mlflow.exceptions import MlflowException

    if run_id:
        try:
            if client.get_run(run_id).info.lifecycle_stage == "active":
                return run_id
        except MlflowException:
            log.warning("This store does not know the training run %s: a new run is opened.", run_id)
    parameters = {
        "family": package.model.family,
        "model": package.model.settings,
        "training": package.model.training,
    }
    tags = {"genreflow.note": f"trained elsewhere, in run {run_id or 'unknown'}"}
    new = open_run("genreflow", parameters, tags)
    with asking("close the run"):
        client.set_terminated(new, "FINISHED")
    return new


@contextmanager
def _logged_model(
    client: "MlflowClient", experiment: str, run_id: str, packaged: Path, package: PackagedDocument
) -> Iterator[str]:
    """A logged model with all its files; deleted again where what follows fails."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    settings = flatten({"family": package.model.family, "model": package.model.settings})
    model = client.create_logged_model(
        experiment,
        name=package.model.family,
        source_run_id=run_id,
        params=settings,
        tags={"digest": package.digest, **environment_tags()},
        model_type="audio-classifier",
    )
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            save_model(
                str(folder),
                python_model=str(Path(genreflow.__file__).parent / "served_model.py"),
                artifacts={PACKAGED: str(packaged)},
                code_paths=[str(Path(genreflow.__file__).parent)],
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
        client.delete_logged_model(model.model_id)
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
                f"test/{metric_name(name)}",
                value,
                now,
                0,
                model_id=model_id,
                dataset_name=dataset_name(music),
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


def signature(genres: tuple[str, ...]) -> "ModelSignature":
    """What goes in (`audio`, a whole file's bytes) and what comes out, as MLflow states it."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    probabilities = [ColSpec("double", f"p_{genre}") for genre in genres]
    return ModelSignature(
        inputs=Schema([ColSpec("binary", "audio")]),
        outputs=Schema([ColSpec("string", "genre"), ColSpec("double", "confidence"), *probabilities]),
    )


def input_example() -> "pd.DataFrame":
    """One row: half a second of a 440 Hz tone as the bytes of a wav file."""
    import pandas as pd
    import soundfile

    times = np.arange(round(EXAMPLE_RATE * EXAMPLE_SECONDS)) / EXAMPLE_RATE
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * 440 * times), EXAMPLE_RATE, format="WAV", subtype="PCM_16")
    return pd.DataFrame({"audio": [file.getvalue()]})


def serving_requirements(package: PackagedDocument) -> list[str]:
    """What a server of this version needs, pinned; PyTorch only where OpenVINO does not serve it."""
    from importlib.metadata import version as installed

    names = list(SERVING_PACKAGES)
    if not any(runtime.usable and runtime.name == "openvino" for runtime in package.runtimes):
        names += PYTORCH_PACKAGES
    return [f"{name}=={installed(name).split('+')[0]}" for name in names]


def _download_packaged(client: "MlflowClient", entry: "ModelVersion", scratch: Path) -> Path:
    """The packaged folder out of the model's files, under `scratch`."""
    import mlflow.artifacts
    from mlflow.models import Model

    folder = Path(
        mlflow.artifacts.download_artifacts(
            artifact_uri=f"models:/{entry.model_id}" if entry.model_id else entry.source,
            dst_path=str(scratch),
            tracking_uri=client.tracking_uri,
        )
    )
    flavor = Model.load(str(folder)).flavors["python_function"]
    return folder / str(flavor["artifacts"][PACKAGED]["path"])


def _wrong(folder: Path, digest: str) -> str | None:
    """What is not right with a packaged folder; None where it is what was registered."""
    try:
        document = PackagedDocument.read(folder)
    except Exception as error:  # an unreadable document is one more way to be damaged
        return str(error)
    if document.digest != digest:
        return f"its digest is {document.digest}, not {digest}"
    return next(problems(folder, document), None)


def _entries(client: "MlflowClient") -> list["ModelVersion"]:
    """All versions as MLflow has them, the newest first."""
    entries: list[ModelVersion] = []
    token: str | None = None
    while True:
        page = client.search_model_versions(f"name='{MODEL_NAME}'", max_results=200, page_token=token)
        entries += page
        token = page.token
        if not token:
            return sorted(entries, key=lambda entry: int(entry.version), reverse=True)


def _by_digest(client: "MlflowClient", digest: str) -> "ModelVersion | None":
    return next((entry for entry in _entries(client) if entry.tags.get("digest") == digest), None)


def _aliases(client: "MlflowClient") -> dict[str, str]:
    """Alias → version; empty where nothing is registered."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(MODEL_NAME).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {alias: str(number) for alias, number in found.items()}


def _alias_version(client: "MlflowClient", alias: str) -> str | None:
    return _aliases(client).get(alias)


def _of_alias(alias: str) -> Version | None:
    client = connect()
    with asking(f"find the {alias}"):
        number = _alias_version(client, alias)
        return None if number is None else _version(client, _find(client, number), _aliases(client))


def _find(client: "MlflowClient", name: str) -> "ModelVersion":
    entries, aliases = _entries(client), _aliases(client)
    if not entries:
        raise RegistryError("The registry is empty: genreflow run trains and registers a first version.")
    number = aliases.get(name, name)
    for entry in entries:
        if str(entry.version) == number:
            return entry
    there = [str(entry.version) for entry in reversed(entries)]
    named = ", ".join(f"{alias} (version {number})" for alias, number in sorted(aliases.items())) or "none"
    raise RegistryError(
        f"There is no version or alias {name!r} of {MODEL_NAME}: there are {', '.join(there)}; aliases: "
        f"{named}."
    )


def _version(client: "MlflowClient", entry: "ModelVersion", aliases: dict[str, str]) -> Version:
    metrics: dict[str, float] = {}
    if entry.model_id:
        found = client.get_logged_model(entry.model_id).metrics or []
        metrics = {metric.key.removeprefix("test/"): metric.value for metric in found}
    number = str(entry.version)
    return Version(
        version=number,
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
        metrics=metrics,
        tags=dict(entry.tags),
        run_id=entry.run_id or None,
        created=datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
    )


def _note(client: "MlflowClient", entry: "ModelVersion", tags: dict[str, str], text: str) -> None:
    """Tags on a version, and the answer in its description to whether it is champion."""
    number = str(entry.version)
    for key, value in tags.items():
        client.set_model_version_tag(MODEL_NAME, number, key, value)
    client.update_model_version(MODEL_NAME, number, card.with_decision(entry.description or "", text))


def _note_displaced(client: "MlflowClient", before: str | None, after: str) -> None:
    if before is None:
        return
    entry = _find(client, before)
    then = f"Champion until {datetime.now(UTC):%Y-%m-%d}, when version {after} took its place."
    text = f"{then}\n\n{card.decision_of(entry.description or '')}"
    _note(client, entry, {"displaced_by": after}, text)


def _history(client: "MlflowClient") -> list[dict[str, str]]:
    """The champions one after another, the present one last."""
    text = client.get_registered_model(MODEL_NAME).tags.get(HISTORY_TAG, "[]")
    return list(json.loads(text))


def _pushed(history: list[dict[str, str]], before: str | None, new: str, reason: str) -> list[dict[str, str]]:
    """The history with a new champion; what a crash left behind the present champion is dropped."""
    last = max((at for at, entry in enumerate(history) if entry["version"] == before), default=-1)
    kept = history[: last + 1]
    if before is not None and last < 0:
        kept = [{"version": before, "since": "", "reason": "set outside genreflow"}]
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return [*kept, {"version": new, "since": since, "reason": reason[:HISTORY_REASON_CHARACTERS]}]


def _crown(client: "MlflowClient", number: str, history: list[dict[str, str]]) -> None:
    """Everything around a new champion, and its alias last."""
    client.set_registered_model_tag(MODEL_NAME, HISTORY_TAG, json.dumps(history[-HISTORY_LENGTH:]))
    if _alias_version(client, CHALLENGER) == number:
        client.delete_registered_model_alias(MODEL_NAME, CHALLENGER)
    client.set_registered_model_alias(MODEL_NAME, CHAMPION, number)


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
