"""The Kubernetes manifests as tests use them: rendered overlays, and what is read out of them."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

KUBECTL = Path(sys.executable).parent / "kubectl"
MANIFESTS = ROOT / "infra" / "kubernetes"
OVERLAYS = ("demo", "production")
Manifest = dict[str, Any]


def copied(folder: Path) -> Path:
    """The manifests as git has them, without secrets that were made in this checkout."""
    shutil.copytree(MANIFESTS, folder, ignore=shutil.ignore_patterns("secrets"))
    return folder


def rendered(overlay: Path) -> list[Manifest]:
    """All objects of an overlay, as `kubectl kustomize` prints them."""
    done = subprocess.run([KUBECTL, "kustomize", overlay], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(objects: list[Manifest], *kinds: str) -> list[Manifest]:
    return [one for one in objects if one["kind"] in kinds]


def named(objects: list[Manifest], kind: str, name: str) -> Manifest:
    """The object of that kind and name; a generated name may have its hash."""
    pattern = re.compile(rf"{re.escape(name)}(-[a-z0-9]{{10}})?")
    (found,) = [one for one in of_kind(objects, kind) if pattern.fullmatch(one["metadata"]["name"])]
    return found


def workloads(objects: list[Manifest]) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Name, pod labels and pod specification of everything that makes pods."""
    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            template = one["spec"]["template"]
        elif one["kind"] == "CronJob":
            template = one["spec"]["jobTemplate"]["spec"]["template"]
        else:
            continue
        yield one["metadata"]["name"], template["metadata"]["labels"], template["spec"]


def containers(objects: list[Manifest]) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Workload/container, the container, and the pod specification that it stands in."""
    for name, _, pod in workloads(objects):
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield f"{name}/{container['name']}", container, pod


def container(objects: list[Manifest], name: str) -> Manifest:
    """The container named as `workload/container`."""
    (found,) = [one for which, one, _ in containers(objects) if which == name]
    return found


def environment(objects: list[Manifest], one: Manifest) -> dict[str, str]:
    """The variables of a container, out of the ConfigMaps and Secrets that it names."""
    variables: dict[str, str] = {}
    for source in one.get("envFrom", []):
        if "configMapRef" in source:
            variables |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
        else:
            variables |= decoded(named(objects, "Secret", source["secretRef"]["name"]))
    for entry in one.get("env", []):
        if "value" in entry:
            variables[entry["name"]] = entry["value"]
        else:
            reference = entry["valueFrom"]["secretKeyRef"]
            variables[entry["name"]] = decoded(named(objects, "Secret", reference["name"]))[reference["key"]]
    return variables


def decoded(secret: Manifest) -> dict[str, str]:
    import base64

    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def arguments(one: Manifest, variables: dict[str, str]) -> list[str]:
    """Command and arguments of a container, with `$(NAME)` replaced as the kubelet does."""
    line = [*one.get("command", []), *one.get("args", [])]
    return [
        re.sub(r"\$\(([A-Za-z_]\w*)\)", lambda found: variables.get(found[1], found[0]), part)
        for part in line
    ]
