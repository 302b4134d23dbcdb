"""Server processes that a test starts on a free port and stops again."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

START_SECONDS = 240
"""A machine that is busy takes its time to import MLflow twice."""


@contextmanager
def served(
    argv: list[str], log: Path, environment: dict[str, str], address: str, seconds_to_stop: float = 20
) -> Iterator[None]:
    """A server process, from when it answers at `address` until the end of the block."""
    with log.open("w") as output:
        process = subprocess.Popen(
            argv,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
        )
    try:
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
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=seconds_to_stop)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


S3_KEY, S3_SECRET = "genreflow", "genreflow-secret"


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
    # it takes half a minute to say farewell, and what it holds is of no worth by then
    with served(command, folder / "weed.log", {}, address, seconds_to_stop=0):
        yield ports["s3.port"]
