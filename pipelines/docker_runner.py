"""`--runner docker`: what the containers of a run's steps see of this machine."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genreflow.core import home
from genreflow.core.errors import SettingsError
from genreflow.core.progress import PROGRESS_VARIABLE
from pipelines.settings import run_settings_variable

if TYPE_CHECKING:
    from pipelines.settings import RunSettings

PASSED_PREFIXES = ("AWS_", "HF_", "MLFLOW_", "GENREFLOW_", "OMP_")
"""Beginnings of the variables that containers get from this shell."""
PROXY_VARIABLES = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}


def docker_runner(settings: "Sequence[RunSettings]", progress_file: Path, read: Sequence[str] = ()) -> Any:
    """Containers that see the folders of state, BentoML, source and backbone under their own paths, and the
    variables of this shell that say where stores, hubs and servers are."""
    from components.image import BUILD_IMAGE, IMAGE

    try:
        import docker

        client = docker.from_env()
        client.ping()
    except Exception as error:
        raise SettingsError(
            "--runner docker needs a Docker engine, and none answers here; take --runner subprocess."
        ) from error
    for image in (IMAGE, BUILD_IMAGE):
        if not client.images.list(name=image):
            raise SettingsError(f"There is no image {image} here: build it with make images.")
    from kfp import local

    variables = _passed_variables() | {
        PROGRESS_VARIABLE: str(progress_file),
        "GENREFLOW_HOME": str(home.home()),
        "BENTOML_HOME": str(home.bentoml_home()),
        "MLFLOW_TRACKING_URI": home.tracking_uri(),
        **run_settings_variable(all_training(settings)),
    }
    mounts = [
        docker.types.Mount(target=name, source=name, type="bind", read_only=read_only)
        for name, read_only in sorted(_mounted(settings, variables, read).items())
    ]
    home.pipeline_root().mkdir(parents=True, exist_ok=True)  # the engine would make it, as root's
    # what containers write into these folders belongs to who runs this; the image's own user could not write
    return local.DockerRunner(environment=variables, mounts=mounts, user=f"{os.getuid()}:0")


def all_training(settings: "Sequence[RunSettings]") -> dict[str, Any]:
    """The training settings of all; those that say where and how a fit runs are the same for each."""
    merged: dict[str, Any] = {}
    for one in settings:
        merged |= one.training
    return merged


def _passed_variables() -> dict[str, str]:
    """Variables of this shell for stores, hubs, servers and proxies: a container inherits none of them."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(PASSED_PREFIXES) or name.upper() in PROXY_VARIABLES
    }


def _mounted(
    settings: "Sequence[RunSettings]", variables: dict[str, str], read: Sequence[str] = ()
) -> dict[str, bool]:
    """Paths that containers see under their own names, and whether they may only read them."""
    from genreflow.corpus.sources.table import is_table

    named = list(_passed_variables().values())
    named += [one.backbone or "" for one in settings]
    for source in (*(one.source for one in settings), *read):
        # a table names files beside it
        named.append(str(Path(source).parent) if is_table(source) else source)
    mounted = {name: True for name in named if Path(name).is_absolute() and Path(name).exists()}
    written = [variables.get(name) for name in ("GENREFLOW_HOME", "BENTOML_HOME", "HF_HOME")]
    written += [one.training.get("checkpoint_uri") for one in settings]
    for name in written:
        if name and Path(name).is_absolute():
            Path(name).mkdir(parents=True, exist_ok=True)
            mounted[name] = False
    return mounted
