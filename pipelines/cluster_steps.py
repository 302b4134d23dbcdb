"""What the steps of a run on Kubeflow are doing, read from the tasks that KFP reports and from their logs."""

import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from genreflow.core.errors import one_line
from pipelines.step_states import StepState
from pipelines.steps import COMPARISON_STEPS, STEPS, Step, numbered

if TYPE_CHECKING:
    from kfp_server_api import V2beta1PipelineTaskDetail, V2beta1Run

FNV_OFFSET, FNV_PRIME = 0x811C9DC5, 0x01000193
"""Of the 32-bit FNV-1a hash, with which Argo makes a node's id of its name."""
MOST_ATTEMPTS = 20
ATTEMPT = re.compile(r"\((\d+)\)$")
TEMPLATES = {
    "executor": "retry-system-container-impl",
    "driver": "system-container-driver",
    "dag driver": "system-dag-driver",
}
"""KFP's Argo templates of a step's pods, which Argo makes part of the pods' names."""
PAGE_TEMPLATE = "system-container-impl"
"""The one that the server of KFP's page knows."""
PLATFORM = ("platform_spec", "platforms", "kubernetes", "deploymentSpec", "executors")
"""The way to the executors in what is compiled of the pods' settings."""
ROOT, CONDITION = "root", "condition-1"
"""Graphs whose driver runs before a step's own: the pipeline, and what only a promotion needs."""
SECONDS_TO_START = 120
"""A pod that has not started after so long may never do so."""
LAUNCHER = re.compile(r"^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w.]+:\d+\] (.*)$")
"""A line of KFP's launcher, or of its driver."""
ARGO = re.compile(r"^(?:time=\S+ level=.*|Error: (?:exit status|signal:).*)$")
"""A line of Argo's executor, in which the launcher runs."""
TERMINATED = re.compile(r"exit status 143\b|signal: terminated")
KILLED = re.compile(r"exit status 137\b|signal: killed")
LOST = re.compile(
    r"\bUnavailable\b|DeadlineExceeded|deadline exceeded|connection (?:refused|reset)|i/o timeout|"
    r"broken pipe|no such host|\bEOF\b|\b50[234]\b|server is (?:currently unable|shutting down)"
)
"""The launcher's messages where a part of the cluster was unavailable."""
EXITED = re.compile(r"exit status (\d+)")
LAUNCHER_FAILED = re.compile(r"(?:KFP driver: .*)?failed to ")
RAISED = re.compile(r"^((?:\w+\.)*\w+): (.+)$")
OWN_ERRORS = "genreflow.core.errors."


class Pods(NamedTuple):
    """Where the pods of a run are, what their names begin with, and which steps they are of."""

    namespace: str
    prefix: str = ""
    """Of the executors' template, which KFP names by the number of labels."""
    steps: tuple[Step, ...] = ()
    """Of the run's pipeline; empty where that is not known, and then taken from the run's tasks."""


class FailedPod(NamedTuple):
    """The pod at which a run failed."""

    step: str
    """KFP's name of the step."""
    names: tuple[str, ...]
    """What the pod may be called, the likeliest first: the name that Argo has given pods since 3.4, and the
    node's id, which was the name before and is that of an archived log."""

    @property
    def names_for_page(self) -> tuple[str, ...]:
        """The names by which the server of KFP's page finds the log, of the pod and then of its archive.

        It takes what stands before the name of KFP's own template for the workflow, and without that template
        for the node's id: with the retrying template's name it finds neither.
        """
        if not self.names:
            return ()
        pod, node = self.names
        workflow, _, number = node.rpartition("-")
        return tuple(dict.fromkeys((pod, f"{workflow}-{PAGE_TEMPLATE}-{number}")))


