"""The setting `checkpoint_uri`: the folder of checkpoints, or a bucket that they are mirrored to."""

from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlparse

from pydantic import AfterValidator

from genreflow.core import object_store
from genreflow.core.errors import ObjectStoreError
from genreflow.training.mirror import CheckpointMirror


def _checked_uri(uri: str | None) -> str | None:
    scheme, mark, _ = (uri or "").partition("://")
    if mark and scheme not in ("file", "s3"):
        raise ValueError("checkpoints go to a folder, file:// or s3://BUCKET/PREFIX")
    if scheme == "s3" and mark:
        try:
            object_store.parts(uri or "")
        except ObjectStoreError as error:
            raise ValueError(str(error)) from error
    return uri


CheckpointUri = Annotated[str | None, AfterValidator(_checked_uri)]
"""A folder (path or file://), s3://BUCKET/PREFIX, or None."""


def local_root(uri: str | None, default: Path) -> Path:
    """The folder under which the checkpoints of all runs lie here; of those that are mirrored, too.

    Args:
        default: where the setting names no folder.
    """
    if uri is None or uri.startswith("s3://"):
        return default
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    return Path(uri).expanduser().resolve()


def mirror_of(uri: str | None, key: str) -> CheckpointMirror | None:
    """The checkpoints of the run `key` in the bucket that the setting names; None where it names none.

    Raises:
        ObjectStoreError: the bucket cannot be listed or written to.
    """
    if uri is None or not uri.startswith("s3://"):
        return None
    mirror = CheckpointMirror(uri, key)
    mirror.check()
    return mirror
