"""Versions of the classifier: found, listed, fetched."""

import logging
import shutil
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genreflow import home
from genreflow.artifacts import PackagedDocument, file_digest
from genreflow.errors import GenreflowError, ModelError, RegistryError
from genreflow.registry.store import MODEL_NAME, as_default_store, asking, connect
from genreflow.runtime import problems

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CHALLENGER = "challenger"
LOGGED_MODEL = "models:/"
METRIC_PREFIX = "test/"
PACKAGED = "packaged"
"""Under this name the packaged folder lies among the registered model's artifacts."""
DOCUMENT_TAG = "packaged_sha256"
"""The tag with the sha256 of `packaged.json`, which names the digests of all other files of a version."""
PAGE = 200

log = logging.getLogger("genreflow")


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


def versions() -> list[Version]:
    """All versions, the newest first; none where nothing was registered."""
    client = connect()
    with asking("list the versions"):
        targets = alias_targets(client)
        return [described(client, entry, targets) for entry in entries(client)]


def version(name: str) -> Version:
    """The version of an alias or number.

    Raises:
        RegistryError: there is none, with what there is.
    """
    client = connect()
    with asking("find the version"):
        return described(client, find(client, name), alias_targets(client))


def champion() -> Version | None:
    """The champion; None where there is none yet."""
    client = connect()
    with asking("find the champion"):
        targets = alias_targets(client)
        return described(client, find(client, targets[CHAMPION]), targets) if CHAMPION in targets else None


def fetch(alias_or_version: str) -> Path:
    """The packaged model of an alias or version, downloaded once a content and verified.

    Raises:
        RegistryError: there is no such version, the store refuses, or what it has is not what was registered.
        ModelError: it is what was registered, but its documents do not fit this version of genreflow.
    """
    client = connect()
    with asking("find the version"):
        entry = find(client, alias_or_version)
    folder = home.models_folder() / content_digest(str(entry.version), entry.tags)
    if folder.is_dir():
        wrong = _wrong(folder, entry)
        if wrong is None:
            return folder
        log.warning("%s is damaged (%s): fetching it again.", folder, wrong)
        shutil.rmtree(folder)
    home.models_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=home.models_folder()) as scratch:
        with asking(f"download version {entry.version}"), as_default_store():
            arrived = _download_packaged(entry, Path(scratch))
        wrong = _wrong(arrived, entry)
        if wrong is not None:
            raise RegistryError(
                f"Version {entry.version} is not what was registered: {wrong}. Train and register it anew."
            )
        home.keep(arrived, folder)
    return folder


def content_digest(number: str, tags: dict[str, str]) -> str:
    """The digest of a version's packaged model.

    Raises:
        RegistryError: genreflow did not register it.
    """
    digest = tags.get("digest")
    if not digest:
        raise RegistryError(
            f"Version {number} of {MODEL_NAME} was not registered by genreflow: it has no digest."
        )
    return digest


def entries(client: "MlflowClient") -> list["ModelVersion"]:
    """All versions as MLflow has them, the newest first."""
    found: list[ModelVersion] = []
    token: str | None = None
    while True:
        page = client.search_model_versions(f"name='{MODEL_NAME}'", max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda entry: int(entry.version), reverse=True)


def alias_targets(client: "MlflowClient") -> dict[str, str]:
    """Alias → version; empty where nothing is registered."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(MODEL_NAME).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {alias: str(number) for alias, number in found.items()}


def find(client: "MlflowClient", name: str) -> "ModelVersion":
    """The version of an alias or number, as MLflow has it.

    Raises:
        RegistryError: there is none, with what there is.
    """
    there, targets = entries(client), alias_targets(client)
    if not there:
        raise RegistryError("The registry is empty: genreflow run trains and registers a first version.")
    number = targets.get(name, name)
    for entry in there:
        if str(entry.version) == number:
            return entry
    numbers = ", ".join(str(entry.version) for entry in reversed(there))
    named = ", ".join(f"{alias} (version {target})" for alias, target in sorted(targets.items()))
    raise RegistryError(
        f"There is no version or alias {name!r} of {MODEL_NAME}: there are versions {numbers}, and "
        f"{'the aliases ' + named if named else 'no alias'}."
    )


def described(client: "MlflowClient", entry: "ModelVersion", targets: dict[str, str]) -> Version:
    """A version with its aliases and the figures of its logged model."""
    metrics: dict[str, float] = {}
    # MLflow's SQL registry keeps the logged model's id in the source only.
    if entry.source and entry.source.startswith(f"{LOGGED_MODEL}m-"):
        model = client.get_logged_model(entry.source.removeprefix(LOGGED_MODEL))
        metrics = {metric.key.removeprefix(METRIC_PREFIX): metric.value for metric in model.metrics or []}
    number = str(entry.version)
    return Version(
        version=number,
        aliases=tuple(sorted(alias for alias, target in targets.items() if target == number)),
        metrics=metrics,
        tags=dict(entry.tags),
        run_id=entry.run_id or None,
        created=datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
    )


def _download_packaged(entry: "ModelVersion", scratch: Path) -> Path:
    """The packaged folder out of the model's files, under `scratch`."""
    import mlflow.artifacts
    from mlflow.models import Model

    folder = Path(
        mlflow.artifacts.download_artifacts(
            artifact_uri=entry.source, dst_path=str(scratch), tracking_uri=home.tracking_uri()
        )
    )
    flavor = Model.load(str(folder)).flavors["python_function"]
    return folder / str(flavor["artifacts"][PACKAGED]["path"])


def _wrong(folder: Path, entry: "ModelVersion") -> str | None:
    """What is not right with a packaged folder; None where it is what was registered as that version.

    Raises:
        ModelError: its document is the one that was registered, and cannot be read by this code.
    """
    path, registered = folder / PackagedDocument.file_name, entry.tags.get(DOCUMENT_TAG)
    if not path.is_file():
        return f"{path.name} is missing"
    if registered is None:
        log.warning(
            "Version %s was registered before genreflow kept the digest of %s: whether that file was altered "
            "cannot be told.", entry.version, path.name,
        )  # fmt: skip
    elif file_digest(path) != registered:
        return f"{path.name} was altered since it was registered"
    try:
        document = PackagedDocument.read(folder)
    except GenreflowError as error:
        raise ModelError(
            f"Version {entry.version} was made by another version of genreflow, and this one cannot read its "
            f"{path.name} ({str(error).partition(': ')[2].rstrip('.')}). Train and register it anew."
        ) from error
    if document.digest != entry.tags["digest"]:
        return f"its digest is {document.digest}, not {entry.tags['digest']}"
    return next(problems(folder, document), None)
