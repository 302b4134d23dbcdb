"""Whatever is asked of the page by hand: it takes uploads, and neither files of the host nor addresses."""

import os
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import gradio
import pytest
import requests
from gradio_client.utils import encode_file_path
from services import Service

API = "ui/gradio_api"
SECONDS = 20
NEEDED = {
    "/",
    "/config",
    "/theme.css",
    "/assets/{path}",
    "/static/{path}",
    "/gradio_api/app_id",
    "/gradio_api/heartbeat/{session_hash}",
    "/gradio_api/upload",
    "/gradio_api/upload_progress",
    "/gradio_api/queue/join",
    "/gradio_api/queue/data",
    "/gradio_api/cancel",
    "/gradio_api/reset",
    "/gradio_api/file={path_or_url}",
}
"""Of what Gradio mounts, what the page's script asks for."""
CLASSIFY_FUNCTIONS = (0, 1)
"""The page's functions that take a song and a hop."""


def named(path: str, **others: Any) -> dict[str, Any]:
    """A file as the page's script names it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}} | others


def said(service: Service, function: int, data: list[Any]) -> str:
    """What the page answers to inputs of one of its functions."""
    session = uuid.uuid4().hex
    body = {"fn_index": function, "session_hash": session, "data": data}
    joined = requests.post(f"{service.address}/{API}/queue/join", json=body, timeout=SECONDS)
    assert joined.status_code == 200, joined.text
    stream = f"{service.address}/{API}/queue/data?session_hash={session}"
    return requests.get(stream, timeout=SECONDS).text


def uploaded(service: Service, name: str, content: bytes) -> str:
    """Where the service put an upload of the page."""
    files = {"files": (name, content)}
    answer = requests.post(f"{service.address}/{API}/upload", files=files, timeout=SECONDS)
    assert answer.status_code == 200, answer.text
    return str(answer.json()[0])


def fetched(service: Service, path: str) -> requests.Response:
    return requests.get(f"{service.address}/{API}/file={encode_file_path(path)}", timeout=SECONDS)


def uploads(service: Service) -> Path:
    """The folder that the service keeps the page's uploads in."""
    return Path(uploaded(service, "a.wav", b"RIFF")).parent.parent


def copies(service: Service, name: str) -> list[Path]:
    return [path for path in uploads(service).rglob("*") if path.name == name]


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """The address of a server, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/song.wav", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_upload_can_be_played(service: Service) -> None:
    path = uploaded(service, "song.flac", service.song.read_bytes())
    assert "Most probable is" in said(service, 0, [named(path), 0.0])
    assert fetched(service, path).content == service.song.read_bytes()


def refused(service: Service, path: str) -> None:
    """The page takes no such path, in whatever input of whatever function, and copies nothing."""
    for others in ({}, {"is_stream": True}, {"url": path}):
        for data in ([named(path, **others), 0.0], [None, named(path, **others)], [[named(path)], 0.0]):
            for function in CLASSIFY_FUNCTIONS:
                answer = said(service, function, data)
                assert "Upload the song itself" in answer
                assert "root:" not in answer
    assert not copies(service, Path(path).name)


@pytest.mark.parametrize("path", ["/etc/passwd", "relative", "uploads/../../../etc/passwd", "/dev/zero", "/"])
def test_a_file_of_the_host_is_not_accepted_as_an_upload(service: Service, path: str) -> None:
    """Gradio itself checks that only where `launch()` was called, which mounting it never does."""
    folder = uploads(service)
    path = path.replace("relative", os.path.relpath("/etc/passwd")).replace("uploads", str(folder))
    refused(service, path)
    assert requests.get(f"{service.address}/livez", timeout=5).status_code == 200


def test_a_link_out_of_the_folder_of_uploads_is_not_followed(service: Service) -> None:
    link = uploads(service) / "link.wav"
    link.symlink_to("/etc/passwd")
    try:
        refused_link = said(service, 0, [named(str(link)), 0.0])
        assert "Upload the song itself" in refused_link
        assert fetched(service, str(link)).status_code == 403
    finally:
        link.unlink()


def test_an_address_in_place_of_an_upload_is_not_fetched(service: Service) -> None:
    with listening() as (address, asked):
        refused(service, address)
        assert fetched(service, address).status_code == 404
        assert asked == []


def test_an_upload_that_a_browser_would_run_is_served_as_a_download(service: Service) -> None:
    for name in ("a.svg", "a.html"):
        path = uploaded(
            service, name, b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
        )
        said(service, 0, [named(path), 0.0])
        answer = fetched(service, path)
        assert answer.status_code == 200
        assert answer.headers["Content-Disposition"].startswith("attachment")


def test_scripts_of_other_sites_cannot_read_the_page(service: Service) -> None:
    headers = {"Host": "music.example.org", "Origin": "https://elsewhere.example.net"}
    answer = requests.get(f"{service.address}/ui/config", headers=headers, timeout=SECONDS)
    assert answer.status_code == 200
    assert [name for name in answer.headers if name.lower().startswith("access-control-")] == []


def test_nothing_that_gradio_mounts_is_there_but_what_the_page_needs(service: Service) -> None:
    """Its proxy, its own API, its screen recorder, what writes links and reads code."""
    with gradio.Blocks() as blocks:
        gradio.HTML()
    mounted = gradio.routes.App.create_app(blocks).openapi()["paths"]
    assert {"/gradio_api/proxy={url_path}", "/gradio_api/component_server"} <= mounted.keys()
    for route in mounted.keys() - NEEDED:
        address = f"{service.address}/ui{re.sub('{.*?}', 'x', route)}"
        for method in mounted[route]:
            answer = requests.request(method, address, json={}, timeout=SECONDS, stream=True)
            answer.close()
            assert answer.status_code == 404, (method, route)
