"""The pods that the pipelines' steps run in: image, caching, retries, resources, volumes, environment."""

import ipaddress
import math
import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from kfp import dsl, kubernetes

from components.image import image_of_build
from genreflow.core.errors import SettingsError
from genreflow.core.processors import THREAD_VARIABLES
from genreflow.registry import shown
from pipelines.kubeflow import SECONDS_A_RUN_MAY_TAKE
from pipelines.resources import Resources, cores, in_bytes, together
from pipelines.steps import Step, step

STORE_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
LIGHT = {"cpu": "1", "memory": "2G"}
"""Limits of the steps that only list or register."""
LIGHT_REQUEST, REQUEST = "100m", "1"
"""Cores that are reserved for the steps that only list or register, and for those that compute."""


def prepare(
    task: dsl.PipelineTask,
    name: str,
    resources: Resources,
    image: str,
    local: bool,
    accelerated: bool = False,
    title: str | None = None,
    reads: Sequence[str] = (),
) -> None:
    """Give a task its image, name, caching, retries, resources, volumes and environment.

    Args:
        name: its component's.
        accelerated: on an accelerator also where the step does not always need one.
        title: as Kubeflow's page shows it; the component's where None.
        reads: what it reads besides its artifacts, of which folders may lie on a claim.
    """
    run = step(name)
    task.set_caching_options(enable_caching=run.cached)
    task.set_container_image(image_of_build(image, local) if name == "build" else image)
    if local:
        return
    task.set_display_name(title or run.title)
    task.set_retry(
        num_retries=resources.retries,
        backoff_duration="30s",
        backoff_factor=2,
        # kfp's default is an hour, after which Argo starts no attempt any more and ends a running one
        backoff_max_duration=f"{SECONDS_A_RUN_MAY_TAKE}s",
    )
    on_accelerator = bool((run.accelerated or accelerated) and resources.gpus)
    _limit(task, run, resources, on_accelerator)
    variables = environment(resources)
    for variable, value in sorted({**threads(run, resources), **variables}.items()):
        task.set_env_variable(variable, value)
    for secret, keys in sorted(resources.secrets.items()):
        kubernetes.use_secret_as_env(task, secret, keys)
    for claim, path in sorted(resources.volumes.items()):
        if run.mounted or any(_is_on(path, value) for value in (*variables.values(), *reads)):
            kubernetes.mount_pvc(task, claim, path)
    _place(task, resources, on_accelerator)
    if on_accelerator:
        task.set_accelerator_type(resources.accelerator).set_accelerator_limit(resources.gpus)
        kubernetes.empty_dir_mount(
            task, "shared-memory", "/dev/shm", medium="Memory", size_limit=resources.shared_memory
        )


def _limit(task: dsl.PipelineTask, run: Step, resources: Resources, on_accelerator: bool) -> None:
    """Set limits and requests. What lies in /dev/shm counts towards the memory limit."""
    cpu, memory = (LIGHT["cpu"], LIGHT["memory"]) if run.light else (resources.cpu, resources.memory)
    cpu_request = LIGHT_REQUEST if run.light else resources.cpu_request or REQUEST
    memory_request = run.memory if run.light else resources.memory_request or run.memory
    task.set_cpu_request(min(cpu_request, cpu, key=cores))
    task.set_cpu_limit(cpu)
    task.set_memory_request(min(memory_request, memory, key=in_bytes))
    task.set_memory_limit(together(memory, resources.shared_memory) if on_accelerator else memory)


def threads(run: Step, resources: Resources) -> dict[str, str]:
    """The variables that keep libraries, which count the node's processors, to the pod's limit."""
    limit = math.ceil(cores(LIGHT["cpu"] if run.light else resources.cpu))
    return {name: str(max(1, limit)) for name in THREAD_VARIABLES if name not in _from_secrets(resources)}


def _is_on(mount: str, value: str) -> bool:
    """Whether a variable or source is a path, or the URL of a file or SQLite database, on a mounted claim."""
    folder = value.partition("?")[0].removeprefix("file://").removeprefix("sqlite:///")
    return folder == mount or folder.startswith(f"{mount}/")


def _place(task: dsl.PipelineTask, resources: Resources, on_accelerator: bool) -> None:
    """Set where the pod may run, as whom, under which labels, and who may pull its image."""
    if resources.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(resources.pull_secrets))
    for key, value in sorted(resources.labels.items()):
        kubernetes.add_pod_label(task, key, value)
    selector, tolerations = dict(resources.node_selector), list(resources.tolerations)
    if on_accelerator:
        selector |= resources.accelerator_node_selector
        tolerations += resources.accelerator_tolerations
    for key, value in sorted(selector.items()):
        kubernetes.add_node_selector(task, key, value)
    for toleration in tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())
    identity = {
        "run_as_user": resources.run_as_user,
        "run_as_group": resources.run_as_group,
        "run_as_non_root": resources.run_as_non_root,
    }
    if any(value is not None for value in identity.values()):
        kubernetes.set_security_context(task, **identity)


def environment(resources: Resources) -> dict[str, str]:
    """The pods' variables: the profile's own, and the tracking server of this shell where pods can reach it.

    Raises:
        SettingsError: a variable names an MLflow store on this machine.
    """
    for variable in STORE_VARIABLES:
        address = resources.environment.get(variable, "")
        if _on_loopback(address):
            raise SettingsError(
                f"resources.environment.{variable} is {shown(address)}, and what a pod reaches there is "
                "itself: name the address of the server in the cluster, as http://mlflow.kubeflow.svc:5000."
            )
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    inherited = {}
    reachable = tracking.startswith(("http://", "https://")) and not _on_loopback(tracking)
    if reachable and not names_tracking(resources):
        inherited["MLFLOW_TRACKING_URI"] = tracking
    return inherited | resources.environment


def tracking_of_this_machine(resources: Resources) -> bool:
    """Whether this shell's tracking server is one that pods cannot reach, and nothing else names theirs."""
    return _on_loopback(os.environ.get("MLFLOW_TRACKING_URI", "")) and not names_tracking(resources)


def names_tracking(resources: Resources) -> bool:
    """Whether the settings give the pods a tracking server, legibly or out of a secret."""
    return "MLFLOW_TRACKING_URI" in _from_secrets(resources) | resources.environment.keys()


def _from_secrets(resources: Resources) -> set[str]:
    """The variables that get their values from secrets."""
    return {variable for keys in resources.secrets.values() for variable in keys.values()}


def _on_loopback(address: str) -> bool:
    """Whether an address is that of a server on the machine that reads it."""
    if not address.startswith(("http://", "https://")):
        return False
    host = (urlsplit(address).hostname or "").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return False
    return number.is_loopback or number.is_unspecified
