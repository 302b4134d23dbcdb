"""The built images as an administrator runs them: a foreign uid, a read-only root, no network.

`make test-containers` builds them and runs this. It takes root, podman and runc.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
import soundfile
from servers import S3_KEY, S3_SECRET, object_store, running

from components.image import BUILD_IMAGE, IMAGE, LOCK, ROOT, SERVICE_IMAGE
from genreflow.core.version import VERSION
from genreflow.corpus.synthetic import synthesise
from pipelines.local import run
from pipelines.settings import settings

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1_800)]

UID = "12345:0"
"""Of nobody in the images; group 0, as OpenShift and KFP's `runAsUser` leave it."""
MOST_MEGABYTES = {IMAGE: 2_500, BUILD_IMAGE: 2_500, SERVICE_IMAGE: 1_000}
"""As docs/kubeflow.md states them, of the CPU variant."""
COMPILERS = ("cc", "gcc", "g++", "clang", "make", "ld", "git")
HOME = "/home/genreflow"
SECONDS_TO_START, SECONDS_TO_END = 240, 30
os.environ["CONTAINERS_CONF"] = str(Path(__file__).parent / "containers.conf")


def podman(*arguments: str, code: int = 0) -> str:
    """What podman prints; on stderr, too, where it is to fail."""
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True)
    assert done.returncode == code, done.stdout[-5_000:] + done.stderr[-5_000:]
    return done.stdout if code == 0 else done.stdout + done.stderr


def closed(scratch: Path, *options: str, network: str = "none") -> list[str]:
    """Options of a container that may write to `/tmp` and the home folder alone."""
    scratch.mkdir(exist_ok=True)
    scratch.chmod(0o777)  # as an emptyDir is
    limits = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"]
    mounts = ["--tmpfs=/tmp:mode=1777", f"--volume={scratch}:{HOME}"]
    return ["--rm", f"--user={UID}", f"--network={network}", *limits, *mounts, *options]


@pytest.fixture(scope="session", autouse=True)
def _images() -> None:
    for program in ("podman", "runc"):
        assert shutil.which(program), (
            f"{program} is missing: apt-get install --no-install-recommends podman runc"
        )
    for name in MOST_MEGABYTES:
        done = subprocess.run(["podman", "image", "exists", name])
        assert done.returncode == 0, f"There is no image {name}: make test-containers builds it first."


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home folder after the whole pipeline in one container of the build image."""
    home = tmp_path_factory.mktemp("quickstart") / "home"
    summary = f"{HOME}/summary.json"
    podman("run", *closed(home), BUILD_IMAGE, "genreflow", "run", "--summary", summary)
    return home


@pytest.mark.parametrize("name", list(MOST_MEGABYTES))
def test_an_image_is_as_small_as_stated_and_says_what_it_is(name: str) -> None:
    (image,) = json.loads(podman("image", "inspect", name))
    assert image["Size"] <= MOST_MEGABYTES[name] * 1_000_000
    assert image["User"] == "1000:0"
    assert image["Labels"]["org.opencontainers.image.version"] == VERSION
    assert image["Labels"]["org.opencontainers.image.revision"]
    assert set(image["Config"]["Volumes"]) == {"/tmp", HOME}


@pytest.mark.parametrize("name", list(MOST_MEGABYTES))
def test_an_image_lists_its_packages_in_the_locks_versions_and_has_no_compiler(
    name: str, tmp_path: Path
) -> None:
    inside = ["run", *closed(tmp_path / "home"), name]
    bill = json.loads(podman(*inside, "cat", "/usr/share/doc/genreflow/sbom.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    listed = {f"{one['name'].lower().replace('_', '-')}=={one['version']}" for one in bill["components"]}
    locked = set((ROOT / "components" / LOCK).read_text().split())
    assert {one.partition("+")[0] for one in listed} - {f"genreflow=={VERSION}"} <= locked
    assert any(one.startswith("openvino==") for one in listed)
    found = podman(*inside, "sh", "-c", f"for one in {' '.join(COMPILERS)}; do command -v $one; done; true")
    assert found == ""
    assert "Read-only file system" in podman(*inside, "sh", "-c", "touch /opt/genreflow/x", code=1)


def test_the_training_image_has_no_code_of_the_service(tmp_path: Path) -> None:
    inside = ["run", *closed(tmp_path / "home")]
    missing = "import importlib.util, sys; sys.exit(importlib.util.find_spec('serving') is not None)"
    podman(*inside, IMAGE, "python", "-c", missing)
    podman(*inside, BUILD_IMAGE, "python", "-c", missing, code=1)


def test_the_quickstart_runs_from_first_step_to_last_in_one_container(quickstart: Path) -> None:
    summary = json.loads((quickstart / "summary.json").read_text())
    assert {step["name"] for step in summary["steps"] if step["skipped"] or step["cached"]} == set()
    assert summary["steps"][-1]["name"] == "build"
    assert summary["aliases"] == ["champion"]
    assert summary["metrics"]["accuracy"] > 0.5
    assert list((quickstart / "bentoml" / "bentos" / "genreflow").glob("v1-*"))


@contextmanager
def engine(folder: Path) -> Iterator[str]:
    """Podman as a server of Docker's API: its address."""
    address = f"unix://{folder / 'podman.sock'}"
    argv = ["podman", "system", "service", "--time=0", address]
    with running(argv, folder / "podman.log", {}):
        deadline = time.monotonic() + SECONDS_TO_START
        while not (folder / "podman.sock").exists():
            assert time.monotonic() < deadline, (folder / "podman.log").read_text()
            time.sleep(0.1)
        yield address