class Failure(NamedTuple):
    """Why a step failed."""

    step: str
    reason: str
    cause: Literal["step", "memory", "pod"]
    """`step`: it raised an error, or something it needs refused. `memory`: its process was killed, which is
    how a container ends that needs more memory than its limit. `pod`: its pod was ended from outside
    (deleted, drained, evicted), or a part of the cluster was away as it ended."""

    @property
    def may_retry(self) -> bool:
        """Whether a retry may succeed: not after an error of its own, nor within the same memory."""
        return self.cause == "pod"


def template_prefix(pods: Any) -> str:
    """What the name of the executors' Argo template begins with, by the pipeline's settings of pods.

    Args:
        pods: the platform document of a compiled pipeline, or any part of it that has the executors in it.
    """
    if not isinstance(pods, dict):
        return ""
    metadata = pods.get("podMetadata")
    if metadata is not None:
        return f"metadata-{len(metadata.get('annotations', ()))}-{len(metadata.get('labels', ()))}-"
    found = (template_prefix(part) for name, part in pods.items() if name in PLATFORM or "exec-" in name)
    return next(filter(None, found), "")


def compiled_steps(spec: Any) -> tuple[Step, ...]:
    """The steps of a compiled pipeline, with the titles that they were given; none of one that is not ours.

    A run that has just started has no tasks yet that would tell them.

    Args:
        spec: the compiled pipeline, alone or beside the platform document.
    """
    pipeline = spec.get("pipeline_spec", spec) if isinstance(spec, dict) else {}
    graphs = [pipeline.get("root", {}), *pipeline.get("components", {}).values()]
    tasks = {name: task for graph in graphs for name, task in graph.get("dag", {}).get("tasks", {}).items()}
    titles = {name: task.get("taskInfo", {}).get("name") for name, task in tasks.items()}
    return tuple(
        replace(each, title=titles[each.task_name] or each.title)
        for each in _table(tasks)
        if each.task_name in tasks
    )


def states(run: "V2beta1Run", pods: Pods) -> list[StepState]:
    """The pipeline's steps as they are shown, in its order; those that wait included.

    Args:
        pods: named where one does not start.
    """
    now = datetime.now(UTC)
    tasks = _tasks(run)
    by_name = {task.display_name: task for task in tasks if task.display_name}
    table = pods.steps or _table(by_name)
    # a pipeline that an older genreflow submitted has fewer steps: fitting waits for all before it
    fitted = by_name.get("fine-tune")
    before = itertools.takewhile(lambda name: name != "fine_tune", (each.name for each in table))
    absent = [name for name in before if fitted and name.replace("_", "-") not in by_name]
    waits = _waits(tasks, table, now, pods)
    found = []
    for each in table:
        name, kfp_name = each.name, each.task_name
        task = by_name.get(kfp_name)
        if name in absent:
            continue
        if task is None or task.state is None:
            state = StepState(name, "waiting", title=each.title)
            if each.conditional and _state(by_name.get(CONDITION)) == "SKIPPED":
                state.status = "skipped"
            elif kfp_name in waits:
                state.status = "running"
                state.seconds, state.message = waits[kfp_name]
            elif _state(by_name.get(f"{kfp_name}-driver")) == "FAILED":
                state.status = "failed"
            found.append(state)
            continue
        state = StepState(name, title=each.title)
        ended = task.end_time if task.state != "RUNNING" else now
        if task.start_time and ended:
            state.seconds = max((ended - task.start_time).total_seconds(), 0.0)
        if task.state == "SUCCEEDED":
            state.status = "cached" if _is_cached(task, tasks) else "done"
        elif task.state == "SKIPPED":
            state.status = "skipped"
        elif task.state in ("FAILED", "CANCELED"):
            state.status = "failed"
        else:
            state.status = "running"
            state.message = waits[kfp_name][1] if kfp_name in waits else ""
        found.append(state)
    return found


