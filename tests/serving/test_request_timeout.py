"""The patience with a request ends with the request."""

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
from bentoml._internal.server.http.traffic import TimeoutMiddleware

from serving.request_timeout import HUNG_UP, RequestTimeoutMiddleware

SCOPE = {"type": "http"}
VARIABLE: ContextVar[dict[str, Any]] = ContextVar("request")
"""As tracing has one: what a timer's context holds."""


class Held:
    """What a request holds."""


async def nothing() -> dict[str, Any]:
    return {"type": "http.request"}


async def asking() -> AsyncIterator[dict[str, Any]]:
    """A request without a body, whose client waits for the answer."""
    yield {"type": "http.request"}
    await asyncio.Event().wait()


def asked(app: Any, timeout: float, receive: Any = None) -> list[dict[str, Any]]:
    """What is sent in answer to one request."""
    receive = receive or asking().__anext__
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(RequestTimeoutMiddleware(app, timeout)(SCOPE, receive, send))  # type: ignore[arg-type]
    return sent


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.sleep(0.2)
    await send({"type": "http.response.body", "body": b"done"})


def test_an_answer_that_has_begun_is_not_cut() -> None:
    assert [message["type"] for message in asked(answer, 0.05)] == [
        "http.response.start",
        "http.response.body",
    ]


async def sleep(scope: Any, receive: Any, send: Any) -> None:
    """Reads its request, and then answers nothing for a long time."""
    while (await receive()).get("more_body", False):
        pass
    await asyncio.sleep(60)


def test_an_answer_that_does_not_begin_is_given_up() -> None:
    start, body = asked(sleep, 0.05)
    assert start["status"] == 503
    assert (b"retry-after", b"5") in start["headers"]
    assert b"The answer takes more than 0.05 s: try again later" in body["body"]


def test_the_time_that_an_upload_takes_is_not_counted() -> None:
    """A song over a slow line took BentoML's whole patience, and was answered 504."""

    async def blocks() -> AsyncIterator[dict[str, Any]]:
        for _ in range(4):
            await asyncio.sleep(0.1)
            yield {"type": "http.request", "body": b"x", "more_body": True}
        yield {"type": "http.request"}
        await asyncio.Event().wait()

    arriving = blocks()

    async def read(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body", False):
            pass
        await answer(scope, receive, send)

    start, _ = asked(read, 0.3, receive=arriving.__anext__)
    assert start["status"] == 200


def test_a_request_whose_client_hangs_up_is_cancelled() -> None:
    async def hang_up() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "http.request", "body": b"x", "more_body": True}
        yield {"type": "http.request"}
        await asyncio.sleep(0.1)
        yield {"type": "http.disconnect"}

    began = time.monotonic()
    start, _ = asked(sleep, 50, receive=hang_up().__anext__)
    assert start["status"] == HUNG_UP
    assert time.monotonic() - began < 10


def test_the_applications_own_timeout_is_its_own() -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise TimeoutError("of something else")

    with pytest.raises(TimeoutError, match="of something else"):
        asked(fail, 60)


@pytest.mark.parametrize(("kind", "kept"), [(RequestTimeoutMiddleware, 0), (TimeoutMiddleware, 4)])
def test_nothing_of_a_request_outlives_it(kind: type[TimeoutMiddleware], kept: int) -> None:
    """BentoML's own keeps all of them: once it does not, ours can go."""
    seen: list[weakref.ref[Held]] = []

    async def hold(scope: Any, receive: Any, send: Any) -> None:
        scope["held"] = Held()
        seen.append(weakref.ref(scope["held"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def ask() -> int:
        async def send(message: dict[str, Any]) -> None:
            return None

        for _ in range(5):
            scope = {"type": "http"}
            VARIABLE.set(scope)
            middleware: Any = kind(hold, 300.0)  # type: ignore[arg-type]
            await asyncio.create_task(middleware(scope, nothing, send))
        gc.collect()
        return sum(held() is not None for held in seen[:-1])

    assert asyncio.run(ask()) == kept
