"""Server processes that a test starts on a free port and stops again."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import requests

START_SECONDS = 240
"""A machine that is busy takes its time to import MLflow twice."""
STOP_SECONDS = 20
MARK = "GENREFLOW_TEST_SERVER"
"""In the environment of a server and of all that it starts: BentoML's workers have sessions of their own."""


@contextmanager
def served(
    argv: list[str],
    log: Path,
    environment: dict[str, str],
    address: str,
    end: signal.Signals = signal.SIGTERM,
) -> Iterator[None]:
    """A server process, from when it answers at `address` until the end of the block."""
    with running(argv, log, environment, end) as process:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                if requests.get(address, timeout=5).ok:
                    break
            except requests.RequestException:
                time.sleep(0.3)
        yield


@contextmanager
def running(
    argv: list[str],
    log: Path,
    environment: dict[str, str],
    end: signal.Signals = signal.SIGTERM,
    user: str | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is asked to end at the end of the block; what it leaves behind is killed."""
    mark = uuid.uuid4().hex
    with log.open("w") as output:
        process = subprocess.Popen(
            argv,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment | {MARK: mark},
            start_new_session=True,
            **_as(user),
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, end)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_SECONDS)
        while left := marked(mark):
            for one in left:
                with suppress(psutil.Error):
                    one.kill()
            psutil.wait_procs(left, timeout=1)
        process.wait()


def marked(mark: str) -> list[psutil.Process]:
    """The processes that carry this mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _as(user: str | None) -> dict[str, Any]:
    return {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def mlflow_server(folder: Path, database: str) -> Iterator[int]:
    """MLflow's tracking server over a database, keeping artifacts in `folder`, as on a cluster: its port."""
    port = free_port()
    argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--workers", "1", "--backend-store-uri", database]
    argv += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with served(argv, folder / "server.log", quiet, f"http://127.0.0.1:{port}/health"):
        yield port


S3_KEY, S3_SECRET = "genreflow", "genreflow-secret"


def stored_keys(aws: Any, address: str) -> list[str]:
    """The keys of all objects in the bucket of `s3://BUCKET/PREFIX`."""
    found = aws.list_objects_v2(Bucket=address.split("/")[2]).get("Contents", [])
    return [entry["Key"] for entry in found]


@contextmanager
def object_store(folder: Path) -> Iterator[int]:
    """SeaweedFS with its S3 gateway, keeping its files in `folder`: the gateway's port."""
    weed = Path(sys.executable).parent / "weed"
    keys = [{"accessKey": S3_KEY, "secretKey": S3_SECRET}]
    identity = {
        "name": "tests",
        "credentials": keys,
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    parts = ("master.port", "volume.port", "filer.port", "s3.port")
    ports = {name: free_port() for part in parts for name in (part, f"{part}.grpc")}
    command = [str(weed), "server", "-filer", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-dir={folder / 'data'}", f"-s3.config={folder / 'identities.json'}", "-s3.port.iceberg=0"]
    command += ["-s3.port.lance=0", "-volume.max=1000", "-master.volumeSizeLimitMB=64"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    address = f"http://127.0.0.1:{ports['s3.port']}/healthz"
    # on SIGTERM it waits for itself
    with served(command, folder / "weed.log", {}, address, signal.SIGKILL):
        yield ports["s3.port"]


POSTGRESQL = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
"""Where Debian has it, the newest last; it is not on the PATH."""


@contextmanager
def postgresql(settings: Sequence[str] = ()) -> Iterator[str]:
    """A PostgreSQL cluster of one's own: the URI of its database, whose password is asked for.

    Args:
        settings: more arguments of the server.
    """
    programs = POSTGRESQL[-1].parent
    user = "nobody" if os.getuid() == 0 else None  # it does not run as root
    folder = Path(tempfile.mkdtemp(prefix="genreflow-postgresql-"))  # pytest's folders are root's alone
    try:
        if user:
            shutil.chown(folder, user)
        data, port = folder / "data", free_port()
        password = folder / "password"
        password.write_text("secret")
        password.chmod(0o644)
        make = [programs / "initdb", "-D", data, "-U", "genreflow", "-E", "UTF8", "--no-sync"]
        make += ["--auth=scram-sha-256", f"--pwfile={password}"]
        done = subprocess.run(make, capture_output=True, text=True, check=False, cwd=folder, **_as(user))
        assert done.returncode == 0, done.stderr
        argv = [str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder)]
        argv += ["-h", "127.0.0.1", "-c", "fsync=off", *settings]
        address = f"postgresql://genreflow:secret@127.0.0.1:{port}/postgres"
        log = folder / "log"
        # SIGTERM would wait for the clients
        with running(argv, log, {}, signal.SIGINT, user) as process:
            deadline = time.monotonic() + START_SECONDS
            while True:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                with suppress(psycopg.OperationalError), psycopg.connect(address):
                    break
                time.sleep(0.1)
            yield address
    finally:
        shutil.rmtree(folder)
