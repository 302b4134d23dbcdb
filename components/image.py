"""The images that components run in. Their names carry the code: KFP's cache looks at the name only.

There are two for pipelines, so that a change of the service's code trains nothing anew: `IMAGE` for the steps
up to `promote`, and `BUILD_IMAGE`, which has the service's code as well, for `build`. `SERVICE_IMAGE` serves.
`python -m components.image` prints them with the stages of `infra/images/Dockerfile` that make them.
"""

import hashlib
import importlib.metadata
import os
from pathlib import Path

from packaging.requirements import Requirement

from genreflow.core.digests import text_digest
from genreflow.core.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
LOCK = "requirements.lock"
"""It lies in `components`, so that it counts in a checkout and in a wheel."""
TRAINING_PACKAGES = ("genreflow",)
"""What the steps up to `promote` run. A component's code is in the compiled pipeline and the cache's keys."""
SERVICE_PACKAGES = ("genreflow", "serving")
PACKAGES = ("genreflow", "components", "serving")
DIGITS = 12


def image(root: Path = ROOT) -> str:
    """`genreflow:<version>-<digest>`, the same on every machine, however installed."""
    return f"genreflow:{VERSION}-{code_digest(root, TRAINING_PACKAGES)}"


def build_image(root: Path = ROOT) -> str:
    """`genreflow-build:<version>-<digest>`."""
    return f"genreflow-build:{VERSION}-{code_digest(root)}"


def service_image(root: Path = ROOT) -> str:
    """`genreflow-service:<version>-<digest>`."""
    return f"genreflow-service:{VERSION}-{code_digest(root, SERVICE_PACKAGES)}"


def code_digest(root: Path = ROOT, packages: tuple[str, ...] = PACKAGES) -> str:
    """Digest of the lock and of these packages of the code under root."""
    digest = hashlib.sha256()
    lock = root / "components" / LOCK
    # of components the code alone: what is compiled of them may be written beside it
    files = [
        path
        for package in packages
        for path in sorted((root / package).rglob("*.py" if package == "components" else "*"))
    ]
    for path in [lock, *files]:
        name = path.relative_to(root)
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parts):
            digest.update(name.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:DIGITS]


IMAGE = image()
BUILD_IMAGE = build_image()
SERVICE_IMAGE = service_image()


def cluster_image() -> str:
    """What pods run in, those of `build` aside: `GENREFLOW_IMAGE` where set, else `IMAGE`.

    A prebuilt image has to be named by digest, or by a tag that changes with its content: a step behind an
    unchanged name is taken from the cache.
    """
    return os.environ.get("GENREFLOW_IMAGE") or IMAGE


def image_of_build(image: str, local: bool = False) -> str:
    """What `build` runs in where the other steps run in `image`.

    On a cluster `GENREFLOW_BUILD_IMAGE` where set. Else `BUILD_IMAGE` beside `IMAGE`; beside any other image
    that image, which then has to hold the service's code, too.
    """
    named = "" if local else os.environ.get("GENREFLOW_BUILD_IMAGE", "")
    return named or (BUILD_IMAGE if image == IMAGE else image)


def step_image(name: str) -> str:
    """What the pods of one step run in."""
    image = cluster_image()
    return image_of_build(image) if name == "build" else image


def subprocess_image(packages: list[str] | None = None, root: Path = ROOT) -> str:
    """What stands for an image where steps are processes of this machine: their code with these packages.

    Without the service's code: cached steps do not run it, and a change of its page trains nothing anew.

    Args:
        packages: `name==version` of what is installed; `installed_packages()` where None.
    """
    packages = installed_packages() if packages is None else packages
    code = code_digest(root, TRAINING_PACKAGES)
    return f"genreflow:{VERSION}-{code}-{text_digest(packages)[:DIGITS]}"


def installed_packages() -> list[str]:
    """`name==version`, as installed here, of all that the library's core and its training need."""
    found = []
    for line in importlib.metadata.requires("genreflow") or []:
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate({"extra": "train"}):
            try:
                found.append(f"{need.name}=={importlib.metadata.version(need.name)}")
            except importlib.metadata.PackageNotFoundError:
                found.append(f"{need.name} is not installed")
    return sorted(found)


if __name__ == "__main__":
    for stage, name in (("training", IMAGE), ("build", BUILD_IMAGE), ("service", SERVICE_IMAGE)):
        print(stage, name)  # noqa: T201
