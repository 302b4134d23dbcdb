"""Who hangs up is not worked for any longer: neither in the front nor in the inner service."""

import io
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import requests
import soundfile
from services import Service

SECONDS = 60
BOUNDARY = "b0undary"
LONG_SECONDS = 3_600
WINDOWS = 4 * LONG_SECONDS
"""Of a song of that length at the model's own hop."""
BOTH_LONG_PLACES = 2


def inferred(service: Service) -> float:
    """How many windows the service has inferred since it was started."""
    figures = requests.get(f"{service.address}/metrics", timeout=SECONDS).text
    return sum(float(total) for total in re.findall(r"^genreflow_batch_windows_sum.* (\S+)$", figures, re.M))


def wav(seconds: float, rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(
        buffer, np.random.default_rng(0).normal(size=round(seconds * rate)) * 0.1, rate, format="WAV"
    )
    return buffer.getvalue()


def asking(service: Service, song: bytes) -> socket.socket:
    """A connection on which a song was sent, whole, and whose answer is to come."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'.encode()
    body = head + song + f"\r\n--{BOUNDARY}--\r\n".encode()
    place = urlsplit(service.address)
    connection = socket.create_connection((place.hostname, place.port), timeout=SECONDS)
    lines = ["POST /timeline HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"Content-Type: multipart/form-data; boundary={BOUNDARY}", "", ""]
    connection.sendall("\r\n".join(lines).encode() + body)
    return connection


@contextmanager
def stops(service: Service, before: float, least: int = 100) -> Iterator[None]:
    """A block that ends what is asked for, entered once `least` windows were inferred; no more are, then."""
    deadline = time.monotonic() + SECONDS
    while inferred(service) < before + least:
        assert time.monotonic() < deadline, "nothing was ever inferred"
        time.sleep(0.02)
    yield
    time.sleep(0.5)
    after = inferred(service)
    time.sleep(0.5)
    assert inferred(service) == after
    assert after < before + WINDOWS


def test_a_client_that_disconnects_releases_its_place_and_its_windows_are_not_inferred(
    service: Service,
) -> None:
    before = inferred(service)
    connections = [asking(service, wav(LONG_SECONDS, 2_000)) for _ in range(BOTH_LONG_PLACES)]
    with stops(service, before):
        for connection in connections:
            connection.close()
    began = time.monotonic()
    answer = service.post("timeline", wav(10.0, 8_000))  # long enough to need one of the two places
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - began < 5
    assert "(status=499" in service.log
    assert "Traceback" not in service.log


def test_work_for_a_closed_tab_is_cancelled(service: Service) -> None:
    page = f"{service.address}/ui/gradio_api"
    files = {"files": ("long.wav", wav(LONG_SECONDS, 2_000))}
    (path,) = requests.post(f"{page}/upload", files=files, timeout=SECONDS).json()
    before = inferred(service)
    song = {"path": path, "meta": {"_type": "gradio.FileData"}}
    call = {"fn_index": 0, "session_hash": "closed", "data": [song, 0.0]}
    assert requests.post(f"{page}/queue/join", json=call, timeout=SECONDS).ok
    tab = requests.get(f"{page}/queue/data?session_hash=closed", timeout=SECONDS, stream=True)
    with stops(service, before):
        tab.close()
    assert "Traceback" not in service.log


def test_a_client_that_disconnects_before_its_stream_begins_leaves_no_traceback(service: Service) -> None:
    """The page's script asks how an upload goes on, and hangs up as soon as it is there."""
    page = f"{service.address}/ui/gradio_api"
    place = urlsplit(service.address)
    with socket.create_connection((place.hostname, place.port), timeout=SECONDS) as connection:
        connection.sendall(b"GET /ui/gradio_api/upload_progress?upload_id=soon HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.2)
    assert requests.post(f"{page}/upload?upload_id=soon", files={"files": b"RIFF"}, timeout=SECONDS).ok
    deadline = time.monotonic() + SECONDS
    while "path=/ui/gradio_api/upload_progress" not in service.log:
        assert "Traceback" not in service.log
        assert time.monotonic() < deadline, "the stream never ended"
        time.sleep(0.05)
    assert "Traceback" not in service.log


def test_a_session_that_is_not_there_is_reported(service: Service) -> None:
    """Anybody could fill the log with tracebacks."""
    stream = f"{service.address}/ui/gradio_api/queue/data?session_hash=nobody"
    answer = requests.get(stream, timeout=SECONDS)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert json.loads(answer.text.removeprefix("data: "))["session_not_found"] is True
    assert "Traceback" not in service.log
