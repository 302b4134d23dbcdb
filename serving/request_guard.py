"""ASGI middleware before BentoML: API key, size, speed and number of requests, and error responses.

Every error response has a status and one sentence, and says nothing of the host.
"""

import asyncio
import base64
import hmac
import json
import logging
import os
import re
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from anyio import to_thread
from bentoml.exceptions import BentoMLException
from starlette.formparsers import MultiPartException

from genreflow.core.errors import AudioError, GenreflowError, RequestError, SettingsError
from serving.limits import MEGABYTE, Limits
from serving.schemas import ErrorResponse

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

RETRY_SECONDS = 5
SLOWEST_BYTES_A_SECOND = 10_000
"""Of a body being received, after the first `Limits.stall_seconds`; a poor mobile line has twice that."""
BODY_SECONDS = 3_600.0
ARRIVING = 256
"""Bodies received at once: each holds a socket and a file, and does not count among `Limits.requests`."""
LEAST_KEPT_BYTES = 100_000
"""The least that an uploaded file of the page counts: a million empty files would fill a disk, too."""
PAGE_CALL_MEGABYTES = 1
"""Of what the page's script sends beside uploads: a few hundred bytes, held in memory."""

PROBES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
"""Neither counted nor behind the key: for whatever monitors the service."""
KEYLESS = frozenset({"/", "/docs.json", "/schema.json"})
"""The API page and what it is drawn from."""
KEYLESS_FOLDER = "/static_content/"
PAGE = "/ui"
"""The page under this path answers with errors of its own kind."""
PAGE_ADDRESSES = re.compile(
    r"(/|/config|/theme\.css|/(assets|static)/.+|/gradio_api/"
    r"(upload|upload_progress|queue/(join|data)|cancel|reset|app_id|heartbeat/[^/]+|file=/.+))?"
)
"""Below that path, what its script requests. Gradio mounts much more: a proxy, an API, a video tool."""

SENTENCES = {
    404: "There is nothing under this address: the API is described at /.",
    405: "This address takes another HTTP method (POST or GET): the API is described at /.",
    500: "Something unexpected went wrong in the service: its log has the error.",
    503: "The service is not ready: try again in a few seconds.",
}
AUDIO_STATUS = {"too-long": 413}


_refusals: ContextVar[list[tuple[int, str]] | None] = ContextVar("refusals", default=None)


class Refused(BentoMLException):
    """Ends a request inside BentoML; `RequestGuardMiddleware` sends the response that was noted."""


class RequestAborted(MultiPartException):
    """Ends the reading of a body: of all errors the one at which Gradio deletes what it had received."""


def refuse(error: GenreflowError) -> NoReturn:
    """End the request with the error's sentence and its status: 4xx for what the caller can change."""
    if isinstance(error, RequestError):
        status = error.status
    elif isinstance(error, AudioError):
        status = AUDIO_STATUS.get(error.reason, 400)
    else:
        status = 400 if isinstance(error, SettingsError) else 503
    noted = _refusals.get()
    if noted is not None:
        noted.append((status, str(error)))
    raise Refused(str(error))


def hide_refusals(record: logging.LogRecord) -> bool:
    """A logging filter: BentoML writes a traceback for every refused upload."""
    error = record.exc_info[1] if record.exc_info else None
    return not (
        isinstance(error, BentoMLException) and (isinstance(error, Refused) or error.error_code < 500)
    )


