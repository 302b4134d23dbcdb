"""Checkpoints of a training run, or of a search, in an object store, from where another machine goes on.

Files lie there by the digest of their content, and one object, written last, names those of the whole
checkpoints: an upload that was cut short is never taken for one, and what did not change is not stored again.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from genreflow.core import object_store
from genreflow.core.errors import ObjectStoreError
from genreflow.training.checkpoint_digests import digests_of, verify_checkpoint, write_digests

POINTER = "last.json"
KEPT = 2
"""Checkpoints that are kept: the last, and the one before in case that is damaged."""
CONNECTIONS = 10
ATTEMPTS = 2
"""Tries of one request: training waits for them, and the next checkpoint is the next try."""
NOT_FOUND = ("NoSuchKey", "404")
PROBED = "probed"
"""What the phase that trains the head alone ended with."""
SEARCHED = "searched"
"""The trials so far of a search for parameters."""
CHECKPOINT = re.compile(rf"(probe|tune)/checkpoint-\d+|{PROBED}|{SEARCHED}")
FILE = re.compile(r"\w[\w.-]*")
DIGEST = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger("genreflow")
Files = dict[str, str]
"""sha256 by file name."""


class CheckpointMirror:
    """The checkpoints of one training run below `s3://BUCKET/PREFIX`.

    Args:
        address: `s3://BUCKET/PREFIX`.
        key: of the run, a folder below the prefix.

    Raises:
        ObjectStoreError: the address names no bucket, or boto3 cannot be used.
    """

    def __init__(self, address: str, key: str) -> None:
        self.address = address
        self._bucket, prefix = object_store.parts(address)
        self._prefix = "/".join(part for part in (prefix, key) if part)
        self._client = object_store.client(address, CONNECTIONS, ATTEMPTS)
        self._stored: set[str] = set()
        """Digests of files that the store has."""

    def check(self) -> None:
        """Nothing where the bucket can be listed and written to.

        Raises:
            ObjectStoreError: it cannot.
        """
        probe = {"Bucket": self._bucket, "Key": f"{self._prefix}/.probe-{os.getpid()}"}
        try:
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=f"{self._prefix}/", MaxKeys=1)
            self._client.put_object(**probe, Body=b"")
            self._client.delete_object(**probe)
        except object_store.error_types() as error:
            raise ObjectStoreError(" ".join(self._describe(error, "written to")).strip()) from error

    @cached_property
    def checkpoints(self) -> dict[str, Files]:
        """What the pointer names, oldest first: checkpoint folders relative to the run's, and their files.

        Raises:
            ObjectStoreError: the store does not answer.
        """
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{POINTER}")
            text = answer["Body"].read()
        except object_store.error_types() as error:
            if object_store.code(error) in NOT_FOUND:
                return {}
            raise ObjectStoreError(" ".join(self._describe(error, "read")).strip()) from error
        named = _pointer(text)
        if named is None:
            log.warning("s3://%s/%s/%s is damaged and ignored.", self._bucket, self._prefix, POINTER)
            return {}
        self._stored = {digest for files in named.values() for digest in files.values()}
        return named

    def fetch(self, name: str, folder: Path) -> str | None:
        """Bring one checkpoint into `folder`, which appears whole or not at all.

        Returns:
            What is wrong with the checkpoint that the store has, None where it is here now.

        Raises:
            ObjectStoreError: the store does not answer.
        """
        half = folder.with_name(f".{folder.name}.half-{os.getpid()}")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        try:
            for file, digest in self.checkpoints[name].items():
                self._client.download_file(self._bucket, self._key(digest), str(half / file))
            write_digests(half, self.checkpoints[name])
            problem = verify_checkpoint(half)
            if problem is None:
                shutil.rmtree(folder, ignore_errors=True)
                half.rename(folder)
        except object_store.error_types() as error:
            if object_store.code(error) not in NOT_FOUND:
                raise ObjectStoreError(" ".join(self._describe(error, "read")).strip()) from error
            problem = f"is damaged: {file} is missing"
        finally:
            shutil.rmtree(half, ignore_errors=True)
        if problem is not None:
            # training makes the same files again: they are not to be taken for stored
            self._stored -= set(self.checkpoints.pop(name).values())
        return problem

    def push(self, run: Path, name: str) -> str | None:
        """Store the sealed checkpoint `run/name`, and what the probe ended with where that is not yet there.

        Returns:
            Why it could not be stored, None where it was.
        """
        before = self.checkpoints
        named = dict(before)
        try:
            for some in (PROBED, name):
                files = digests_of(run / some)
                if files is None or named.get(some) == files:
                    continue
                for file, digest in files.items():
                    if digest not in self._stored:
                        with (run / some / file).open("rb") as content:
                            self._client.upload_fileobj(content, self._bucket, self._key(digest))
                        self._stored.add(digest)
                named.pop(some, None)
                named[some] = files
            named = {some: files for some, files in named.items() if some not in _superseded(named)}
            pointer = json.dumps({"checkpoints": named}, indent=1).encode()
            self._client.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{POINTER}", Body=pointer)
        except object_store.error_types() as error:
            return self._describe(error, "written to")[0]
        except OSError as error:
            return f"{run / name} cannot be read: {error.strerror}."
        self.checkpoints = named
        self._delete_unreferenced(before)
        return None

    def clear(self) -> str | None:
        """Delete all that the store has of this run.

        Returns:
            Why it could not be deleted, None where it was.
        """
        self.checkpoints, self._stored = {}, set()
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}/"
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    self._client.delete_object(Bucket=self._bucket, Key=entry["Key"])
        except object_store.error_types() as error:
            return self._describe(error, "cleared")[0]
        return None

    def _delete_unreferenced(self, before: dict[str, Files]) -> None:
        """Delete the files of checkpoints that are no longer named."""
        still = {digest for files in self.checkpoints.values() for digest in files.values()}
        for digest in {digest for files in before.values() for digest in files.values()} - still:
            try:
                self._client.delete_object(Bucket=self._bucket, Key=self._key(digest))
            except object_store.error_types() as error:
                # only room is lost, and no longer than until the run ends
                log.warning("An old checkpoint stays: %s", self._describe(error, "cleared")[0])
                return
            self._stored.discard(digest)

    def _key(self, digest: str) -> str:
        return f"{self._prefix}/files/{digest}"

    def _describe(self, error: Exception, what: str) -> tuple[str, str]:
        return object_store.describe_error(error, self.address, self._client.meta.endpoint_url, what)


def _superseded(names: Collection[str]) -> set[str]:
    """Of checkpoints, the oldest first, those that need not be kept."""
    probe, tune = ([name for name in names if name.startswith(f"{phase}/")] for phase in ("probe", "tune"))
    return set(tune[:-KEPT]) | set(probe if PROBED in names else probe[:-KEPT])


def _pointer(text: bytes) -> dict[str, Files] | None:
    """What a pointer names; None where it is not what `push` wrote, such as a name that leaves the folder."""
    try:
        named: Any = json.loads(text)["checkpoints"]
        right = all(
            CHECKPOINT.fullmatch(name)
            and all(FILE.fullmatch(file) and DIGEST.fullmatch(digest) for file, digest in files.items())
            for name, files in named.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return named if right else None
