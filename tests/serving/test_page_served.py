"""The page as the real service serves it: in a real Chromium, with a key, within the service's limits."""

import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Browser, Page, expect
from services import Champion, Service, running

KEY = "open sesame"
HEADERS = {"Authorization": f"Bearer {KEY}"}
UPLOAD = "ui/gradio_api/upload"
JOIN = "ui/gradio_api/queue/join"
TIMEOUT_MILLISECONDS = 20_000
"""Milliseconds; a machine that is busy takes its time."""
STALL_SECONDS = 2
BOUNDARY = "b0undary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
HEAD = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'.encode()
END = f"\r\n--{BOUNDARY}--\r\n".encode()


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service with a key keeps what the page receives."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def locked(champion: Champion, uploads: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a key that takes little on, and leaves no upload behind when it ends."""
    tight = {
        "GENREFLOW_API_KEY": KEY,
        "GENREFLOW_MAX_REQUESTS": "2",
        "GENREFLOW_MAX_UPLOAD_MB": "1",
        "GENREFLOW_MAX_UPLOADS_MB": "4",
        "GENREFLOW_MAX_STALL_SECONDS": str(STALL_SECONDS),
        "GRADIO_TEMP_DIR": str(uploads),
    }
    with running(champion.copy(tmp_path_factory.mktemp("locked")), **tight) as service:
        yield service
        send(service, UPLOAD, HEAD + b"RIFF" + END)
        assert kept(uploads)
    assert kept(uploads) == []


def send(service: Service, path: str, body: object, **headers: str) -> requests.Response:
    return requests.post(f"{service.address}/{path}", data=body, headers=HEADERS | FORM | headers, timeout=30)


def kept(uploads: Path) -> list[Path]:
    return [path for path in uploads.rglob("*") if path.is_file()]