def failed_pod(run: "V2beta1Run", pods: Pods) -> FailedPod | None:
    """The last pod of the step that failed first; None where only the run as a whole failed.

    A step has two pods: KFP's driver looks its inputs up, and the executor runs it.
    """
    names = {task.display_name for task in _tasks(run) if task.display_name}
    parts = {each.task_name: "executor" for each in pods.steps or _table(names)}
    parts |= {f"{name}-driver": "driver" for name in parts}
    failed = [
        task for task in _tasks(run) if task.display_name in parts and task.state in ("FAILED", "CANCELED")
    ]
    if not failed:
        return None
    first = min(failed, key=lambda task: task.end_time or datetime.max.replace(tzinfo=UTC))
    step = str(first.display_name).removesuffix("-driver")
    return FailedPod(step, _pod_names(_nodes(_tasks(run)), step, parts[str(first.display_name)], pods.prefix))


def _table(names: Collection[str]) -> tuple[Step, ...]:
    """The steps of a run, by the names of its tasks; a comparison's candidates are numbered.

    KFP reports a task's name, but not the title that it was given.
    """
    if not any(each.task_name in names for each in COMPARISON_STEPS if each not in STEPS):
        return STEPS
    return numbered(names)


def unreadable(pod: FailedPod, namespace: str) -> Failure:
    """A failure whose reason this host does not show: maybe the step's own error, so it is not retried."""
    return Failure(
        pod.step,
        "its log cannot be read through this host, but through the API's own service, such as by "
        f"`kubectl port-forward -n kubeflow service/ml-pipeline 8888`; or kubectl logs {pod.names[0]} "
        f"-n {namespace}",
        "step",
    )


def failure(step: str, log: str | None) -> Failure:
    """Why a step failed, in the words that the log of its pod ends with.

    Args:
        step: KFP's name of the step.
        log: of its last pod; None where it is gone.
    """
    if log is None:
        return Failure(step, "its pod is gone, and its log with it: deleted, drained or evicted", "pod")
    lines = log.splitlines()
    launcher = [match[1] for match in map(LAUNCHER.match, lines) if match]
    around = launcher + [line for line in lines if ARGO.match(line)]
    own = [line for line in lines if line.strip() and not LAUNCHER.match(line) and not ARGO.match(line)]
    last = f" The last it logged: {one_line(own[-1])}" if own else ""
    if any(map(TERMINATED.search, around)):
        return Failure(step, f"its pod was ended by SIGTERM: deleted, drained or preempted.{last}", "pod")
    if any(map(KILLED.search, around)):
        return Failure(
            step, f"it was killed, most likely for more memory than resources.memory allows.{last}", "memory"
        )
    exited = any(map(EXITED.search, launcher))
    begin = max((at for at, line in enumerate(own) if line.startswith("Traceback (most")), default=None)
    if begin is not None:
        raised = [(at, match) for at, line in enumerate(own) if (match := RAISED.match(line)) and at > begin]
        at, match = raised[-1] if raised else (len(own) - 1, None)
        if exited or at == len(own) - 1:  # else it was logged, and the step went on
            own_error = match is not None and match[1].startswith(OWN_ERRORS)
            return Failure(step, match[2] if match and own_error else own[at].strip(), "step")
    if exited and own:
        return Failure(step, own[-1].strip(), "step")
    lines = [words for words in launcher if LAUNCHER_FAILED.match(words)]
    if lines:
        lost = any(map(LOST.search, lines))
        return Failure(step, f"KFP's launcher failed: {one_line(lines[-1])}", "pod" if lost else "step")
    return Failure(step, f"it raised no error: its pod was ended from outside.{last}", "pod")


def _tasks(run: "V2beta1Run") -> Sequence["V2beta1PipelineTaskDetail"]:
    details = run.run_details
    return (details.task_details or []) if details else []


def _state(task: "V2beta1PipelineTaskDetail | None") -> str | None:
    return task.state if task else None


def _is_cached(task: "V2beta1PipelineTaskDetail", tasks: Iterable["V2beta1PipelineTaskDetail"]) -> bool:
    """Whether the step's executor was skipped, which is how Argo reports a hit of KFP's cache."""
    return any(
        other.display_name == "executor"
        and other.state == "SKIPPED"
        and (other.start_time, other.end_time) == (task.start_time, task.end_time)
        for other in tasks
    )


