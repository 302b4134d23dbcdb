"""The section `resources`: what the pods of a pipeline get, and what Kubernetes or KFP would reject."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from genreflow.core.documents import Frozen

RESERVED_MOUNTS = {
    "/gcs": "KFP's launcher",
    "/minio": "KFP's launcher",
    "/s3": "KFP's launcher",
    "/kfp-launcher": "KFP's launcher",
    "/kfp": "KFP's launcher",
    "/.local": "KFP's launcher",
    "/.cache": "KFP's launcher",
    "/.config": "KFP's launcher",
    "/var/run/argo": "Argo",
    "/var/run/secrets": "Kubernetes",
    "/dev": "the container",
    "/proc": "the container",
    "/sys": "the container",
}
"""Paths of a pod that are not free, and what they belong to."""
UNITS = {"": 1} | {
    f"{letter}{binary}": (1024 if binary else 1000) ** power
    for power, letter in enumerate("KMGTPE", start=1)
    for binary in ("", "i")
}
MEBIBYTE = 2**20


def _written(value: Any) -> Any:
    """What YAML read as a number or a boolean, as the text that a program expects of a variable."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _matching(pattern: str, wanted: str) -> Callable[[str], str]:
    """A check that a text matches a pattern as a whole; `wanted` says what does."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"has to be {wanted}")
        return text

    return check


def _mount_path(path: str) -> str:
    if not path.startswith("/") or not path.strip("/") or ":" in path or ".." in path.split("/"):
        raise ValueError("has to be an absolute path below /, without : and ..")
    path = "/" + "/".join(part for part in path.split("/") if part)
    for reserved, owner in RESERVED_MOUNTS.items():
        if f"{path}/".startswith(f"{reserved}/") or reserved.startswith(f"{path}/"):
            raise ValueError(f"has to be another path: {reserved} in a pod belongs to {owner}")
    return path


LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
SUBDOMAIN = rf"(?=.{{1,253}}$){LABEL}(\.{LABEL})*"
WORD = r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?"

Text = Annotated[str, BeforeValidator(_written)]
ClaimName = Annotated[
    str,
    AfterValidator(
        _matching(
            LABEL,
            "lower-case letters, digits and hyphens, at most 63 and no dots, because KFP gives the pod's "
            "volume the claim's name",
        )
    ),
]
ObjectName = Annotated[
    str, AfterValidator(_matching(SUBDOMAIN, "lower-case letters, digits, hyphens and dots, at most 253"))
]
"""Of a secret in Kubernetes."""
SecretKey = Annotated[str, AfterValidator(_matching(r"[-._a-zA-Z0-9]{1,253}", "letters, digits, -, _ and ."))]
Variable = Annotated[
    str, AfterValidator(_matching(r"[A-Za-z_][A-Za-z0-9_]*", "letters, digits and _, the first no digit"))
]
MountPath = Annotated[str, AfterValidator(_mount_path)]
CpuAmount = Annotated[
    str,
    Field(coerce_numbers_to_str=True),
    AfterValidator(_matching(r"([0-9]*\.)?[0-9]+|[0-9]+m", "cores, as 2 or 0.5, or thousandths, as 500m")),
]
"""Cores, as `2` or `0.5`, or thousandths of one, as `500m`."""
Bytes = Annotated[
    str,
    Field(coerce_numbers_to_str=True),
    AfterValidator(_matching(r"[0-9]+([EPTGM]i?|Ki)?", "bytes, as 4G, 4Gi, 500M, 500Mi or 4096Ki")),
]
"""As `4G` or `2Gi`. `K`, which kfp accepts, is no unit to Kubernetes, and `k` none to kfp."""
LabelKey = Annotated[
    str,
    AfterValidator(
        _matching(
            rf"({LABEL}(\.{LABEL})*/)?{WORD}",
            "letters, digits, -, _ and ., at most 63, or a domain, / and those",
        )
    ),
]
LabelValue = Annotated[
    str,
    BeforeValidator(_written),
    AfterValidator(_matching(rf"({WORD})?", "letters, digits, -, _ and ., at most 63")),
]


class Toleration(Frozen):
    """A taint of nodes that pods tolerate, in Kubernetes' words."""

    key: str | None = None
    """The taint's key; every taint where None, with `Exists`."""
    operator: Literal["Equal", "Exists"] = "Exists"
    """`Equal` compares the value, too."""
    value: str | None = None
    """With `Equal`."""
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None
    """Every effect where None."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.operator == "Exists" and self.value:
            raise ValueError(f"a toleration with operator Exists compares no value, not {self.value!r}")
        if self.operator == "Equal" and not self.key:
            raise ValueError("a toleration with operator Equal needs a key")
        return self


class Resources(Frozen):
    """What a step gets in its pod; on this machine only device and batch count."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`, `cpu` or `cuda`: where features are extracted and, unless training says, trained on."""
    batch: int = Field(default=8, ge=1)
    """Windows computed at once in extraction."""
    extract: Literal["all", "split"] = "all"
    """Clips whose features are computed: `all`, once for every protocol and fold; or those that train and
    validate in the run's `split`, anew for each split."""
    cpu: CpuAmount = "2"
    """Limit of the steps that compute, in cores (`0.5`, `500m`), and the threads of their libraries; the
    steps that list or register get 1."""
    memory: Bytes = "4G"
    """Limit of the steps that compute (`4G`, `4Gi`), to which `shared_memory` is added where there is an
    accelerator; the steps that list or register get 2G."""
    cpu_request: CpuAmount | None = None
    """What the scheduler reserves for the steps that compute; 1 core, or the limit where it is less, where
    None."""
    memory_request: Bytes | None = None
    """What the scheduler reserves for the steps that compute; what each was measured to use at most, or the
    limit where it is less, where None."""
    gpus: int = Field(default=0, ge=0)
    """Accelerators for the steps that run the model; 0 requests none."""
    accelerator: str = "nvidia.com/gpu"
    """What the cluster calls them."""
    shared_memory: Bytes = "2Gi"
    """Size of /dev/shm where an accelerator is requested: PyTorch's loaders die without."""
    retries: int = Field(default=2, ge=0)
    """How often Argo tries a pod again that vanished (up to KFP 2.16, one that failed for any reason); on
    this machine a failure is reported at once."""
    environment: dict[Variable, Text] = Field(default_factory=dict)
    """Variables of every pod, such as MLFLOW_TRACKING_URI; what is secret belongs into `secrets`."""
    secrets: dict[ObjectName, dict[SecretKey, Variable]] = Field(default_factory=dict)
    """Kubernetes secrets, and for each of their keys the variable of every pod that gets its value."""
    volumes: dict[ClaimName, MountPath] = Field(default_factory=dict)
    """Persistent volume claims, each with its path in the steps that read source or backbone, and in every
    step where a variable in `environment` names a folder on it."""
    pull_secrets: tuple[ObjectName, ...] = ()
    """Secrets of the registry that the image is pulled from."""
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels of every pod, for quotas, costs and policies of the cluster."""
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels that every pod's node must have."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that every pod tolerates, each with `key`, `operator`, `value`, `effect`."""
    accelerator_node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels that the nodes of steps with an accelerator must have, too."""
    accelerator_tolerations: tuple[Toleration, ...] = ()
    """Taints that steps with an accelerator tolerate, too, such as those of GPU nodes."""
    run_as_user: int | None = Field(default=None, ge=0)
    """The user id of every pod's container; the image's where None. From KFP 2.16 on."""
    run_as_group: int | None = Field(default=None, ge=0)
    """The group id of every pod's container; the image's where None. From KFP 2.16 on."""
    run_as_non_root: bool | None = None
    """Whether a container that would run as root is refused, as namespaces with pod security `restricted`
    demand. From KFP 2.16 on."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        """Reject combinations that Kubernetes would reject, or read only one of."""
        from_secrets = [variable for keys in self.secrets.values() for variable in keys.values()]
        for variable in from_secrets:
            if variable in self.environment:
                raise ValueError(
                    f"{variable} stands both in environment and in secrets: leave it in one of the two"
                )
        if (twice := _repeated(from_secrets)) is not None:
            raise ValueError(f"{twice} comes out of two secrets: leave it in one of them")
        if (twice := _repeated(self.volumes.values())) is not None:
            raise ValueError(f"two claims are mounted on {twice}: give each a path of its own")
        for request, limit in (("cpu_request", "cpu"), ("memory_request", "memory")):
            size = cores if limit == "cpu" else in_bytes
            wanted = getattr(self, request)
            if wanted is not None and size(wanted) > size(getattr(self, limit)):
                raise ValueError(f"{request} {wanted} is more than the limit {limit} {getattr(self, limit)}")
        if self.run_as_non_root and self.run_as_user == 0:
            raise ValueError("run_as_user 0 is root, which run_as_non_root refuses")
        return self


def _repeated(values: Iterable[str]) -> str | None:
    """The first value that comes a second time."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def cores(amount: str) -> float:
    """Cores as a number, of `2`, `0.5` or `500m`."""
    return int(amount[:-1]) / 1000 if amount.endswith("m") else float(amount)


def in_bytes(amount: str) -> int:
    """Bytes as a number, of `4G`, `2Gi` or `4096`."""
    number = re.match(r"[0-9]+", amount)
    assert number is not None
    return int(number[0]) * UNITS[amount[number.end() :]]


def together(*amounts: str) -> str:
    """The sum of amounts of memory, rounded up to whole mebibytes."""
    return f"{math.ceil(sum(map(in_bytes, amounts)) / MEBIBYTE)}Mi"
