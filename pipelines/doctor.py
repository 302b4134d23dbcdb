"""What is installed, reachable and usable on this machine."""

import importlib.metadata
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Literal, NamedTuple

from genreflow.core import home
from genreflow.core.errors import GenreflowError, NoRegistryError, one_line
from genreflow.core.processors import available_processors
from genreflow.core.version import VERSION

PACKAGES = ("torch", "transformers", "datasets", "openvino", "kfp", "mlflow", "soundfile", "av")
LEAST_MEMORY_BYTES = 3.5e9
SECONDS_TO_ANSWER = 10
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
"""Names of the Chromium executable."""


class Finding(NamedTuple):
    """One finding of the doctor."""

    what: str
    status: Literal["good", "absent", "bad"]
    """`absent` is optional and missing; `bad` stands in the way of a run."""
    detail: str


def examine() -> list[Finding]:
    """Look at everything.

    Where missing, the state folder comes into being, and the champion is fetched into it.
    """
    looks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", _python),
        ("packages", _packages),
        ("processor", _processor),
        ("torch device", _torch_device),
        ("openvino", _openvino),
        ("memory", _memory),
        ("state folder", _state_folder),
        ("MLflow store", _store),
        ("champion", _champion),
        ("chromium", _chromium),
        ("docker", _docker),
    ]
    findings = []
    for what, look in looks:
        try:
            findings.append(look())
        except GenreflowError as error:
            findings.append(Finding(what, "bad", str(error)))
        except Exception as error:  # a doctor must not die of what it finds
            findings.append(Finding(what, "bad", f"{type(error).__name__}: {one_line(error)}"))
    return findings


def as_text(findings: list[Finding]) -> str:
    """One line a finding."""
    marks = {"good": "✓", "absent": "–", "bad": "✗"}
    width = max(len(finding.what) for finding in findings)
    return "\n".join(f"{marks[status]} {what:<{width}}  {detail}" for what, status, detail in findings)


def _python() -> Finding:
    fits = sys.version_info[:2] == (3, 11)
    detail = f"{platform.python_version()} at {sys.executable}; genreflow {VERSION}"
    return Finding("python", "good" if fits else "bad", detail if fits else f"{detail}; genreflow needs 3.11")


def _packages() -> Finding:
    missing, present = [], []
    for name in PACKAGES:
        try:
            present.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    detail = ", ".join(present)
    if missing:
        return Finding(
            "packages", "bad", f"{detail}; missing: {', '.join(missing)} (make setup installs them)"
        )
    return Finding("packages", "good", detail)


def _processor() -> Finding:
    from genreflow.inference.processor import processor

    return Finding("processor", "good", f"{processor()}, {available_processors()} cores")


def _torch_device() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("torch device", "good", f"cuda: {', '.join(names)}")
    return Finding("torch device", "good", f"cpu, {torch.get_num_threads()} threads; no GPU is usable")


def _openvino() -> Finding:
    from genreflow.inference.backends.openvino import openvino_precisions

    precisions = openvino_precisions()
    return Finding("openvino", "good", f"usable, precisions {', '.join(precisions)}")


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    detail = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB are free"
    short = memory.available < LEAST_MEMORY_BYTES
    return Finding(
        "memory", "bad" if short else "good", f"{detail}; quickstart needs 3.5" if short else detail
    )


def _state_folder() -> Finding:
    from pipelines.checks import state_folder

    free = state_folder()
    return Finding("state folder", "good", f"{home.home()}, {free / 1e9:.1f} GB free")


def _store() -> Finding:
    from genreflow import registry

    address = registry.shown(home.tracking_uri())
    try:
        registry.check(create=False)
    except NoRegistryError as error:
        return Finding("MLflow store", "absent", str(error))
    count = len(registry.versions())
    return Finding("MLflow store", "good", f"{address}, {count} version{'s' * (count != 1)}")


def _champion() -> Finding:
    from genreflow import registry
    from genreflow.inference.loading import load_classifier

    champion = registry.champion()
    if champion is None:
        return Finding("champion", "absent", "none yet; genreflow run makes the first")
    classifier = load_classifier(registry.fetch(champion.version))
    detail = f"version {champion.version}, {classifier.document.family}, "
    detail += f"{classifier.runtime} {classifier.precision}"
    return Finding("champion", "good", detail)


def _chromium() -> Finding:
    found = chromium()
    return (
        Finding("chromium", "good", found)
        if found
        else Finding("chromium", "absent", "only browser tests need it")
    )


def chromium() -> str | None:
    """The path of a Chromium that the browser tests can drive."""
    return next((path for name in CHROMIUM if (path := shutil.which(name))), None)


def _docker() -> Finding:
    if shutil.which("docker") is None:
        return Finding("docker", "absent", "only --runner docker needs it")
    listed = subprocess.run(
        ["docker", "info", "--format", "{{.ServerVersion}}"],
        capture_output=True,
        text=True,
        timeout=SECONDS_TO_ANSWER,
        check=False,
    )
    if listed.returncode:
        return Finding("docker", "absent", "the engine does not answer; only --runner docker needs it")
    return Finding("docker", "good", f"engine {listed.stdout.strip()}")
