"""A server that answers as the API of Kubeflow Pipelines 2.17.0 does, for tests up to the network's edge."""

import json
import re
import socket
import threading
from collections.abc import Callable
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Document = dict[str, Any]
V2 = "/apis/v2beta1"

GONE = (500, json.dumps({"error_message": "Failed to read logs: pods not found"}))
"""What KFP's `run_log_server.go` answers where the pod of that name is not there (read)."""
NOT_OF_THE_PAGE = (404, "<!DOCTYPE html><html><pre>Cannot GET</pre></html>")
"""What the server of KFP's page answers to an address that it has not (read)."""


class KubeflowApi(ThreadingHTTPServer):
    """The calls that genreflow makes."""

    def __init__(self, real: Callable[[str], Document], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Answer)
        self.real = real
        """An answer that a real installation gave, by its name."""
        self.health: Document = real("healthz")
        self.lock = threading.Lock()
        self.experiments: dict[str, str] = {}
        self.pipelines: dict[str, str] = {}
        self.versions: dict[tuple[str, str], bytes] = {}
        """Pipeline's id and version's name → the uploaded file."""
        self.started: list[Document] = []
        """Runs, as they were asked for."""
        self.posted: dict[str, Document] = {}
        self.called: list[str] = []
        """Method and path of every request, without the query."""
        self.queries: list[Document] = []
        self.states = ["SUCCEEDED"]
        """What a run's state is, look by look; the last stays."""
        self.documents: list[Document] = []
        """What a run is, look by look, instead of a state alone; the last stays."""
        self.faults: list[tuple[int, str] | None] = []
        """What the next looks at a run get instead: a status and a body, or a connection that is closed."""
        self.answers: dict[str, list[tuple[int, str] | None]] = {}
        """Method and path of a request → what it gets, time after time (None: the usual); the last stays."""
        self.lost: dict[str, int] = {}
        """Method and path of a request → how often it is done, and answered by 504."""
        self.wanted: dict[str, str] = {}
        """Headers without which a request is turned away."""
        self.turned_away = (401, "Unauthorized")
        self.page: dict[str, str] | None = None
        """Name of a pod → its log, where this is the server of KFP's page; None where it is the API's own."""
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def calls(self, call: str) -> int:
        return self.called.count(call)

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that turn away."""


class Answer(BaseHTTPRequestHandler):
    server: KubeflowApi

    def do_GET(self) -> None:
        if not self.known() or self.prepared():
            return
        path = urlsplit(self.path).path
        if path.startswith(f"{V2}/runs/"):
            self.reply_run()
        elif path == "/k8s/pod/logs" and self.server.page is not None:
            self.reply_log(self.server.page)
        elif path == f"{V2}/runs":
            self.reply({"runs": [{"run_id": "r1", **run} for run in self.server.started]})
        elif path == f"{V2}/healthz":
            self.reply(self.server.health)
        elif path == f"{V2}/experiments":
            found = self.server.experiments.get(self.wanted_name())
            self.reply({"experiments": [{"experiment_id": found}]} if found else {})
        elif path.startswith(f"{V2}/experiments/"):
            self.reply({"experiment_id": "e1", "namespace": "me"})
        elif path.startswith(f"{V2}/pipelines/names/"):
            found = self.server.pipelines.get(path.rsplit("/", 1)[-1])
            self.reply({"pipeline_id": found}) if found else self.refuse("error_no_such_run")
        elif re.fullmatch(f"{V2}/pipelines/[^/]+/versions", path):
            pipeline, name = path.split("/")[-2], self.wanted_name()
            there = (pipeline, name) in self.server.versions
            self.reply({"pipeline_versions": [version(pipeline, name)]} if there else {})
        else:
            self.refuse("error_no_such_run")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        if not self.known() or self.prepared():
            return
        kind = urlsplit(self.path).path.rstrip("/").rsplit("/", 1)[-1]
        with self.server.lock:
            if kind == "upload_version":
                answer = self.upload(content)
            else:
                body = json.loads(content or b"{}")
                self.server.posted[kind] = body
                answer = self.make(kind, body)
        call = f"POST {urlsplit(self.path).path}"
        if self.server.lost.get(call):
            self.server.lost[call] -= 1
            self.write(504, "")
        elif answer is None:
            self.refuse("error_pipeline_name_taken")
        else:
            self.reply(answer)

    def make(self, kind: str, body: Document) -> Document | None:
        """What was made; None where its name is taken."""
        names = {"experiments": self.server.experiments, "pipelines": self.server.pipelines}
        if kind in names:
            name = body["display_name"]
            if name in names[kind]:
                return None
            names[kind][name] = f"{kind[0]}{len(names[kind]) + 1}"
            return {**body, f"{kind[:-1]}_id": names[kind][name]}
        if kind == "runs":
            self.server.started.append(body)
            return {**body, "run_id": "r1"}
        return {**body, "recurring_run_id": "r1"} if kind == "recurringruns" else {}

    def upload(self, content: bytes) -> Document | None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.server.queries.append(query)
        key = query["pipelineid"], query["name"]
        if key in self.server.versions:
            return None
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        (part,) = BytesParser().parsebytes(head + content).get_payload()
        self.server.versions[key] = part.get_payload(decode=True)  # type: ignore[union-attr]
        return version(*key)

    def reply_run(self) -> None:
        if self.server.faults:
            fault = self.server.faults.pop(0)
            if fault is None:
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                self.write(*fault)
        elif documents := self.server.documents:
            self.reply(documents.pop(0) if len(documents) > 1 else documents[0])
        else:
            states = self.server.states
            self.reply({"run_id": "r1", "state": states.pop(0) if len(states) > 1 else states[0]})

    def reply_log(self, logs: dict[str, str]) -> None:
        """As `frontend/server/handlers/pod-logs.ts` does (read)."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.server.queries.append(query)
        if self.server.health.get("multi_user") and "podnamespace" not in query:
            self.write(422, "podnamespace argument is required", kind="text/plain")
        elif query["podname"] in logs:
            self.write(200, logs[query["podname"]], kind="text/plain")
        else:
            words = "Could not get main container logs: Error: Unable to retrieve workflow status"
            self.write(500, words, kind="text/plain")

    def wanted_name(self) -> str:
        """The display name that a list is filtered by, as KFP's filters have it."""
        predicates = json.loads(parse_qs(urlsplit(self.path).query)["filter"][0])["predicates"]
        return next(str(one["stringValue"]) for one in predicates if one["key"] == "display_name")

    def prepared(self) -> bool:
        """Whether the request got an answer of those that a test laid out."""
        call = f"{self.command} {urlsplit(self.path).path}"
        self.server.called.append(call)
        answers = self.server.answers.get(call)
        if not answers and call.endswith("/log"):
            self.write(*(GONE if self.server.page is None else NOT_OF_THE_PAGE))
            return True
        if not answers:
            return False
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            return False
        self.write(*answer)
        return True

    def known(self) -> bool:
        """Whether the caller may come in; otherwise it gets an error, as Kubeflow's gateways do."""
        if all(self.headers.get(name) == value for name, value in self.server.wanted.items()):
            return True
        status, words = self.server.turned_away
        self.write(status, f"<html>{words}</html>", words, "text/html")
        return False

    def refuse(self, name: str) -> None:
        answer = self.server.real(name)
        self.write(answer["status"], json.dumps(answer["body"]))

    def reply(self, body: Document) -> None:
        self.write(200, json.dumps(body))

    def write(self, status: int, text: str, words: str | None = None, kind: str = "application/json") -> None:
        content = text.encode()
        self.send_response(status, words)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def version(pipeline: str, name: str) -> Document:
    return {"pipeline_id": pipeline, "pipeline_version_id": f"id-of-{name}", "display_name": name}
