"""Versions of the classifier: found, listed, fetched."""

import logging
import shutil
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genreflow.core import home
from genreflow.core.digests import file_digest
from genreflow.core.documents import PackagedDocument
from genreflow.core.errors import (
    GenreflowError,
    ModelError,
    NewerDocumentError,
    NoRegistryError,
    RegistryError,
)
from genreflow.inference.package_files import package_differences
from genreflow.registry.split_decisions import decision_numbers
from genreflow.registry.store import MODEL_NAME, connect, translate_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CHALLENGER = "challenger"
LOGGED_MODEL_TAG = "logged_model"
"""The tag with the id of a version's logged model, which MLflow's SQL registry does not keep."""
METRIC_PREFIX = "test/"
PACKAGED = "packaged"
"""The name of the packaged folder among the registered model's artifacts."""
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
        """As plain JSON values; with the numbers of its decisions, by the test split's key."""
        return asdict(self) | {
            "aliases": list(self.aliases),
            "decisions_on_test_splits": decision_numbers(self.tags),
        }


def versions() -> list[Version]:
    """All versions, the newest first; none where nothing was registered."""
    try:
        client = connect()
    except NoRegistryError:
        return []
    with translate_errors("list the versions"):
        targets = alias_targets(client)
        return [described(client, entry, targets) for entry in entries(client)]


def version(name: str) -> Version:
    """The version of an alias or number.

    Raises:
        RegistryError: there is none, with what there is.
    """
    client = connect()
    with translate_errors("find the version"):
        return described(client, find(client, name))


def champion() -> Version | None:
    """The champion; None where there is none yet."""
    try:
        client = connect()
    except NoRegistryError:
        return None
    with translate_errors("find the champion"):
        entry = look_up(client, CHAMPION)
        return described(client, entry) if entry is not None else None


def fetch(alias_or_version: str) -> Path:
    """The packaged model of an alias or version, downloaded once a content and verified.

    Raises:
        RegistryError: there is no such version, the store refuses, or what it has is not what was registered.
        ModelError: it is what was registered, but its documents do not fit this version of genreflow.
    """
    client = connect()
    with translate_errors("find the version"):
        entry = find(client, alias_or_version)
    folder = home.models_folder() / content_digest(str(entry.version), entry.tags)
    with home.writing(home.models_folder()):
        return _fetched(client, entry, folder)


def _fetched(client: "MlflowClient", entry: "ModelVersion", folder: Path) -> Path:
    if folder.is_dir():
        wrong = _wrong(folder, entry)
        if wrong is None:
            return folder
        log.warning("%s is damaged (%s): fetching it again.", folder, wrong)
        shutil.rmtree(folder)
    home.models_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=home.models_folder()) as scratch:
        with translate_errors(f"download version {entry.version}"):
            arrived = _download_packaged(client, entry, Path(scratch))
        wrong = _wrong(arrived, entry)
        if wrong is not None:
            raise RegistryError(
                f"Version {entry.version} is not what was registered: {wrong}. Train and register it anew."
            )
        home.move_into_place(arrived, folder)
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


def entries(client: "MlflowClient", where: str = "", most: int | None = None) -> list["ModelVersion"]:
    """Versions as MLflow has them, without their aliases, the newest first.

    Args:
        where: further conditions of MLflow's search: `tags.digest = '…'`.
        most: so many of them; all where None.
    """
    filters = f"name = '{MODEL_NAME}'" + (f" AND {where}" if where else "")
    found: list[ModelVersion] = []
    token: str | None = None
    while True:
        page = client.search_model_versions(
            filters, max_results=most or PAGE, order_by=["version_number DESC"], page_token=token
        )
        found += page
        token = page.token
        if not token or most is not None:
            return found


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