def _waits(
    tasks: Sequence["V2beta1PipelineTaskDetail"], table: Sequence[Step], now: datetime, pods: Pods
) -> dict[str, tuple[float, str]]:
    """KFP's name of each step whose pod has not started for a while → seconds, and what it may wait for."""
    pending = [
        task
        for task in tasks
        if task.state == "PENDING"
        and task.start_time
        and ATTEMPT.search(task.display_name or "")
        and (now - task.start_time).total_seconds() >= SECONDS_TO_START
    ]
    if not pending:
        return {}
    nodes = _nodes(tasks)
    names = {each.task_name for each in table}
    conditional = next((each.task_name for each in table if each.conditional), CONDITION)
    first_of = {ROOT: table[0].task_name, CONDITION: conditional}
    running = [task for task in tasks if task.display_name in names and task.state == "RUNNING"]
    found = {}
    for pod in pending:
        kind = ATTEMPT.sub("", pod.display_name)
        seconds = (now - pod.start_time).total_seconds()
        if kind == "executor":
            # its name does not contain the step's: that is the one that started last before it
            began = [task.start_time for task in running if task.start_time <= pod.start_time]
            steps = [task.display_name for task in running if began and task.start_time == max(began)]
        else:
            steps = [kind.removesuffix("-driver")]
        for step in steps:
            part = "executor" if kind == "executor" else "dag driver" if step in first_of else "driver"
            called = _pod_names(nodes, step, part, pods.prefix)
            which = called[0] if called else f"-l pipeline/runid={pod.run_id}"
            found[first_of.get(step, step)] = (
                seconds,
                f"waiting for a pod since {seconds // 60:.0f} min: image, quota, claim or node? "
                f"kubectl describe pod {which} -n {pods.namespace}",
            )
    return found


def _pod_names(nodes: dict[str, str], step: str, part: str, prefix: str) -> tuple[str, ...]:
    """What the last pod of a step may be called, the likeliest first; none where it has no pod."""
    end = r"(?:\((\d+)\))?\.executor" if part == "executor" else "-driver"
    ending = re.compile(rf"\.{re.escape(step)}{end}(?:\((\d+)\))?$")
    attempts = []
    for name, node in nodes.items():
        match = ending.search(name)
        if match:
            attempts.append((tuple(int(number or -1) for number in match.groups()), node))
    if not attempts:
        return ()
    node = max(attempts)[1]
    workflow, _, number = node.rpartition("-")
    template = (prefix if part == "executor" else "") + TEMPLATES[part]
    return f"{workflow}-{template}-{number}", node


def _nodes(tasks: Iterable["V2beta1PipelineTaskDetail"]) -> dict[str, str]:
    """Full name → id of the nodes of the workflow.

    KFP reports names without their place in the graph, and ids of children only; an id ends with the hash
    of the full name.
    """
    tasks = list(tasks)
    ids = {child.pod_name for task in tasks for child in task.child_tasks or [] if child.pod_name}
    names = {
        task.display_name for task in tasks if task.display_name and not ATTEMPT.search(task.display_name)
    }
    found: dict[str, str] = {}
    waiting = [name for name in names if any(node.startswith(f"{name}-") for node in ids)]
    workflows = waiting[:]
    while waiting:
        parent = waiting.pop()
        workflow = next(name for name in workflows if parent.startswith(name))
        attempts = [f"{parent}({number})" for number in range(MOST_ATTEMPTS)]
        for name in [*attempts, *(f"{parent}.{name}" for name in names)]:
            node = f"{workflow}-{_hash(name)}"
            if node in ids and name not in found:
                found[name] = node
                waiting.append(name)
    return found


def _hash(name: str) -> int:
    value = FNV_OFFSET
    for byte in name.encode():
        value = ((value ^ byte) * FNV_PRIME) & 0xFFFFFFFF
    return value
