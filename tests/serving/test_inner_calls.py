"""What the front does when the inner service breaks off, is not there, or fails: over real connections."""

import asyncio
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import bentoml
import pytest
from _bentoml_impl.client.proxy2 import AsyncClient
from faults import Web, serving
from servers import free_port

from genreflow.core.errors import RequestError
from serving import inner_calls
from serving.inner_calls import call_inner


@bentoml.service(name="inference")
class Inference:
    """With the signature of the real one."""

    @bentoml.api
    async def infer(self, rows: list[Any]) -> list[Any]:
        return rows


class Inner(Web):
    """Answers `infer` with [7]; connections break as often as `breaks` says, before the answer."""

    breaks = 0

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if "chunked" in request.headers.get("Transfer-Encoding", ""):
            while size := int(request.rfile.readline(), 16):
                request.rfile.read(size + 2)
            request.rfile.readline()
        else:
            request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if self.breaks:
            self.breaks -= 1
            self.requests.append((request.command, request.path, {}))
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        self.headers["/infer"] = {"Content-Type": "application/json"}
        fault = bool(self.faults)
        super().answer(request)
        if not fault:  # the base class answers GET alone with a body
            request.wfile.write(self.files["/infer"])


@pytest.fixture
def inner() -> Iterator[Inner]:
    web = Inner()
    web.files["/infer"] = b"[7]"
    with serving(web):
        yield web


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner_calls, "PAUSES", (0.05, 0.2))


def infer(port: int) -> Any:
    """What the front gets, as it calls."""

    address = f"http://127.0.0.1:{port}"

    async def called() -> Any:
        # what BentoML's proxy of a dependency calls
        async with AsyncClient(address, service=Inference, server_ready_timeout=0) as client:
            return await call_inner(lambda: client.infer(rows=[1]))

    return asyncio.run(called())


def test_an_error_of_the_model_is_not_tried_again(inner: Inner) -> None:
    inner.faults.extend([("status", 500)] * 3)
    with pytest.raises(RequestError, match="model failed") as caught:
        infer(inner.port)
    assert caught.value.status == 500
    assert len(inner.requests) == 1


@pytest.mark.parametrize("breaks", [0, 1, 2])
def test_a_connection_that_broke_is_tried_again_after_a_pause(inner: Inner, breaks: int) -> None:
    inner.breaks = breaks
    began = time.monotonic()
    assert infer(inner.port) == [7]
    assert len(inner.requests) == breaks + 1
    assert time.monotonic() - began >= sum(inner_calls.PAUSES[:breaks])


def test_a_call_is_repeated_while_the_inner_service_is_busy(inner: Inner) -> None:
    inner.faults.append(("status", 503))
    assert infer(inner.port) == [7]


@pytest.mark.parametrize("there", [False, True])
def test_an_inner_service_that_does_not_come_back_ends_with_an_error_message(
    inner: Inner, there: bool
) -> None:
    inner.faults.extend([("status", 503)] * 9)
    began = time.monotonic()
    with pytest.raises(RequestError, match="try again in a few seconds") as caught:
        infer(inner.port if there else free_port())
    assert caught.value.status == 503
    assert time.monotonic() - began >= sum(inner_calls.PAUSES)
    assert len(inner.requests) == (3 if there else 0)
