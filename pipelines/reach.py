"""Warnings on paths and images that pods of a cluster may not reach, before a run is submitted."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from components.image import step_image
from pipelines.resources import Resources
from pipelines.settings import RunSettings


def reachability_warnings(settings: RunSettings) -> list[str]:
    """A sentence for each local folder that is on no volume, and for an image of no registry."""
    document = settings.model_dump(mode="json", include={"source", "corpus", "model", "training"})
    found = []
    for what, value in _texts(document, ""):
        found += source_warnings(what, value, settings.resources)
    used = {"GENREFLOW_IMAGE": step_image("resolve"), "GENREFLOW_BUILD_IMAGE": step_image("build")}
    local = [variable for variable, image in used.items() if not _names_registry(image)]
    if local:
        found.append(
            f"The image {used[local[0]]} names no registry: only nodes that have it already can start pods. "
            f"Push it to a registry that the cluster reaches, and name it with {local[0]} (docs/kubeflow.md)."
        )
    return found


def source_warnings(what: str, value: str, resources: Resources) -> list[str]:
    """A sentence where a setting names a file or folder of this machine that is on no volume.

    Args:
        what: the setting.
        value: a source, or any other text; settings have made local paths absolute.
    """
    path = PurePosixPath(value.partition("?")[0])
    if not path.is_absolute() or any(path.is_relative_to(mount) for mount in resources.volumes.values()):
        return []
    mount = path if path.parent == PurePosixPath(path.root) else path.parent
    return [
        f"{what} is {path}, a path of this machine, and none of resources.volumes is mounted there: "
        "pods find nothing there unless the image holds it. Mount a claim, as with "
        f"--set 'resources.volumes={{my-claim: {mount}}}', or name a bucket."
    ]


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _texts(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, name)


def _names_registry(image: str) -> bool:
    """Whether a reference begins with a host, by the rule of container engines."""
    host, slash, _ = image.partition("/")
    return bool(slash) and ("." in host or ":" in host or host == "localhost")