def sentence(answer: requests.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() == {"error"}
    return str(body["error"])


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_MILLISECONDS / 1_000
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def drop(tab: Page, file: Path) -> None:
    tab.locator("#song input[type=file]").first.set_input_files(file)


@pytest.mark.parametrize("which", ["service", "locked"])
def test_a_song_has_its_genre_and_its_curve_and_a_letter_is_refused(
    which: str, request: pytest.FixtureRequest, browser: Browser, tmp_path: Path
) -> None:
    service: Service = request.getfixturevalue(which)
    context = browser.new_context(http_credentials={"username": "anybody", "password": KEY})
    tab = context.new_page()
    failed: list[str] = []
    tab.on("response", lambda answer: failed.append(answer.url) if answer.status == 404 else None)
    tab.goto(f"{service.address}/ui/")
    drop(tab, service.song)
    expect(tab.locator("#answer")).to_contain_text(f"Most probable is {service.expected.genre}")
    expect(tab.locator("#curve img")).to_be_visible()
    expect(tab.get_by_role("button", name="Play", exact=True)).to_be_visible()
    tab.get_by_label("1 s", exact=True).check()
    tab.get_by_role("button", name="Clear").click()
    letter = tmp_path / "letter.wav"
    letter.write_text("a letter")
    drop(tab, letter)
    expect(tab.get_by_role("alert")).to_contain_text("letter.wav is text, not audio")
    tab.get_by_role("button", name="The model").click()
    expect(tab.locator("#model")).to_contain_text(service.champion.digest[:12])
    context.close()
    assert [url for url in failed if "upload_progress" not in url] == []  # it may come after the upload
    assert "Traceback" not in service.log


def test_a_recording_is_classified(service: Service, browser: Browser) -> None:
    tab = browser.new_page()
    tab.set_default_timeout(TIMEOUT_MILLISECONDS)
    tab.goto(f"{service.address}/ui/")
    tab.get_by_role("button", name="Record audio").click()
    tab.get_by_role("button", name="Record", exact=True).click()
    expect(tab.locator("#song")).to_contain_text("0:02")  # what has been recorded
    tab.get_by_role("button", name="Stop").click()
    expect(tab.locator("#answer")).to_contain_text(re.compile(r"0:0\d of music in"))
    expect(tab.locator("#curve img")).to_be_visible()
    tab.close()


def test_without_the_key_there_is_no_page(locked: Service) -> None:
    for path in ("ui", "ui/", "ui/config", "ui/assets/x"):
        assert requests.get(f"{locked.address}/{path}", timeout=30).status_code == 401
    assert (
        requests.post(f"{locked.address}/{UPLOAD}", files={"files": b"RIFF"}, timeout=30).status_code == 401
    )


def test_uploads_of_the_page_count_against_the_limits(locked: Service, uploads: Path) -> None:
    assert "larger than 1 MB" in sentence(send(locked, UPLOAD, HEAD + bytes(1_100_000) + END), 413)
    answers = [send(locked, UPLOAD, HEAD + bytes([one]) * 900_000 + END) for one in range(6)]
    assert {answer.status_code for answer in answers[:3]} == {200}
    assert "keeps too many uploads" in sentence(answers[-1], 503)
    assert answers[-1].headers["Retry-After"].isdigit()
    for path in kept(uploads):
        shutil.rmtree(path.parent)
    assert send(locked, UPLOAD, HEAD + b"RIFF" + END).status_code == 200


def test_an_upload_of_unknown_length_over_the_limit_is_refused_with_an_error_message_and_deleted(
    locked: Service, uploads: Path
) -> None:
    """Gradio let go of it with status 500 and kept what had arrived."""
    before = kept(uploads)
    endless = (block for block in (HEAD, *(bytes(100_000) for _ in range(30))))
    assert "larger than 1 MB" in sentence(send(locked, UPLOAD, endless), 413)
    assert kept(uploads) == before


def test_an_interrupted_upload_is_deleted(locked: Service, uploads: Path) -> None:
    """Closed tabs filled the room that the page has until the service was started again."""
    before = kept(uploads)
    with sending(locked, UPLOAD, 900_000) as connection:
        connection.sendall(HEAD + bytes(300_000))
        until(lambda: kept(uploads) != before, "nothing arrived")
    until(lambda: kept(uploads) == before, "it was never deleted")


@pytest.mark.parametrize(
    "disposition", ['name="files"', 'name="other"; filename="a.wav"'], ids=["text", "field"]
)
def test_what_is_no_upload_is_not_kept_in_memory_nor_on_disk(
    locked: Service, uploads: Path, disposition: str
) -> None:
    before = kept(uploads)
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode()
    answer = send(locked, UPLOAD, head + bytes(900_000) + END)
    assert answer.status_code == 400
    assert "Only files are accepted here" in answer.text
    assert kept(uploads) == before


def test_what_the_page_sends_beside_uploads_is_small(service: Service) -> None:
    """It was held in memory, up to the 800 MB of an upload."""
    large = json.dumps({"fn_index": 0, "session_hash": "x", "data": ["x" * 1_100_000, 0.0]}).encode()
    json_type = {"Content-Type": "application/json"}
    assert "larger than 1 MB" in sentence(send(service, JOIN, large, **json_type), 413)
    blocks = (large[start : start + 100_000] for start in range(0, len(large), 100_000))
    assert "larger than 1 MB" in sentence(send(service, JOIN, blocks, **json_type), 413)


def sending(service: Service, path: str, length: int) -> socket.socket:
    """A connection on which the head of an upload was sent."""
    place = urlsplit(service.address)
    head = [f"POST /{path} HTTP/1.1", "Host: x", f"Content-Length: {length}"]
    head += [f"{name}: {value}" for name, value in (HEADERS | FORM).items()]
    connection = socket.create_connection((place.hostname, place.port), timeout=30)
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    return connection


@pytest.mark.parametrize("path", ["classify", UPLOAD])
def test_an_upload_that_hardly_comes_is_refused_with_an_error_message(locked: Service, path: str) -> None:
    """It was answered 504, which is not documented, after five minutes."""
    with sending(locked, path, 500_000) as connection:
        connection.sendall(HEAD + bytes(5_000))
        answer = b""
        while block := connection.recv(65_536):
            answer += block
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert "comes too slowly" in json.loads(body)["error"]


def test_a_slow_connection_is_not_an_error(locked: Service) -> None:
    song = locked.song.read_bytes()
    whole = HEAD.replace(b'"files"', b'"file"') + song + END
    seconds = 2 * STALL_SECONDS
    with sending(locked, "classify", len(whole)) as connection:
        for part in range(20):
            connection.sendall(whole[len(whole) * part // 20 : len(whole) * (part + 1) // 20])
            time.sleep(seconds / 20)
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_uploads_on_their_way_take_no_place_of_those_that_are_answered(locked: Service) -> None:
    """As many as are answered at once, each sending a byte now and then, closed the service to everybody."""
    slow = [sending(locked, "classify", 500_000) for _ in range(8)]
    try:
        for connection in slow:
            connection.sendall(HEAD)
        time.sleep(0.3)
        files = {"file": ("a.flac", locked.song.read_bytes())}
        answer = requests.post(f"{locked.address}/classify", files=files, headers=HEADERS, timeout=30)
        assert answer.status_code == 200, answer.text
    finally:
        for connection in slow:
            connection.close()
