"""The patience with a request ends with the request."""

import asyncio
import gc
import weakref
from contextvars import ContextVar
from typing import Any

import pytest
from bentoml._internal.server.http.traffic import TimeoutMiddleware

from serving.patience import Patience

SCOPE = {"type": "http"}
VARIABLE: ContextVar[dict[str, Any]] = ContextVar("request")
"""As tracing has one: what a timer's context holds."""


class Held:
    """What a request holds."""


async def nothing() -> dict[str, Any]:
    return {"type": "http.request"}


def asked(app: Any, timeout: float, kind: type[TimeoutMiddleware] = Patience) -> list[dict[str, Any]]:
    """What is sent in answer to one request."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(kind(app, timeout)(SCOPE, nothing, send))  # type: ignore[arg-type, func-returns-value]
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


def test_an_answer_that_does_not_begin_is_given_up() -> None:
    async def sleep(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    start, body = asked(sleep, 0.05)
    assert start["status"] == 504
    assert body["body"] == b'{"error":"The answer takes more than 0.05 s."}'


def test_the_applications_own_timeout_is_its_own() -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise TimeoutError("of something else")

    with pytest.raises(TimeoutError, match="of something else"):
        asked(fail, 60)


@pytest.mark.parametrize(("kind", "kept"), [(Patience, 0), (TimeoutMiddleware, 4)])
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
