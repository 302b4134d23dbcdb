"""How large the Argo Workflow of a pipeline becomes, which etcd bounds: an estimate.

KFP 2.17 writes into the Workflow's status, for every step, a node of its driver (inputs: component, task and
container; output: the patch of the pod's specification) and nodes of its executor, which have that patch as
their input: the executor's graph, its pod, and, where it may be retried, the retry above it. The patch holds
the whole command, the component and the arguments, as JSON within JSON.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

BUDGET = 1_000_000
"""Bytes up to which Argo keeps the status as it is; larger ones it compresses. etcd refuses 1.5 MB."""
ESCAPED = 1.3
"""Bytes of JSON as a text within JSON, over its own: quotes and line ends are escaped."""
ARTIFACT = 750
"""Bytes of an artifact among the arguments: its address, type and metadata."""
LAUNCHER = 4_300
"""Bytes of a pod's patch that are the same for every step: the launcher's command, resources, variables."""
NODE = 1_200
"""Bytes of a node of the status without its inputs and outputs."""
TEMPLATES = 40_000
"""Bytes of the Workflow that do not grow with the number of steps, besides the pipeline itself."""
UNKNOWN = 100
"""Bytes of an argument that only the run knows, such as a fingerprint."""


def estimated_bytes(spec: Mapping[str, Any], platform: Mapping[str, Any] | None = None) -> int:
    """Bytes of the Workflow at the end of a run in which every step ran once.

    The constants were set by one measured run: 576 kB for nine steps, 55 kB of it for each.

    Args:
        spec: the pipeline's specification, as JSON.
        platform: its Kubernetes part, where it has one.
    """
    executors = spec["deploymentSpec"]["executors"]
    kubernetes = (platform or {}).get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
    total = 0.0
    for task in _steps(spec):
        component = spec["components"][task["componentRef"]["name"]]
        label = component["executorLabel"]
        container = executors[label]["container"]
        config = _size(kubernetes.get("executors", {}).get(label, {}))
        own = _size(component) + _size(container)
        arguments = sum(_argument(spec, given) for given in _parameters(task))
        artifacts = ARTIFACT * (len(task.get("inputs", {}).get("artifacts", {})) + _outputs(component))
        patch = ESCAPED * (own + config + arguments + artifacts) + LAUNCHER
        copies = 4 if "retryPolicy" in task else 3
        total += copies * patch + own + config + _size(task) + (copies + 2) * NODE
    return round(total + _size(spec) + TEMPLATES)


def _steps(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The tasks that are pods, those inside conditions and loops too."""
    waiting = [spec["root"]["dag"]]
    while waiting:
        for task in waiting.pop()["tasks"].values():
            component = spec["components"][task["componentRef"]["name"]]
            if "dag" in component:
                waiting.append(component["dag"])
            else:
                yield task


def _parameters(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(task.get("inputs", {}).get("parameters", {}).values())


def _argument(spec: Mapping[str, Any], given: Mapping[str, Any]) -> int:
    """Bytes of an argument: a constant, a parameter of the pipeline, or what another step returned."""
    if "runtimeValue" in given:
        return _size(given["runtimeValue"].get("constant"))
    parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    name = given.get("componentInputParameter", "").removeprefix("pipelinechannel--")
    return _size(parameters[name].get("defaultValue")) if name in parameters else UNKNOWN


def _outputs(component: Mapping[str, Any]) -> int:
    return len(component.get("outputDefinitions", {}).get("artifacts", {}))


def _size(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())
