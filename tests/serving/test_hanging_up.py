"""Who hangs up is not worked for any longer: neither in the front nor in the inner service."""

import io
import re
import socket
import time
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


def test_who_hangs_up_gives_his_place_back_and_his_windows_are_not_inferred(service: Service) -> None:
    before = inferred(service)
    connections = [asking(service, wav(LONG_SECONDS, 2_000)) for _ in range(BOTH_LONG_PLACES)]
    deadline = time.monotonic() + SECONDS
    while inferred(service) < before + 100:
        assert time.monotonic() < deadline, "nothing was ever inferred"
        time.sleep(0.02)
    for connection in connections:
        connection.close()
    time.sleep(0.5)
    after = inferred(service)
    assert after < before + BOTH_LONG_PLACES * WINDOWS * 0.9
    time.sleep(0.5)
    assert inferred(service) == after
    began = time.monotonic()
    answer = service.post("timeline", wav(10.0, 8_000))  # long enough to need one of the two places
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - began < 5
    assert "(status=499" in service.log
    assert "Traceback" not in service.log