def look_up(client: "MlflowClient", name: str) -> "ModelVersion | None":
    """The version of an alias or number, as MLflow has it with its aliases; None where there is none."""
    from mlflow.exceptions import MlflowException

    if name.lower() == "latest":  # MLflow's own alias of the highest version, which no person set
        return None
    try:
        if name.isascii() and name.isdecimal():
            return client.get_model_version(MODEL_NAME, name)
        return client.get_model_version_by_alias(MODEL_NAME, name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def find(client: "MlflowClient", name: str) -> "ModelVersion":
    """The version of an alias or number, as MLflow has it with its aliases.

    Raises:
        RegistryError: there is none, with what there is.
    """
    if (found := look_up(client, name)) is not None:
        return found
    there, targets = entries(client), alias_targets(client)
    if not there:
        raise RegistryError("The registry is empty: genreflow run trains and registers a first version.")
    numbers = ", ".join(str(entry.version) for entry in reversed(there))
    named = ", ".join(f"{alias} (version {target})" for alias, target in sorted(targets.items()))
    raise RegistryError(
        f"There is no version or alias {name!r} of {MODEL_NAME}: there are versions {numbers}, and "
        f"{'the aliases ' + named if named else 'no alias'}."
    )


def described(
    client: "MlflowClient", entry: "ModelVersion", targets: dict[str, str] | None = None
) -> Version:
    """A version with its aliases and the figures of its logged model.

    Args:
        targets: alias → version, for an entry of a search, which has no aliases.
    """
    metrics: dict[str, float] = {}
    model_id = logged_model_id(entry)
    if model_id is not None:
        model = client.get_logged_model(model_id)
        metrics = {metric.key.removeprefix(METRIC_PREFIX): metric.value for metric in model.metrics or []}
    number = str(entry.version)
    aliases = entry.aliases if targets is None else [alias for alias in targets if targets[alias] == number]
    return Version(
        version=number,
        aliases=tuple(sorted(aliases)),
        metrics=metrics,
        tags=dict(entry.tags),
        run_id=entry.run_id or None,
        created=datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
    )


def logged_model_id(entry: "ModelVersion") -> str | None:
    """The id of the logged model that a version was made of; None where it was made of something else."""
    source = entry.source or ""
    if LOGGED_MODEL_TAG not in entry.tags and source.startswith("models:/m-"):  # up to 0.1.0
        return source.removeprefix("models:/")
    return entry.tags.get(LOGGED_MODEL_TAG)


def _download_packaged(client: "MlflowClient", entry: "ModelVersion", scratch: Path) -> Path:
    """The packaged folder out of the model's files, under `scratch`."""
    import mlflow.artifacts
    from mlflow.models import Model

    folder = Path(
        mlflow.artifacts.download_artifacts(
            # not the version's `models:/` address, which MLflow resolves in its process-wide default store
            artifact_uri=client.get_model_version_download_uri(MODEL_NAME, str(entry.version)),
            dst_path=str(scratch),
            tracking_uri=home.tracking_uri(),
        )
    )
    flavor = Model.load(str(folder)).flavors["python_function"]
    return folder / str(flavor["artifacts"][PACKAGED]["path"])


def _wrong(folder: Path, entry: "ModelVersion") -> str | None:
    """How a packaged folder differs from the registered version; None where it does not.

    Raises:
        ModelError: its document is the one that was registered, and cannot be read by this code.
    """
    path, registered = folder / PackagedDocument.file_name, entry.tags.get(DOCUMENT_TAG)
    if not path.is_file():
        return f"{path.name} is missing"
    if registered is None:
        log.warning(
            "Version %s was registered before genreflow kept the digest of %s: whether that file was altered "
            "cannot be determined.", entry.version, path.name,
        )  # fmt: skip
    elif file_digest(path) != registered:
        return f"{path.name} was altered since it was registered"
    try:
        document = PackagedDocument.read(folder)
    except NewerDocumentError as error:
        raise ModelError(f"Version {entry.version} cannot be loaded: {error}") from error
    except GenreflowError as error:
        raise ModelError(
            f"Version {entry.version} was made by another version of genreflow, and this one cannot read its "
            f"{path.name} ({str(error).partition(': ')[2].rstrip('.')}). Train and register it anew."
        ) from error
    if document.digest != entry.tags["digest"]:
        return f"its digest is {document.digest}, not {entry.tags['digest']}"
    return next(package_differences(folder, document), None)
