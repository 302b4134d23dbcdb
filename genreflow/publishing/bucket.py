"""A published model below a prefix of a bucket: what decides last, nothing of others touched.

A bucket has no commits. Every object carries the sha256 of its content. The record says first what is going
to be written: an interrupted publish leaves nothing that a later one does not list. `packaged.json`, by
which the folder becomes another model, comes last of the model's files: a download in between detects it
from the digests and is never given half of each.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from genreflow.core import home, object_store
from genreflow.core.digests import file_digest
from genreflow.core.documents import PackagedDocument, PublishedDocument
from genreflow.core.errors import GenreflowError, NewerDocumentError, PublishError
from genreflow.inference.package_files import package_differences
from genreflow.publishing.layout import CARD, Published

CONNECTIONS = 10
ATTEMPTS = 5
DIGEST = "genreflow-sha256"
"""Metadata of every object that was published, with the sha256 of its content."""
NOT_FOUND = ("NoSuchKey", "404")
LAST = (CARD, PackagedDocument.file_name)
CONTENT_TYPES = {
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".xml": "application/xml",
}


def check(address: str, public: bool) -> None:
    """Nothing where the bucket is there, and what publishing wrote below the prefix can be recognised.

    Raises:
        PublishError: there is no such bucket, or the store refuses.
    """
    place = _BucketPrefix(address)
    place.check()
    place.record()


def upload(address: str, folder: Path, record: PublishedDocument, public: bool) -> Published:
    """Bring a laid-out folder to `s3://BUCKET/PREFIX`.

    Raises:
        PublishError: there is something else of these names, or the store refuses.
    """
    place = _BucketPrefix(address)
    before = place.record()
    digest = file_digest(folder / PublishedDocument.file_name)
    held = {name: place.digest(name) for name in {*record.files, *before}}
    foreign = [name for name in record.files if held[name] == ""]
    if foreign:
        raise PublishError(
            f"{address} holds {', '.join(foreign[:3])}, which genreflow did not publish: name another prefix "
            "or delete it."
        )
    changed = [name for name, digest in record.files.items() if held[name] != digest]
    removed = [name for name in before if name not in record.files and held[name]]
    if changed or removed or place.digest(PublishedDocument.file_name) != digest:
        place.write(record.model_copy(update={"files": before | record.files}))
        for name in sorted(changed, key=lambda name: LAST.index(name) + 1 if name in LAST else 0):
            place.put(name, folder / name, record.files[name])
        for name in removed:
            place.delete(name)
        place.write(record)
    return Published(
        version=record.version,
        url=address.rstrip("/"),
        digest=digest,
        visibility="read by whom the bucket's policy lets",
        uploaded=tuple(changed),
        removed=tuple(removed),
    )


def download(address: str) -> Path:
    """The packaged model below `s3://BUCKET/PREFIX`, in the state folder; downloaded once a content.

    Raises:
        PublishError: there is none, it is being replaced, or the store refuses.
    """
    with home.writing(home.models_folder()):
        return _downloaded(address)


def _downloaded(address: str) -> Path:
    place = _BucketPrefix(address)
    home.models_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=home.models_folder()) as scratch:
        arrived = Path(scratch) / "published"
        arrived.mkdir()
        place.get(PackagedDocument.file_name, arrived)
        document = _readable(address, arrived)
        folder = home.models_folder() / f"published-{file_digest(arrived / PackagedDocument.file_name)}"
        if folder.is_dir():
            if next(package_differences(folder, document), None) is None:
                return folder
            shutil.rmtree(folder)
        for name in document.files:
            place.get(name, arrived)
        wrong = next(package_differences(arrived, document), None)
        if wrong is not None:
            raise PublishError(
                f"What lies at {address} is not a complete model: {wrong}. Fetch again, or publish it anew."
            )
        home.move_into_place(arrived, folder)
    return folder


class _BucketPrefix:
    """A prefix of a bucket."""

    def __init__(self, address: str) -> None:
        try:
            self._bucket, self._prefix = object_store.parts(address)
            self._client = object_store.client(address, CONNECTIONS, ATTEMPTS)
        except GenreflowError as error:
            raise PublishError(str(error)) from error
        self._address = address

    def check(self) -> None:
        """Nothing where the bucket is there: a request for one object does not show it."""
        with self._translate_errors("listed"):
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=f"{self._prefix}/", MaxKeys=1)

    def record(self) -> dict[str, str]:
        """What publishing wrote here, sha256 by path; nothing where it never did."""
        with tempfile.TemporaryDirectory() as scratch:
            try:
                self.get(PublishedDocument.file_name, Path(scratch))
            except _Missing:
                return {}
            try:
                return PublishedDocument.read(Path(scratch)).files
            except NewerDocumentError as error:
                raise PublishError(f"{self._address} cannot be read: {error}") from error
            except GenreflowError as error:
                raise PublishError(
                    f"{self._address} has a {PublishedDocument.file_name} that this version of genreflow did "
                    "not write: name another prefix, or delete it."
                ) from error

    def digest(self, name: str) -> str | None:
        """The sha256 that an object was published with; empty where it was not, None where there is none."""
        try:
            head = self._request("read", self._client.head_object, name)
        except _Missing:
            return None
        return str(head["Metadata"].get(DIGEST, ""))

    def write(self, record: PublishedDocument) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            record.write(Path(scratch))
            path = Path(scratch) / PublishedDocument.file_name
            self.put(path.name, path, file_digest(path))

    def put(self, name: str, path: Path, digest: str) -> None:
        kind = CONTENT_TYPES.get(path.suffix, "application/octet-stream")
        extra = {"Metadata": {DIGEST: digest}, "ContentType": kind}
        self._request("written to", self._client.upload_file, name, Filename=str(path), ExtraArgs=extra)

    def get(self, name: str, folder: Path) -> None:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise PublishError(
                f"What lies at {self._address} is no model of genreflow: it names a file {name}."
            )
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._request("read", self._client.download_file, name, Filename=str(path))

    def delete(self, name: str) -> None:
        self._request("written to", self._client.delete_object, name)

    def _request(self, what: str, function: Any, name: str, **named: Any) -> Any:
        with self._translate_errors(what, name):
            key = f"{self._prefix}/{name}" if self._prefix else name
            return function(Bucket=self._bucket, Key=key, **named)

    @contextmanager
    def _translate_errors(self, what: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except object_store.error_types() as error:
            if object_store.code(error) in NOT_FOUND:
                raise _Missing(f"There is no model at {self._address}: it has no {name}.") from error
            parts = object_store.describe_error(error, self._address, self._client.meta.endpoint_url, what)
            raise PublishError(" ".join(parts).strip()) from error


class _Missing(PublishError):
    """An object that is not there."""


def _readable(address: str, folder: Path) -> PackagedDocument:
    try:
        return PackagedDocument.read(folder)
    except NewerDocumentError as error:
        raise PublishError(f"{address} cannot be read: {error}") from error
    except GenreflowError as error:
        raise PublishError(
            f"What lies at {address} is no model that this version of genreflow reads."
        ) from error
