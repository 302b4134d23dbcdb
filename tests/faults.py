"""Servers that misbehave on purpose: a TCP proxy, an HTTP server of files, and a hub of data sets."""

import contextlib
import hashlib
import json
import re
import socket
import socketserver
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_SLOW_DOWN_BODY = (
    b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>SlowDown</Code>"
    b"<Message>Please reduce your request rate.</Message></Error>"
)
SLOW_DOWN = (b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n%s") % (
    len(_SLOW_DOWN_BODY),
    _SLOW_DOWN_BODY,
)


@dataclass
class Proxy:
    """Passes HTTP over TCP on to a server; faults are armed by setting its fields."""

    upstream: int
    port: int = 0
    requests: list[str] = field(default_factory=list)
    """Every request's head."""
    only: str = ""
    """Faults hit requests whose first line has this."""
    busy: int = 0
    """So many requests are answered with 503 SlowDown."""
    resets: int = 0
    """So many answers are reset, each after `reset_after` bytes."""
    reset_after: int = 1000
    down: bool = False
    """Requests are reset before the server sees them."""
    bytes_per_second: float = 0
    on_reset: Callable[[], None] = lambda: None

    def lines(self, method: str = "GET") -> list[str]:
        """The first lines of requests."""
        return [head.splitlines()[0] for head in self.requests if head.startswith(method)]

    def serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.upstream)) as server:
            state = {"reset": False, "sent": 0}
            asking = threading.Thread(target=self._ask, args=(client, server, state), daemon=True)
            asking.start()
            while data := server.recv(65_536):
                if state["reset"] and state["sent"] + len(data) >= self.reset_after:
                    client.sendall(data[: self.reset_after - state["sent"]])
                    self.on_reset()
                    time.sleep(0.05)  # the bytes should arrive before the reset does
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                client.sendall(data)
                state["sent"] += len(data)
                if self.bytes_per_second:
                    time.sleep(len(data) / self.bytes_per_second)

    def _ask(self, client: socket.socket, server: socket.socket, state: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                head = data.decode("latin-1")
                if re.match(r"[A-Z]+ /", head):
                    self.requests.append(head)
                    hit = self.only in head.splitlines()[0]
                    if hit and self.down:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        server.shutdown(socket.SHUT_RDWR)
                        return
                    if hit and self.busy:
                        self.busy -= 1
                        client.sendall(SLOW_DOWN)
                        continue
                    state.update(reset=bool(hit and self.resets), sent=0)
                    self.resets -= state["reset"]
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxied(upstream: int) -> Iterator[Proxy]:
    """A proxy in front of a port of this machine, until the end of the block."""
    proxy = Proxy(upstream)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            proxy.serve(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield proxy
        finally:
            server.shutdown()


@dataclass
class Web:
    """Files over HTTP, with ranges; each fault hits one request."""

    files: dict[str, bytes] = field(default_factory=dict)
    """By path."""
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    """More headers, by path."""
    faults: deque[tuple[Any, ...]] = field(default_factory=deque)
    """("status", 503, {headers}) · ("truncate", bytes) · ("other", content): for the next requests."""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers."""
    endless: set[str] = field(default_factory=set)
    """Paths whose files come again and again."""
    ranges: bool = True
    lengths: bool = True
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.requests.append((request.command, path, dict(request.headers)))
        fault = self.faults.popleft() if self.faults else ("",)
        if fault[0] == "status":
            request.send_response(fault[1])
            for name, value in ({"Content-Length": "0"} | (fault[2] if len(fault) > 2 else {})).items():
                request.send_header(name, value)
            request.end_headers()
            return
        content = fault[1] if fault[0] == "other" else self.files.get(path)
        if content is None:
            request.send_response(404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "")) if self.ranges else None
        start = 0
        if asked and request.headers.get("If-Range", etag) == etag:
            start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
            body = content[start : end + 1]
        else:
            request.send_response(200)
            body = content
        if self.lengths and path not in self.endless:
            request.send_header("Content-Length", str(len(body)))
        request.send_header("ETag", etag)
        request.send_header("Last-Modified", formatdate(0, usegmt=True))
        for name, value in self.headers.get(path, {}).items():
            request.send_header(name, value)
        request.send_header("Connection", "close")  # else a client may send its next request into the closing
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body[: fault[1]] if fault[0] == "truncate" else body)
            while path in self.endless:  # until nobody listens
                request.wfile.write(body)


class Hub(Web):
    """The paths of a hub of data sets that huggingface_hub asks for, for one commit."""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if self.cut and request.command == "GET" and "/resolve/" in request.path:
            self.faults.append(("truncate", self.cut))
            self.cut = 0
        path = request.path.partition("?")[0]
        if path not in self.files and not self.faults:
            what = "RepoNotFound" if path.startswith("/api/datasets/") else "EntryNotFound"
            self.faults.append(("status", 404, {"X-Error-Code": what}))
        super().answer(request)

    cut = 0
    """The first file that is fetched ends after so many bytes."""
    commit = "0123456789abcdef0123456789abcdef01234567"

    def add(self, repository: str, files: dict[str, bytes]) -> None:
        siblings = [{"rfilename": name} for name in files]
        tree = [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for name, content in files.items()
        ]
        about = {"id": repository, "sha": self.commit, "siblings": siblings, "private": False, "tags": []}
        for end in ("", "/revision/main", f"/revision/{self.commit}"):
            self.files[f"/api/datasets/{repository}{end}"] = json.dumps(about).encode()
        for revision in ("main", self.commit):
            self.files[f"/api/datasets/{repository}/tree/{revision}"] = json.dumps(tree).encode()
            for name, content in files.items():
                path = f"/datasets/{repository}/resolve/{revision}/{name}"
                self.files[path] = content
                self.headers[path] = {"X-Repo-Commit": self.commit}


@contextlib.contextmanager
def serving(web: Web) -> Iterator[Web]:
    """The files on a free port, until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):
                web.answer(self)

        do_HEAD = do_POST = do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        web.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield web
        finally:
            server.shutdown()
