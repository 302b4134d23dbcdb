"""Calls of the inner service, repeated where the connection broke."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar

import aiohttp
from bentoml.exceptions import BentoMLException

from genreflow.core.errors import RequestError

PAUSES = (0.1, 1.0)
"""Seconds before the second and the third try."""
MAY_PASS = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError)
UNAVAILABLE = "The service cannot infer at the moment: try again in a few seconds."
FAILED = "The model failed on this request; the service's log has the error."

T = TypeVar("T")


async def call_inner(call: Callable[[], Awaitable[T]]) -> T:
    """What `call` returns; it is called again, after a pause, where that may help.

    It may where a worker died and is replaced, where the inner service closed an idle connection just as it
    was used again (bentoml/BentoML#4971), and where it answers 503. An error of the model
    would be the same again.

    Args:
        call: may be called several times.

    Raises:
        RequestError: with status 503 where it did not help, with 500 where the model failed.
    """
    for pause in (*PAUSES, None):
        try:
            return await call()
        except MAY_PASS as error:
            problem: Exception = error
        except BentoMLException as error:
            if error.error_code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise RequestError(FAILED, HTTPStatus.INTERNAL_SERVER_ERROR) from error
            problem = error
        if pause is None:
            raise RequestError(UNAVAILABLE, HTTPStatus.SERVICE_UNAVAILABLE) from problem
        await asyncio.sleep(pause)
    raise AssertionError
