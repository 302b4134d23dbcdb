"""Who may speak to whom, as the NetworkPolicies of an overlay say."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from manifests import Manifest, named, of_kind, workloads

OWN = "genreflow"
"""The namespace of the overlays."""


@dataclass(frozen=True)
class Peer:
    """Pods, by their labels, and the labels of their namespace; or an address outside."""

    pod: tuple[tuple[str, str], ...] = ()
    namespace: tuple[tuple[str, str], ...] = (("kubernetes.io/metadata.name", OWN),)
    outside: bool = False


def ours(name: str) -> Peer:
    return Peer(pod=(("app.kubernetes.io/name", name),))


KUBEFLOW = Peer(namespace=(("kubernetes.io/metadata.name", "kubeflow"),))
PROFILE = Peer(namespace=(("kubernetes.io/metadata.name", "ada"), ("genreflow/pipelines", "true")))
CLIENT = Peer(namespace=(("kubernetes.io/metadata.name", "ingress"), ("genreflow/client", "true")))
PROMETHEUS = Peer(namespace=(("kubernetes.io/metadata.name", "monitoring"),))
STRANGER = Peer(namespace=(("kubernetes.io/metadata.name", "elsewhere"),))
DNS = Peer(namespace=(("kubernetes.io/metadata.name", "kube-system"),))
OUTSIDE = Peer(outside=True)
MLFLOW, SERVICE, BACKUP = ours("mlflow"), ours("genreflow"), ours("registry-backup")
UPGRADE = ours("mlflow-upgrade")
DATABASE, STORE, BUCKETS = ours("postgresql"), ours("seaweedfs"), ours("create-buckets")

IN_BOTH = {
    "pipelines-to-mlflow": [(KUBEFLOW, MLFLOW, 5000), (PROFILE, MLFLOW, 5000)],
    "clients-to-service": [(CLIENT, SERVICE, 3000)],
    "all-to-dns": [(MLFLOW, DNS, 53), (SERVICE, DNS, 53), (BACKUP, DNS, 53)],
}
FLOWS = {
    "demo": IN_BOTH
    | {
        "to-database": [(one, DATABASE, 5432) for one in (MLFLOW, UPGRADE, BACKUP)],
        "to-object-store": [(one, STORE, 8333) for one in (MLFLOW, SERVICE, BACKUP, BUCKETS)],
        "all-to-object-store": [(KUBEFLOW, STORE, 8333), (PROFILE, STORE, 8333)],
    },
    "production": IN_BOTH
    | {
        "to-database": [(one, OUTSIDE, 5432) for one in (MLFLOW, UPGRADE, BACKUP)],
        "to-object-store": [(one, OUTSIDE, 443) for one in (MLFLOW, SERVICE, BACKUP)],
        "prometheus-to-service": [(PROMETHEUS, SERVICE, 3000)],
    },
}
PORTS = (53, 443, 3000, 5000, 5432, 8333, 8888, 9333)


OUTSIDE_ADDRESS, INSIDE_ADDRESS = ip_address("203.0.113.9"), ip_address("10.42.0.7")


def selected(selector: dict[str, Any], labels: tuple[tuple[str, str], ...]) -> bool:
    """Whether a label selector takes these labels; without conditions it takes all."""
    has = dict(labels)
    if any(has.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for condition in selector.get("matchExpressions", []):
        assert condition["operator"] == "In", "no other is used"
        if has.get(condition["key"]) not in condition["values"]:
            return False
    return True


def meant(rule_peer: dict[str, Any], peer: Peer) -> bool:
    if "ipBlock" in rule_peer:
        block = rule_peer["ipBlock"]
        private = any(INSIDE_ADDRESS in ip_network(one) for one in block.get("except", ()))
        assert private or INSIDE_ADDRESS not in ip_network(block["cidr"]), "a pod's own address is meant, too"
        return peer.outside and OUTSIDE_ADDRESS in ip_network(block["cidr"])
    if peer.outside:
        return False
    namespace = rule_peer.get("namespaceSelector")
    if namespace is None and dict(peer.namespace)["kubernetes.io/metadata.name"] != OWN:
        return False
    return selected(namespace or {}, peer.namespace) and selected(rule_peer.get("podSelector", {}), peer.pod)


def port_numbers(objects: list[Manifest], peer: Peer) -> dict[str, int]:
    """Named ports of the pods that are meant."""
    found = {}
    for _, labels, pod in workloads(objects):
        if dict(peer.pod).items() <= labels.items():
            for container in pod["containers"]:
                found |= {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    return found


def directed(objects: list[Manifest], way: str, own: Peer, other: Peer, port: int) -> Iterator[str]:
    """The policies that allow pods of this namespace what comes in, or goes out, that way."""
    side, to_port = ("from", own) if way == "Ingress" else ("to", other)
    numbers = port_numbers(objects, to_port)
    for policy in of_kind(objects, "NetworkPolicy"):
        spec = policy["spec"]
        if way not in spec["policyTypes"] or not selected(spec["podSelector"], own.pod):
            continue
        for rule in spec.get(way.lower(), []):
            ports = {numbers.get(one["port"], one["port"]) for one in rule["ports"]}
            if port in ports and any(meant(one, other) for one in rule[side]):
                yield policy["metadata"]["name"]


def allowed(objects: list[Manifest], source: Peer, target: Peer, port: int) -> bool:
    """Whether the policies of both ends allow it; other namespaces and what is outside have none here."""

    def here(peer: Peer) -> bool:
        return not peer.outside and dict(peer.namespace)["kubernetes.io/metadata.name"] == OWN

    goes = not here(source) or any(directed(objects, "Egress", source, target, port))
    comes = not here(target) or any(directed(objects, "Ingress", target, source, port))
    return goes and comes


@pytest.mark.parametrize("name", FLOWS)
def test_exactly_the_named_flows_are_allowed(overlays: dict[str, list[Manifest]], name: str) -> None:
    objects = overlays[name]
    wanted = {flow for flows in FLOWS[name].values() for flow in flows}
    pods = [ours(labels["app.kubernetes.io/name"]) for _, labels, _ in workloads(objects)]
    others = [KUBEFLOW, PROFILE, CLIENT, PROMETHEUS, STRANGER, DNS, OUTSIDE]
    found = {
        (source, target, port)
        for source in [*pods, *others]
        for target in [*pods, *others]
        for port in PORTS
        if (source in pods or target in pods) and allowed(objects, source, target, port)
    }
    # every pod may look names up
    found -= {(one, DNS, 53) for one in pods}
    assert found == {flow for flow in wanted if flow[1] != DNS}


@pytest.mark.parametrize("name", FLOWS)
def test_each_flow_has_a_policy_of_its_name(overlays: dict[str, list[Manifest]], name: str) -> None:
    for policy, flows in FLOWS[name].items():
        named(overlays[name], "NetworkPolicy", policy)
        for source, target, port in flows:
            assert allowed(overlays[name], source, target, port), policy


def test_without_a_policy_nothing_is_allowed(overlay: list[Manifest]) -> None:
    deny = named(overlay, "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
