"""The time limit of a request: it is cancelled when its time is over, and where the client hangs up.

BentoML's own (1.4.39) counts the time that the upload takes, and leaves a timer, and with it what the request
held, in the loop until it would have fired: 300 MB in two processes at forty requests a second, for minutes.
Neither BentoML nor Starlette notices that a client has hung up before there is an answer.
"""

import asyncio

from bentoml._internal.server.http import traffic
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from serving.request_guard import RETRY_SECONDS

HUNG_UP = 499
"""The status of such a request in logs and metrics; the client is gone."""


class RequestTimeoutMiddleware(traffic.TimeoutMiddleware):
    """An ASGI middleware that cancels a request whose client has disconnected.

    It answers 503 where none has begun `timeout` seconds after the request was there as a whole.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        watching: asyncio.Task[None] | None = None
        begun = hung_up = False

        async def receive_and_watch() -> Message:
            nonlocal watching
            message = await receive()
            if message["type"] == "http.request" and watching is None and not begun:
                if message.get("more_body", False):
                    timer.reschedule(None)  # the length of an upload is limited elsewhere
                else:
                    timer.reschedule(loop.time() + self.timeout)
                    watching = asyncio.create_task(watch())
            return message

        async def watch() -> None:
            nonlocal hung_up
            while (await receive())["type"] != "http.disconnect":
                pass
            hung_up = True
            timer.reschedule(loop.time())

        async def begin(message: Message) -> None:
            nonlocal begun
            begun = True
            if watching is not None:
                watching.cancel()
            timer.reschedule(None)
            await send(message)

        try:
            async with asyncio.timeout(self.timeout) as timer:
                await self.app(scope, receive_and_watch, begin)
        except TimeoutError:
            if not timer.expired():
                raise  # the application's own
            if hung_up:
                await Response(status_code=HUNG_UP)(scope, receive, send)
                return
            sentence = (
                f"The answer takes more than {self.timeout:g} s: try again later, or with a shorter song."
            )
            await JSONResponse({"error": sentence}, 503, {"Retry-After": str(RETRY_SECONDS)})(
                scope, receive, send
            )
        finally:
            if watching is not None:
                watching.cancel()


def install() -> None:
    """Make BentoML use this class: it looks it up when a server begins.

    Private (1.4.39), since a middleware of `add_asgi_middleware` comes behind BentoML's own, and a service
    whose `traffic` has no timeout gets calls of another service that end after 60 seconds.
    """
    traffic.TimeoutMiddleware = RequestTimeoutMiddleware  # type: ignore[misc]
