"""A registered model, with its card, on a model hub or in a bucket; and back from there.

The same files lie at both: the packaged model as genreflow verifies and loads it, beside it what transformers
loads, the card, and a record of what publishing wrote.
"""

import re
import tempfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from genreflow import registry
from genreflow.core.documents import PackagedDocument
from genreflow.core.errors import PublishError
from genreflow.inference.backends import backend
from genreflow.inference.loading import fallback
from genreflow.publishing import bucket, repository
from genreflow.publishing.layout import Published, lay_out

__all__ = ["SCHEMES", "Published", "fetch", "publish"]

SCHEMES = ("hf://", "s3://")
LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def publish(model: str, to: str, public: bool = False, licence: str | None = None) -> Published:
    """Publish a registered model; the same again uploads nothing, another one replaces it.

    Args:
        model: an alias or version of the registry.
        to: `hf://OWNER/NAME` or `s3://BUCKET/PREFIX`.
        public: of a repository on a hub, which is private otherwise; one that exists keeps what it is.
        licence: for the card, as hubs write it (`apache-2.0`, `cc-by-nc-4.0`); without one the card has none,
            for only who publishes knows what the data and the pretrained weights allow.

    Raises:
        PublishError: the address or the licence is none, or what lies there is in the way, or it refuses.
        RegistryError: there is no such model.
    """
    to = to.rstrip("/") if to not in SCHEMES else to
    place = _destination(to)
    if public and place is not repository:
        raise PublishError(f"--public is for hf://; who may read {to} is decided by the bucket's own policy.")
    if licence is not None and not LICENCE.fullmatch(licence):
        raise PublishError(f"{licence!r} is no licence as hubs write it: apache-2.0 and cc-by-nc-4.0 are.")
    place.check(to, public)
    version = registry.version(model)
    packaged = registry.fetch(version.version)
    with tempfile.TemporaryDirectory(prefix="genreflow-publish-") as scratch:
        record = lay_out(version, packaged, to, Path(scratch), licence)
        published: Published = place.upload(to, Path(scratch), record, public)
    if place is bucket:
        notes = (*published.notes, *_of_the_service(PackagedDocument.read(packaged)))
        published = replace(published, notes=notes)
    return published


def _of_the_service(document: PackagedDocument) -> list[str]:
    """A sentence where the image of the service, which fetches from buckets, cannot serve a model."""
    served, other = (backend(one.runtime) for one in (document.served, fallback(document)))
    if not (served.reads_native_files and other.reads_native_files):
        return []
    return [
        f"This model is served by {served.title}, which the image of the service does not have: build a "
        "bento of its own for it (genreflow build), or an image with "
        f"{', '.join(served.packages)} (docs/serving.md, A model in a folder)."
    ]


def fetch(address: str) -> Path:
    """The folder of a published model, downloaded once; `runtime.load` verifies it.

    Raises:
        PublishError: there is none, or it cannot be reached.
    """
    folder: Path = _destination(address).download(address)
    return folder


def _destination(address: str) -> ModuleType:
    """The module for that kind of address: each has `check`, `upload` and `download`."""
    if address.startswith("hf://"):
        return repository
    if address.startswith("s3://"):
        return bucket
    raise PublishError(f"{address} is no place to publish at: hf://OWNER/NAME and s3://BUCKET/PREFIX are.")
