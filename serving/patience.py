"""BentoML's patience with a request, whose timer ends with the request.

BentoML's own (1.4.39) leaves a timer, and with it what the request held, to the loop till it would have rung,
which is 300 MB in two processes at forty requests a second and five minutes of patience.
"""

import asyncio

from bentoml._internal.server.http import traffic
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send


class Patience(traffic.TimeoutMiddleware):
    """An ASGI middleware that answers 504 where no answer has begun in `timeout` seconds."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        async def begin(message: Message) -> None:
            timer.reschedule(None)
            await send(message)

        try:
            async with asyncio.timeout(self.timeout) as timer:
                await self.app(scope, receive, begin)
        except TimeoutError:
            if not timer.expired():
                raise  # the application's own
            sentence = f"The answer takes more than {self.timeout:g} s."
            await JSONResponse({"error": sentence}, 504)(scope, receive, send)


def install() -> None:
    """Have BentoML take this one: it looks the class up when a server begins."""
    traffic.TimeoutMiddleware = Patience  # type: ignore[misc]