class RequestGuardMiddleware:
    """ASGI middleware before BentoML: key, number and size of requests, every error an `ErrorResponse`."""

    def __init__(self, app: App, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self.arriving = 0
        self.inside = 0
        self.bytes_inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # no endpoint uses websockets, and the key is not checked for them
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self.app(scope, receive, send)
            return
        call = _on_page(scope) and not _page_upload(scope)
        most = PAGE_CALL_MEGABYTES if call else self.limits.upload_megabytes
        counted = scope["method"] == "POST" and not call
        try:
            self._check_key(scope)
            if _on_page(scope) and not PAGE_ADDRESSES.fullmatch(scope["path"].removeprefix(PAGE)):
                raise RequestError(SENTENCES[404], 404)
            self._check_size(scope, most)
            if _page_upload(scope):
                await to_thread.run_sync(self._check_room)
            if counted:
                self.check_concurrency(self.arriving < ARRIVING)
        except RequestError as error:
            await _send_problem(send, error.status, str(error))
            return
        await self._through(scope, receive, send, most, counted)

    async def _through(self, scope: Scope, receive: Receive, send: Send, most: int, counted: bool) -> None:
        noted: list[tuple[int, str]] = []
        token = _refusals.set(noted)
        body = _Body(self, receive, noted, most, counted, _has_body(scope))
        reply = _Reply(send, noted, rewrite=not _on_page(scope))
        try:
            await self.app(scope, body, reply)
        finally:
            _refusals.reset(token)
            body.release()

    def _check_key(self, scope: Scope) -> None:
        key = self.limits.api_key
        if key is None or keyless(scope["path"]):
            return
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _, token = given.partition(" ")
        if scheme.lower() == "basic":
            try:
                token = base64.b64decode(token).decode().partition(":")[2]
            except ValueError:
                token = ""
        if not hmac.compare_digest(token.strip().encode(), key.encode()):
            raise RequestError(
                "This service needs a key: send it as `Authorization: Bearer KEY`, or as the password of "
                "any user name in a browser.",
                401,
            )

    def _check_size(self, scope: Scope, most: int) -> None:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit():
            raise RequestError("The header Content-Length is no number.", 400)
        self.check_bytes(int(declared), int(declared), most)

    def _check_room(self) -> None:
        """Refuse uploads of the page while its kept uploads fill `Limits.uploads_megabytes`.

        Raises:
            RequestError: 503.
        """
        folder = Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio")
        kept = 0
        # passes over a folder that is deleted meanwhile, as rglob does not
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                with suppress(FileNotFoundError):  # deleted meanwhile
                    kept += max(Path(parent, name).stat().st_size, LEAST_KEPT_BYTES)
        if kept > self.limits.uploads_megabytes * MEGABYTE:
            raise RequestError("The page keeps too many uploads: try again in half an hour.", 503)

    def check_concurrency(self, room: bool = True) -> None:
        """Refuse a request above the limit of concurrent ones, or where there is no `room` for its body.

        Raises:
            RequestError: 503.
        """
        if self.inside >= self.limits.requests or not room:
            busy = self.inside + self.arriving
            raise RequestError(f"The service is busy with {busy} requests: try again in a few seconds.", 503)

    def check_bytes(self, received: int, more: int, most: int) -> None:
        """Refuse a body above the size limit, or above what is left of the limit of all bodies.

        Args:
            most: megabytes of one body.

        Raises:
            RequestError: 413, or 503 where others leave no room.
        """
        if received > most * MEGABYTE:
            raise RequestError(f"The upload is larger than {most} MB: send mp3 or flac, or a part.", 413)
        if self.bytes_inside + more > self.limits.uploads_megabytes * MEGABYTE:
            raise RequestError("The service is busy with large uploads: try again in a few seconds.", 503)


class _Body:
    """`receive` that counts the body of a request, and ends it where it is too large or too slow."""

    def __init__(
        self,
        guard: RequestGuardMiddleware,
        receive: Receive,
        noted: list[tuple[int, str]],
        most: int,
        counted: bool,
        expected: bool,
    ) -> None:
        self.guard, self.receive, self.noted, self.most = guard, receive, noted, most
        self.counted, self.expected = counted, expected
        self.began = asyncio.get_running_loop().time()
        self.received = 0
        self.whole = False
        self.inside = False
        guard.arriving += counted

    async def __call__(self) -> Message:
        if self.whole:
            return await self.receive()
        try:
            message = await self._next()
            size = len(message.get("body", b""))
            self.guard.check_bytes(self.received + size, size, self.most)
            self.received += size
            self.guard.bytes_inside += size
            if not message.get("more_body", False):
                self._admit()
        except RequestError as error:
            self.noted.append((error.status, str(error)))
            raise RequestAborted(str(error)) from error
        return message

    async def _next(self) -> Message:
        seconds = self.guard.limits.stall_seconds + self.received / SLOWEST_BYTES_A_SECOND
        try:
            async with asyncio.timeout_at(self.began + min(seconds, BODY_SECONDS)):
                message = await self.receive()
        except TimeoutError:
            raise RequestError(
                f"The upload comes too slowly: {self.received:,} bytes of it have arrived. Try again from a "
                "better line, or send mp3.",
                408,
            ) from None
        if message["type"] == "http.disconnect" and self.expected:
            raise RequestError("The upload was interrupted.")
        return message

    def _admit(self) -> None:
        self.whole = True
        if self.counted:
            self.guard.check_concurrency()
            self.guard.arriving -= 1
            self.guard.inside += 1
            self.inside = True

    def release(self) -> None:
        """Release what the request counted for."""
        self.guard.bytes_inside -= self.received
        if self.inside:
            self.guard.inside -= 1
        else:
            self.guard.arriving -= self.counted


class _Reply:
    """`send` that turns every error into an `ErrorResponse`."""

    def __init__(self, send: Send, noted: list[tuple[int, str]], rewrite: bool) -> None:
        self.send, self.noted, self.rewrite = send, noted, rewrite
        self.status = 200
        self.body = b""
        self.allowed: list[tuple[bytes, bytes]] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            self.allowed = [pair for pair in headers if pair[0].lower() == b"allow"]
            if (
                not self.rewrite
            ):  # Gradio lets scripts of every site read the page's responses, with the browser's key
                kept = [pair for pair in headers if not pair[0].lower().startswith(b"access-control-")]
                message["headers"] = kept
        if self.status < 400 or not (self.rewrite or self.noted):
            await self.send(message)
            return
        self.body += message.get("body", b"")
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            status, sentence = (
                self.noted[0] if self.noted else (self.status, _sentence(self.status, self.body))
            )
            await _send_problem(self.send, status, sentence, self.allowed)


def keyless(path: str) -> bool:
    """Whether a path needs no key."""
    return path in PROBES or path in KEYLESS or path.startswith(KEYLESS_FOLDER)


def _on_page(scope: Scope) -> bool:
    return bool(scope["path"] == PAGE or scope["path"].startswith(f"{PAGE}/"))


def _has_body(scope: Scope) -> bool:
    """Whether a body follows. Where none does, receiving only shows whether the client is still connected."""
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _page_upload(scope: Scope) -> bool:
    return _on_page(scope) and str(scope["path"]).endswith("/upload")


def _sentence(status: int, body: bytes) -> str:
    """The sentence for BentoML's response: its own for errors of the caller, ours for the rest."""
    if status in SENTENCES:
        return SENTENCES[status]
    try:
        answer = json.loads(body)
        answer = answer[0] if isinstance(answer, list) else answer
        return str(answer["error"])
    except (ValueError, LookupError, TypeError):
        return f"The request cannot be answered (HTTP status {status}): the API is described at /."


async def _send_problem(
    send: Send, status: int, sentence: str, others: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    body = ErrorResponse(error=sentence).model_dump_json().encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *others]
    if status in (429, 503):
        headers.append((b"retry-after", str(RETRY_SECONDS).encode()))
    if status == 408:
        headers.append((b"connection", b"close"))  # otherwise what still arrives would keep the socket open
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="genreflow", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