def test_every_step_runs_in_a_container_of_its_own_as_kfp_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KFP's local runner gives an engine the component's command, as its launcher in a pod runs it."""
    restricted: dict[str, Any] = {
        "user": UID,
        "read_only": True,
        "network_mode": "none",
        "tmpfs": {"/tmp": "mode=1777"},
        "cap_drop": ["all"],
    }
    chosen = settings("quickstart", "synthetic?clips=40&seconds=5&seed=0")
    started: list[str] = []
    asked = docker.models.containers.ContainerCollection.run

    def noted(self: Any, image: str, *arguments: Any, **options: Any) -> Any:
        started.append(image)
        return asked(self, image, *arguments, **options | restricted)

    monkeypatch.setattr(docker.models.containers.ContainerCollection, "run", noted)
    monkeypatch.chdir(tmp_path)
    before = os.umask(0)  # what this process makes, containers of another uid write
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(0o777)
    try:
        with engine(tmp_path) as address:
            monkeypatch.setenv("DOCKER_HOST", address)
            finished = run(chosen, lambda _: None, runner="docker")
    finally:
        os.umask(before)
    assert [step.status for step in finished.steps] == ["done"] * 10
    assert finished.bento is not None
    assert set(started) == {IMAGE, BUILD_IMAGE}
    assert started.count(BUILD_IMAGE) == 1


@pytest.fixture(scope="session")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("song")
    synthesise(folder, 1, 5.0, 7)
    found = sorted(folder.rglob("*.wav"))[0]
    assert soundfile.info(found).duration == pytest.approx(5.0, abs=0.1)
    return found


def ask(container: str, *arguments: str) -> Any:
    """What the service answers curl in the container's own network."""
    process = podman("inspect", "--format", "{{.State.Pid}}", container).strip()
    argv = ["nsenter", "--net", f"--target={process}", "curl", "--silent", "--fail", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True)
    return json.loads(done.stdout or "null") if done.returncode == 0 else done.returncode


def test_a_published_version_is_fetched_by_one_container_and_served_by_another(
    quickstart: Path, song: Path, tmp_path: Path
) -> None:
    keys = {
        "AWS_ACCESS_KEY_ID": S3_KEY,
        "AWS_SECRET_ACCESS_KEY": S3_SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    models = tmp_path / "models"
    models.mkdir()
    models.chmod(0o777)
    with object_store(tmp_path) as port:
        variables = [f"--env={name}={value}" for name, value in keys.items()]
        variables.append(f"--env=AWS_ENDPOINT_URL=http://127.0.0.1:{port}")
        outside = closed(quickstart, *variables, network="host")
        make = "import boto3; boto3.client('s3').create_bucket(Bucket='models')"
        podman("run", *outside, BUILD_IMAGE, "python", "-c", make)
        publish = ["genreflow", "publish", "--to", "s3://models/genres/1", "--json"]
        published = json.loads(podman("run", *outside, BUILD_IMAGE, *publish))
        fetch = ["python", "-m", "serving.fetch", "--from", published["url"], "--digest", published["digest"]]
        mounted = closed(tmp_path / "home", f"--volume={models}:/models", *variables, network="host")
        podman("run", *mounted, SERVICE_IMAGE, *fetch)
    served = closed(tmp_path / "home", "--detach", f"--volume={models}:/models:ro")
    container = podman("run", *served, SERVICE_IMAGE).strip()
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while ask(container, "--output", "/dev/null", "http://127.0.0.1:3000/readyz") is not None:
            assert time.monotonic() < deadline, podman("logs", container)
            time.sleep(0.5)
        answer = ask(container, "--form", f"file=@{song}", "http://127.0.0.1:3000/classify")
        card = ask(container, "http://127.0.0.1:3000/model")
        page = ["--output", "/dev/null", "http://127.0.0.1:3000/ui/"]
        assert ask(container, *page) is None
    finally:
        began = time.monotonic()
        podman("stop", f"--time={2 * SECONDS_TO_END}", container)
    assert time.monotonic() - began < SECONDS_TO_END
    assert answer["lineage"]["version"] == published["version"] == "1"
    assert answer["lineage"]["digest"] == card["lineage"]["digest"]
    assert card["synthetic"] is True
    assert sum(answer["probabilities"].values()) == pytest.approx(1.0, abs=1e-3)
