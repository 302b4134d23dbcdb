"""Objects of a bucket, listed by page, fetched many at once, resumed, and checked against their ETags.

The endpoint and the credentials are boto3's: `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, profiles, roles.
"""

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from genreflow.core import home, object_store
from genreflow.core.digests import file_md5, text_digest
from genreflow.core.errors import CorpusError, FetchError, ObjectStoreError, one_line
from genreflow.core.progress import Reporter
from genreflow.corpus.sources.base import SourceItem, shown
from genreflow.corpus.sources.listing import Names, label

STEP = "ingest"
THREADS = 16
"""Objects fetched at once: small ones wait for the server, not for the processor."""
ATTEMPTS = 5
"""Tries in a row without a byte gained, for one object."""
REQUEST_ATTEMPTS = 6
"""Tries of one request, by boto3 itself."""
FIRST_PAUSE_SECONDS = 0.5
BLOCK = 1 << 18
SUFFIX_LENGTH = 8
ENCRYPTED = ("aws:kms", "aws:kms:dsse")
"""Server-side encryption under which an ETag is not made from the content."""


@dataclass(frozen=True)
class _Object:
    key: str
    size: int
    etag: str
    """Without its quotes."""
    modified: float


class S3Source:
    """`<genre>/*` below a prefix of a bucket, or one or two levels down."""

    def __init__(self, spec: str, genres: tuple[str, ...]) -> None:
        try:
            self._bucket, self._prefix = object_store.parts(spec)
        except ObjectStoreError as error:
            raise CorpusError(str(error)) from error
        self._spec = spec
        self._objects = {item.key: item for item in self._list()}
        start = len(f"{self._prefix}/") if self._prefix else 0
        self._listing = label(Names(key[start:] for key in self._objects), genres, spec)
        self._keys = [
            f"{self._prefix}/{file.path}" if self._prefix else file.path for file in self._listing.files
        ]
        self.synthetic = self._listing.synthetic

    def resolve(self) -> str:
        """sha256 over name, size and ETag of every object in a genre folder."""
        lines = []
        for key, file in zip(self._keys, self._listing.files, strict=True):
            lines.append(f"{file.name} {self._objects[key].size} {self._objects[key].etag}")
        return text_digest([f"synthetic {self.synthetic}", *sorted(lines)])

    def fetch(self) -> None:
        """Bring every object here that is not yet, `THREADS` at once.

        Raises:
            FetchError: one could not be fetched; what was is kept.
        """
        missing = [key for key in self._keys if not self._is_here(self._objects[key])]
        if not missing:
            return
        parts = self._left_behind  # looked for once, not by each thread
        reporter, done, counting = Reporter(STEP, f"objects of {self._spec} fetched"), 0, threading.Lock()
        stopped = threading.Event()

        def fetch(key: str) -> None:
            nonlocal done
            if not stopped.is_set():
                self._fetch(self._objects[key], parts, stopped)
                with counting:
                    done += 1
                    reporter(done, len(missing))

        with ThreadPoolExecutor(THREADS) as pool:
            futures = [pool.submit(fetch, key) for key in missing]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:  # also after Ctrl-C
                stopped.set()
                for future in futures:
                    future.cancel()
        for future in futures:
            if not future.cancelled():
                future.result()

    def items(self) -> Iterator[SourceItem]:
        for key, file in zip(self._keys, self._listing.files, strict=True):
            item = self._objects[key]
            yield SourceItem(
                file.name,
                file.genre,
                lambda item=item: self._open(item),  # type: ignore[misc]
                folder=file.folder,
            )

    def notes(self) -> list[str]:
        return self._listing.notes()

    def _open(self, item: _Object) -> Path:
        if not self._is_here(item):
            self._fetch(item, self._left_behind, threading.Event())
        return self._path(item)

    def _path(self, item: _Object) -> Path:
        """Where an object's content lies: a name of its own for each key and ETag, whatever the key is."""
        suffix = PurePosixPath(item.key).suffix[:SUFFIX_LENGTH]
        safe = suffix if suffix[1:].isalnum() and suffix.isascii() else ""
        return self._folder / f"{text_digest([item.key, item.etag])[:32]}{safe}"

    @cached_property
    def _folder(self) -> Path:
        endpoint = self._client.meta.endpoint_url
        folder = home.corpora_folder() / f"s3-{text_digest([endpoint, self._bucket, self._prefix])[:12]}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @cached_property
    def _left_behind(self) -> dict[str, Path]:
        """Parts that processes which are gone had fetched, by the name of the whole; found in one scan."""
        parts = {}
        for path in self._folder.iterdir():
            name, mark, process = path.name.partition(".partial-")
            if mark and not _alive(int(process)):
                parts[name] = path
        return parts

    def _is_here(self, item: _Object) -> bool:
        """Whether it was fetched, and not touched since: its date is the object's."""
        try:
            state = self._path(item).stat()
        except FileNotFoundError:
            return False
        return state.st_size == item.size and state.st_mtime == item.modified

    @cached_property
    def _client(self) -> Any:
        try:
            return object_store.client(self._spec, THREADS, REQUEST_ATTEMPTS)
        except ObjectStoreError as error:
            raise CorpusError(str(error)) from error

    def _list(self) -> list[_Object]:
        prefix = f"{self._prefix}/" if self._prefix else ""
        found = []
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):  # what consoles make for a folder
                        modified = float(int(entry["LastModified"].timestamp()))
                        etag = entry["ETag"].strip('"')
                        found.append(_Object(entry["Key"], entry["Size"], etag, modified))
        except object_store.error_types() as error:
            raise self._sentence(error, "listed") from error
        if not found:
            raise CorpusError(f"{self._spec} holds no objects. Check the prefix, or upload a folder there.")
        return found

    def _fetch(self, item: _Object, parts: dict[str, Path], stopped: threading.Event) -> None:
        """One object, from where an earlier attempt ended.

        Raises:
            FetchError: it cannot be fetched, was changed since it was listed, or is not what its ETag says.
        """
        target = self._path(item)
        partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
        if left := parts.pop(target.name, None):
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                left.replace(partial)
        failures = 0
        try:
            while not stopped.is_set():
                before = partial.stat().st_size if partial.exists() else 0
                try:
                    digest = hashlib.md5(usedforsecurity=False) if before == 0 else None
                    encrypted = self._go_on(item, partial, before, digest, stopped)
                    if stopped.is_set():
                        return
                    if partial.stat().st_size == item.size:
                        if encrypted or self._is_content(item, partial, digest):
                            os.utime(partial, (item.modified, item.modified))
                            partial.replace(target)
                            return
                        partial.unlink()
                        problem = "the bytes that came are not those of its ETag"
                    else:
                        short = partial.stat().st_size < item.size
                        problem = "the connection ended early" if short else "more came than was listed"
                except self._transient as error:
                    problem = one_line(error)
                after = partial.stat().st_size if partial.exists() else 0
                failures = 0 if after > before else failures + 1
                if failures >= ATTEMPTS:
                    raise FetchError(
                        f"s3://{self._bucket}/{shown(item.key)} could not be fetched in {failures} attempts: "
                        f"{problem}. What was fetched is kept; run again."
                    )
                stopped.wait(FIRST_PAUSE_SECONDS * 2**failures / 2)
        except object_store.error_types() as error:
            raise self._sentence(error, f"read at {shown(item.key)}") from error
        except OSError as error:
            raise FetchError(
                f"{target} cannot be written: {error.strerror}. What was fetched is kept; "
                "make room and run again."
            ) from error

    def _go_on(self, item: _Object, partial: Path, here: int, digest: Any, stopped: threading.Event) -> bool:
        """Append what is missing, and to the digest; whether the ETag says nothing of the content."""
        request = {"Bucket": self._bucket, "Key": item.key, "IfMatch": f'"{item.etag}"'}
        if here > item.size:
            partial.unlink()
            here = 0
        if here == item.size and here > 0:
            answer = self._client.head_object(**request)
            return answer.get("ServerSideEncryption") in ENCRYPTED or "SSECustomerAlgorithm" in answer
        if here:
            request["Range"] = f"bytes={here}-"
        answer = self._client.get_object(**request)
        body = answer["Body"]
        with body, partial.open("ab" if here and "ContentRange" in answer else "wb") as file:
            # a stream without an end is left where the object has its own
            while not stopped.is_set() and file.tell() <= item.size and (block := body.read(BLOCK)):
                file.write(block)
                if digest is not None:
                    digest.update(block)
        return answer.get("ServerSideEncryption") in ENCRYPTED or "SSECustomerAlgorithm" in answer

    def _is_content(self, item: _Object, path: Path, digest: Any) -> bool:
        """Whether a file is what its ETag says: an md5, or the md5 of the md5s of its parts.

        Args:
            digest: of all of the file, where it came in one piece.
        """
        wanted, _, parts = item.etag.partition("-")
        if not parts:
            return (digest.hexdigest() if digest is not None else file_md5(path)) == wanted
        head = self._client.head_object(
            Bucket=self._bucket, Key=item.key, IfMatch=f'"{item.etag}"', PartNumber=1
        )
        size = head["ContentLength"]
        guesses = [size] if size < item.size else _part_sizes(item.size, int(parts))
        return any(_md5_of_parts(path, guess) == wanted for guess in guesses)

    @cached_property
    def _transient(self) -> tuple[type[Exception], ...]:
        from botocore.exceptions import (
            FlexibleChecksumError,
            HTTPClientError,
            IncompleteReadError,
            ResponseStreamingError,
        )
        from urllib3.exceptions import HTTPError

        return (
            IncompleteReadError,
            ResponseStreamingError,
            FlexibleChecksumError,
            HTTPClientError,
            HTTPError,
        )

    def _sentence(self, error: Exception, what: str) -> FetchError:
        """What went wrong with the bucket, for the reader."""
        endpoint, code = self._client.meta.endpoint_url, object_store.code(error)
        if code in ("PreconditionFailed", "NoSuchKey", "404", "412", "InvalidRange", "416"):
            return FetchError(
                f"{self._spec} at {endpoint} was changed since it was listed ({what}, {code}). Run again."
            )
        problem, remedy = object_store.describe_error(error, self._spec, endpoint, what)
        return FetchError(f"{problem} {remedy}".strip())


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _md5_of_parts(path: Path, part: int) -> str:
    """The md5 over the md5s of parts of so many bytes."""
    outer = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while True:
            inner, left = hashlib.md5(usedforsecurity=False), part
            while left and (block := file.read(min(BLOCK, left))):
                inner.update(block)
                left -= len(block)
            if left < part:
                outer.update(inner.digest())
            if left:
                return outer.hexdigest()


def _part_sizes(size: int, parts: int) -> list[int]:
    """Sizes in whole MiB that make so many parts, where a server does not say it."""
    mib = 1 << 20
    return [n * mib for n in range(1, 5 * 1024 + 1) if -(-size // (n * mib)) == parts]
