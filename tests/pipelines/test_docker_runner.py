"""`--runner docker` up to the edge: what a Docker engine is asked for."""

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.image import BUILD_IMAGE, IMAGE
from genreflow.core.errors import SettingsError
from pipelines.local import run
from pipelines.settings import settings
from pipelines.step_states import StepFailed


@dataclass
class Engine:
    """Answers as a Docker engine does; every container ends at once, with an error."""

    created: list[dict[str, Any]] = field(default_factory=list)
    """What containers were asked for."""
    url: str = ""

    def answer(self, path: str, body: bytes) -> Any:
        image = {"Id": "sha256:1", "RepoTags": [IMAGE, BUILD_IMAGE], "RepoDigests": []}
        container = {"Id": "c1", "Config": {"Tty": False}, "HostConfig": {"LogConfig": {"Type": "json-file"}}}
        if path.endswith("/containers/create"):
            self.created.append(json.loads(body))
        answers = {
            r"/version": {"ApiVersion": "1.44"},
            r"/_ping": "OK",
            r"/info": {"SecurityOptions": []},
            r"/images/json": [image],
            r"/images/.*/json": image,
            r"/containers/create": container,
            r"/containers/c1/json": container,
            r"/containers/c1/wait": {"StatusCode": 1},
        }
        return next((given for known, given in answers.items() if re.fullmatch(known, path)), None)


@contextmanager
def engine() -> Iterator[Engine]:
    docker = Engine()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = re.sub(r"^/v1\.\d+", "", self.path.partition("?")[0])
            given = docker.answer(path, sent)
            body = b"" if given is None else json.dumps(given).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        docker.url = f"tcp://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield docker
        server.shutdown()


def test_containers_get_the_variables_and_paths_of_stores_hubs_and_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials, table = tmp_path / "credentials", tmp_path / "music" / "clips.csv"
    table.parent.mkdir()
    credentials.touch()
    shell = {
        "AWS_ENDPOINT_URL": "https://s3.example.org",
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "HF_ENDPOINT": "https://hub.example.org",
        "HF_TOKEN": "hf_x",
        "HF_HOME": str(tmp_path / "hub"),
        "MLFLOW_TRACKING_URI": "http://mlflow.example.org:5000",
        "MLFLOW_TRACKING_TOKEN": "m",
        "GENREFLOW_MIRRORS": "https://mirror.example.org",
        "https_proxy": "http://proxy.example.org:3128",
    }
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):  # this machine's own
        monkeypatch.delenv(name, raising=False)
    for name, value in (shell | {"EDITOR": "vi"}).items():
        monkeypatch.setenv(name, value)
    with engine() as docker:
        monkeypatch.setenv("DOCKER_HOST", docker.url)
        chosen = settings("quickstart", f"{table}?label=genre", checkpoint_uri=str(tmp_path / "checkpoints"))
        with pytest.raises(StepFailed, match="Step resolve did not start"):
            run(chosen, lambda _: None, runner="docker")
    asked = docker.created[0]
    variables = dict(each.split("=", 1) for each in asked["Env"])
    assert shell.items() <= variables.items()
    assert variables["GENREFLOW_HOME"] == str(tmp_path / "home")
    assert variables["GENREFLOW_PROGRESS"].startswith(str(tmp_path / "home"))
    assert not variables.keys() & {"EDITOR", "PATH"}
    assert asked["Image"] == IMAGE
    assert (tmp_path / "home" / "pipelines").is_dir()  # or the engine makes it, as root's
    assert asked["User"] == f"{os.getuid()}:0"  # or the image's user could not write into these folders
    mounts = {each["Target"]: each.get("ReadOnly", False) for each in asked["HostConfig"]["Mounts"]}
    assert mounts == {
        str(tmp_path / "home"): False,
        os.environ["BENTOML_HOME"]: False,
        str(tmp_path / "hub"): False,
        str(tmp_path / "checkpoints"): False,
        str(tmp_path / "music"): True,
        str(credentials): True,
    }


def test_without_an_engine_an_error_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    with pytest.raises(SettingsError, match="needs a Docker engine, and none answers here"):
        run(settings("quickstart"), lambda _: None, runner="docker")
