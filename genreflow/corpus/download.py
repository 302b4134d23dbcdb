"""Files over HTTP: resumed where a server allows it, checked by md5, tried again so many times."""

import contextlib
import email.utils
import fcntl
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx

from genreflow.core.digests import file_md5
from genreflow.core.errors import FetchError, one_line
from genreflow.corpus.sources.base import shown
from genreflow.corpus.sources.unpack import MOST_BYTES, SPARE_BYTES

ATTEMPTS = 5
"""Tries in a row without a byte gained, at each address."""
FIRST_PAUSE_SECONDS = 1.0
"""Doubled with each further try."""
LONGEST_PAUSE_SECONDS = 60.0
"""A longer Retry-After is not waited for."""
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
BUSY = {408, 425, 429, 500, 502, 503, 504}
"""Statuses that may be another one a little later."""

log = logging.getLogger("genreflow")


def download(
    addresses: Sequence[str],
    target: Path,
    md5: str | None = None,
    on_progress: Callable[[int, int | None], None] = lambda done, total: None,
    headers: dict[str, str] | None = None,
) -> Path:
    """Fetch a file from the first of `addresses` that has it; what an earlier attempt got is gone on from.

    Two processes that fetch the same file do not meet: the second waits, and finds it there.

    Args:
        target: where the file will lie, whole or not at all; beside it lies `<name>.partial` meanwhile.
        md5: in hexadecimal; another content is thrown away.
        on_progress: called with the bytes here and their number, None where the server does not say it.
        headers: such as a token that the server requires; they do not follow a redirection to another host.

    Raises:
        FetchError: no address gave the file, or there is no room for it; the sentence names each address with
            its reason.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        if target.is_file():
            return target
        reasons = []
        for address in addresses:
            try:
                _fetch(_Part(target, address), address, md5, on_progress, headers or {})
                return target
            except _UnavailableError as error:
                reasons.append(f"{_public(address)} {error}")
                log.warning("fetch: %s", reasons[-1])
            except OSError as error:
                raise FetchError(
                    f"{target} cannot be written: {error.strerror}. What was fetched stays; the same command "
                    "goes on from there."
                ) from error
        raise FetchError(f"{'; '.join(reasons)}.")


class _UnavailableError(Exception):
    """An address does not give the file; the message goes on after the address."""


@dataclass
class _Part:
    """What is here of a file, and which state of the remote file it belongs to."""

    target: Path
    address: str

    @property
    def path(self) -> Path:
        return self.target.with_name(f"{self.target.name}.partial")

    @property
    def _note(self) -> Path:
        return self.target.with_name(f"{self.target.name}.partial.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def validator(self) -> str | None:
        """The ETag or date of what is here, None where it cannot be gone on from."""
        try:
            note = json.loads(self._note.read_text())
        except (OSError, ValueError):
            return None
        return note["validator"] if note.get("address") == self.address else None

    def begin(self, validator: str | None) -> None:
        self.path.write_bytes(b"")
        self._note.write_text(json.dumps({"address": self.address, "validator": validator}))

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self) -> None:
        self.path.replace(self.target)
        self._note.unlink(missing_ok=True)


def _fetch(
    part: _Part,
    address: str,
    md5: str | None,
    on_progress: Callable[[int, int | None], None],
    headers: dict[str, str],
) -> None:
    failures = 0
    while True:
        before = part.size()
        try:
            _go_on(part, address, on_progress, headers)
            if md5 is None or file_md5(part.path) == md5:
                part.finish()
                return
            part.drop()
            if before == 0:  # else what was here may have been damaged: once more from the start
                raise _UnavailableError(f"gives another file than expected (its md5 is not {md5})")
        except _RetryError as error:
            failures = 0 if part.size() > before else failures + 1
            if failures >= ATTEMPTS:
                raise _UnavailableError(f"{error}, {ATTEMPTS} times in a row") from error
            pause = error.wait if error.wait is not None else FIRST_PAUSE_SECONDS * 2**failures / 2
            if pause > LONGEST_PAUSE_SECONDS:
                raise _UnavailableError(f"{error} and requires a wait of {pause:.0f} s") from error
            log.warning("fetch: %s %s; once more in %.0f s", _public(address), error, pause)
            time.sleep(pause)


class _RetryError(Exception):
    """The request may succeed a little later."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def _go_on(
    part: _Part, address: str, on_progress: Callable[[int, int | None], None], headers: dict[str, str]
) -> None:
    """Everything that is missing, in one request."""
    request = {"Accept-Encoding": "identity", "User-Agent": "genreflow"} | headers
    here, validator = part.size(), part.validator()
    if here and validator:
        request |= {"Range": f"bytes={here}-", "If-Range": validator}
    try:
        with httpx.stream("GET", address, headers=request, timeout=TIMEOUT, follow_redirects=True) as answer:
            if answer.status_code == 416:
                part.drop()
                raise _RetryError("does not have the part that is missing", wait=0.0)
            _check_status(answer)
            total = _length(answer)
            if answer.status_code == 206 and _start(answer) == here:
                total = None if total is None else total + here
            else:
                part.begin(_validator(answer))
                here = 0
            room = here + max(0, shutil.disk_usage(part.path.parent).free - SPARE_BYTES)
            most = min(MOST_BYTES, room)
            if total is not None and total > most:
                raise _UnavailableError(f"has {total:,} bytes, and there is room for {most:,}")
            with part.path.open("ab") as file:
                for (
                    block
                ) in answer.iter_raw():  # as it comes: what was received of an interrupted part is kept
                    file.write(block)
                    here += len(block)
                    if here > most:
                        part.drop()
                        raise _UnavailableError(f"has sent {most:,} bytes and does not end")
                    on_progress(here, total)
            if total is not None and here < total:
                raise _RetryError(f"ended after {here:,} of {total:,} bytes", wait=0.0)
    except httpx.InvalidURL as error:
        raise _UnavailableError(f"is no address ({error})") from error
    except httpx.UnsupportedProtocol as error:
        raise _UnavailableError("is no address of HTTP") from error
    except httpx.HTTPError as error:
        raise _RetryError(f"was interrupted ({one_line(error)})") from error


def _check_status(answer: httpx.Response) -> None:
    status = answer.status_code
    if status in (200, 206):
        return
    words = f"answers {status} {answer.reason_phrase}".rstrip()
    if status in BUSY:
        raise _RetryError(words, wait=_retry_after(answer))
    if status in (401, 403):
        words += " (it requires a token or an account; for a hub, HF_TOKEN)"
    raise _UnavailableError(words)


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds, from either form of the header; a date is taken by the server's own clock."""
    value = answer.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        now = answer.headers.get("Date") or email.utils.formatdate()
        until = email.utils.parsedate_to_datetime(value) - email.utils.parsedate_to_datetime(now)
        return max(0.0, until.total_seconds())
    return None


def _length(answer: httpx.Response) -> int | None:
    value = answer.headers.get("Content-Length", "")
    return int(value) if value.isdigit() else None


def _start(answer: httpx.Response) -> int | None:
    value = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(value) if value.isdigit() else None


def _validator(answer: httpx.Response) -> str | None:
    """What If-Range takes: a strong ETag, else the date."""
    etag = answer.headers.get("ETag", "")
    return etag if etag.startswith('"') else answer.headers.get("Last-Modified")


def _public(address: str) -> str:
    """An address without the password or signature that may be in it."""
    parts = urlsplit(address)
    return shown(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")))


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Only one process at a time for one target; the lock goes with the process."""
    path = target.with_name(f".{target.name}.lock")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("fetch: another process is fetching %s; waiting for it", target.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
