"""One published model version, brought from a bucket into a folder and verified: a pod's init container.

    python -m serving.fetch --from s3://BUCKET/PREFIX --digest SHA256 --to DIR

The service serves the folder that `GENREFLOW_MODEL_PATH` names. Neither MLflow nor BentoML's store is needed.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from genreflow.core import home, object_store
from genreflow.core.digests import file_digest
from genreflow.core.documents import PackagedDocument, PublishedDocument
from genreflow.core.errors import GenreflowError, PublishError
from genreflow.inference.backends import backend
from genreflow.inference.loading import check_installed
from genreflow.inference.package_files import (
    MODEL_FOLDER,
    ONNX_FOLDER,
    OPENVINO_FOLDER,
    REFERENCE_FILE,
    package_differences,
)

CONNECTIONS = 4
ATTEMPTS = 5
NOT_FOUND = ("NoSuchKey", "404")


def fetch(address: str, digest: str, folder: Path) -> PublishedDocument:
    """Bring a published model to `folder`; what is there already and unaltered is not downloaded again.

    Only the files that the service reads: without the form for transformers and, unless PyTorch serves the
    model, without the weights that PyTorch reads.

    Args:
        address: `s3://BUCKET/PREFIX`, as `genreflow publish` wrote it.
        digest: sha256 of its `published.json`, as `genreflow publish` prints it. That file lists the
            sha256 of all others, so that nothing else is trusted.
        folder: created where missing; another fetched model in it is replaced.

    Raises:
        PublishError: there is no such model, it is not what the digest names, or the store refuses; or
            `folder` holds something else than a model.
        ModelError: what serves it is not installed here.
        GenreflowError: `folder` cannot be written.
    """
    with home.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _check_replaceable(folder)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            return _fetched(address, digest, folder, Path(scratch))


def _fetched(address: str, digest: str, folder: Path, scratch: Path) -> PublishedDocument:
    name = PublishedDocument.file_name
    if not _same(folder / name, digest):
        _download(address, name, scratch)
        if not _same(scratch / name, digest):
            raise PublishError(
                f"{address} is not the version that was named: the sha256 of its {name} is "
                f"{file_digest(scratch / name)}, not {digest}. Publish each version to a prefix of its own."
            )
    record = PublishedDocument.read(scratch if (scratch / name).is_file() else folder)
    listed = PackagedDocument.file_name
    _bring(address, listed, record, folder, scratch)
    document = PackagedDocument.read(scratch if (scratch / listed).is_file() else folder)
    check_installed(document)  # this is the service's image: what cannot be served is not fetched
    native = backend(document.served.runtime).reads_native_files
    wanted = [one for one in document.files if native or not one.startswith(f"{MODEL_FOLDER}/")]
    for one in wanted:
        _bring(address, one, record, folder, scratch)
    for part in (MODEL_FOLDER, OPENVINO_FOLDER, ONNX_FOLDER):
        for path in (folder / part).rglob("*"):
            if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
                path.unlink()
    for one in [*wanted, listed, name]:  # what names the others comes last
        if (scratch / one).is_file():
            (folder / one).parent.mkdir(parents=True, exist_ok=True)
            (scratch / one).replace(folder / one)
    wrong = next(package_differences(folder, document, native=native), None)
    if wrong is not None:
        raise PublishError(f"What lies at {address} is not a complete model: {wrong}. Publish it anew.")
    return record


def _check_replaceable(folder: Path) -> None:
    if (folder / PackagedDocument.file_name).is_file():
        return
    ours = {MODEL_FOLDER, OPENVINO_FOLDER, ONNX_FOLDER, REFERENCE_FILE}  # of an interrupted fetch
    foreign = [path.name for path in folder.iterdir() if path.name not in {*ours, "lost+found"}]
    foreign = [name for name in foreign if not name.startswith(".fetch-")]
    if foreign:
        raise PublishError(
            f"{folder} holds {sorted(foreign)[0]}, which is no part of a model: name an empty folder by --to."
        )


def _bring(address: str, name: str, record: PublishedDocument, folder: Path, scratch: Path) -> None:
    """Download one file that the record lists, unless the folder has it as listed."""
    if name not in record.files:
        raise PublishError(
            f"What lies at {address} is not a complete model: its record does not list {name}."
        )
    if _same(folder / name, record.files[name]):
        return
    _download(address, name, scratch)
    if not _same(scratch / name, record.files[name]):
        raise PublishError(f"{address}/{name} was altered since it was published: publish the version anew.")


def _same(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest


def _download(address: str, name: str, folder: Path) -> None:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise PublishError(f"What lies at {address} is no model of genreflow: it names a file {name}.")
    try:
        bucket, prefix = object_store.parts(address)
        client = object_store.client(address, CONNECTIONS, ATTEMPTS)
    except GenreflowError as error:
        raise PublishError(str(error)) from error
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        client.download_file(Bucket=bucket, Key=f"{prefix}/{name}" if prefix else name, Filename=str(path))
    except object_store.error_types() as error:
        if object_store.code(error) in NOT_FOUND:
            raise PublishError(f"There is no model at {address}: it has no {name}.") from error
        sentences = object_store.describe_error(error, address, client.meta.endpoint_url, "read")
        raise PublishError(" ".join(sentences).strip()) from error


def main(arguments: list[str] | None = None) -> int:
    """The command line; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m serving.fetch", description=__doc__.partition("\n")[0])
    parser.add_argument("--from", dest="address", required=True, metavar="s3://BUCKET/PREFIX")
    parser.add_argument("--digest", required=True, metavar="SHA256", help="as genreflow publish prints it")
    parser.add_argument("--to", type=Path, metavar="DIR", default=os.environ.get("GENREFLOW_MODEL_PATH"))
    given: Any = parser.parse_args(arguments)
    if given.to is None:
        parser.error("name the folder by --to or GENREFLOW_MODEL_PATH")
    try:
        record = fetch(given.address, given.digest.lower(), Path(given.to))
    except GenreflowError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stderr.write(f"Version {record.version} ({record.digest[:12]}) is in {given.to}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
