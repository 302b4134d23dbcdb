"""The overlays against Kubernetes' schemas, pod security, a policy checker, and their guarantees."""

import os
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from manifests import (
    KUBECTL,
    MANIFESTS,
    OVERLAYS,
    Manifest,
    containers,
    copied,
    decoded,
    named,
    of_kind,
    workloads,
)

from tests.conftest import ROOT

OLDEST, NEWEST = "1.31.0", "1.37.0"
"""The Kubernetes that docs/kubeflow.md says is supported."""
OPERATORS = "monitoring.coreos.com/v1"
"""Kinds of the Prometheus operator's, of which Kubernetes has no schema."""
MADE_BY_HAND = {"database", "mlflow", "s3-mlflow", "s3-models", "s3-backup", "service"}
"""Secrets that production expects in its namespace."""
PLACEHOLDER = re.compile(r"@[A-Z0-9_]+@")
OWN_IMAGES = ("genreflow", "registry.example.org/")
CHECKOV = "checkov==3.3.30"
SKIPPED_CHECKS = {
    "CKV_K8S_43": "images by digest: a registry's digests are set in an overlay, and not known here",
    "CKV_K8S_15": "images always pulled: tags are never moved (the code's digest is in them)",
    "CKV_K8S_35": "secrets as files: boto3, libpq and MLflow read variables",
    "CKV_K8S_40": "high user ids: our images run as any, the others' have users of their own",
}


def test_the_demonstration_needs_secrets_that_are_not_in_the_repository(tmp_path: Path) -> None:
    demo = copied(tmp_path / "kubernetes") / "overlays" / "demo"
    done = subprocess.run([KUBECTL, "kustomize", demo], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "secrets/" in done.stderr
    script = ["sh", demo / "secrets.sh"]
    assert subprocess.run(script, check=False).returncode == 0
    first = (demo / "secrets" / "database.env").read_text()
    again = subprocess.run(script, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "in use" in again.stderr
    assert (demo / "secrets" / "database.env").read_text() == first
    assert (demo / "secrets" / "database.env").stat().st_mode & 0o077 == 0
    ignored = ["git", "check-ignore", "-q", "infra/kubernetes/overlays/demo/secrets/database.env"]
    assert subprocess.run(ignored, cwd=ROOT, check=False).returncode == 0


def test_no_secret_has_a_value_from_the_repository(overlays: dict[str, list[Manifest]]) -> None:
    assert not of_kind(overlays["production"], "Secret")
    values: list[str] = []
    for secret in of_kind(overlays["demo"], "Secret"):
        for key, value in decoded(secret).items():
            assert not PLACEHOLDER.search(value), key
            if re.search("PASSWORD|SECRET|KEY$", key) and key != "AWS_ACCESS_KEY_ID":
                assert len(value) == 48, key
                values.append(value)
    assert len(values) > 5
    assert len(set(values)) == len(values), "two secrets have one value"
    for example in MANIFESTS.glob("overlays/*/secrets.example/*"):
        for line in example.read_text().splitlines():
            if found := re.search(r'(?:PASSWORD|SECRET\w*|API_KEY|"secretKey")(?:=|: ")([^"}]*)', line):
                assert not found[1] or PLACEHOLDER.fullmatch(found[1]), f"{example.name}: {line}"


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_objects_fit_kubernetes_strictly(overlay: list[Manifest], version: str) -> None:
    for one in overlay:
        if one["apiVersion"] == OPERATORS:
            assert one["kind"] in ("ServiceMonitor", "PrometheusRule")
            continue
        kubernetes_validate.validate(one, version, strict=True)


def test_the_documentation_states_the_versions_of_kubernetes() -> None:
    oldest, newest = (version.rpartition(".")[0] for version in (OLDEST, NEWEST))
    assert f"Kubernetes {oldest} to {newest}" in (ROOT / "docs" / "kubeflow.md").read_text()


def test_a_policy_checker_has_no_objections(overlays: dict[str, list[Manifest]], tmp_path: Path) -> None:
    for name in OVERLAYS:
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(overlays[name]))
    uv = [str(Path(sys.executable).parent / "uv"), "tool", "run", "--python", sys.executable]
    # an environment of its own: what it needs does not fit the lock
    uv += ["--constraints", str(ROOT / "tests" / "infra" / "checkov.txt"), "--from", CHECKOV]
    check = ["checkov", "--framework", "kubernetes", "--directory", str(tmp_path), "--compact", "--quiet"]
    check += ["--skip-download", "--skip-check", ",".join(SKIPPED_CHECKS), "--output", "json"]
    done = subprocess.run([*uv, *check], capture_output=True, text=True, check=False)
    summary = yaml.safe_load(done.stdout)["summary"]
    assert (done.returncode, summary["failed"]) == (0, 0), done.stdout + done.stderr
    assert summary["passed"] > 100


def test_the_namespace_enforces_the_restricted_standard(overlay: list[Manifest]) -> None:
    (namespace,) = of_kind(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_pod_meets_the_restricted_standard_with_a_read_only_root(overlay: list[Manifest]) -> None:
    seen = 0
    for name, container, pod in containers(overlay):
        seen += 1
        context = container["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"].get("runAsUser") != 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        assert {"/tmp"} <= {mount["mountPath"] for mount in container["volumeMounts"]}, name
        for volume in pod["volumes"]:
            assert {"emptyDir", "configMap", "secret"} & volume.keys(), f"{name}: {volume['name']}"
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], f"{name}: {volume['name']}"
    assert seen >= 5


def test_our_own_images_run_as_any_user_and_have_scratch_volumes(overlay: list[Manifest]) -> None:
    for name, container, pod in containers(overlay):
        if not container["image"].startswith(OWN_IMAGES):
            continue
        paths = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/tmp", "/home/genreflow"} <= paths, name
        if name != "registry-backup/store":  # reads what another image has written
            assert "runAsUser" not in pod["securityContext"] | container["securityContext"], name


def test_images_have_a_version(overlay: list[Manifest]) -> None:
    for name, container, _ in containers(overlay):
        repository, _, tag = container["image"].rpartition(":")
        assert repository, name
        assert tag != "latest", name


def test_everything_has_requests_and_limits(overlay: list[Manifest]) -> None:
    for name, container, _ in containers(overlay):
        for kind in ("requests", "limits"):
            assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"][kind].keys(), name


def test_pods_have_accounts_of_their_own_without_rights_or_tokens(overlay: list[Manifest]) -> None:
    assert not of_kind(overlay, "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    accounts = {one["metadata"]["name"] for one in of_kind(overlay, "ServiceAccount")}
    assert {pod["serviceAccountName"] for _, _, pod in workloads(overlay)} == accounts
    for account in of_kind(overlay, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    for name, _, pod in workloads(overlay):
        assert pod["automountServiceAccountToken"] is False, name
        # MLflow reads MLFLOW_PORT, which the links of a Service named mlflow would set to an address
        assert pod["enableServiceLinks"] is False, name


def test_long_running_pods_have_probes(overlay: list[Manifest]) -> None:
    for one in of_kind(overlay, "Deployment", "StatefulSet"):
        (container,) = one["spec"]["template"]["spec"]["containers"]
        assert {"readinessProbe", "livenessProbe"} <= container.keys(), one["metadata"]["name"]
    service = named(overlay, "Deployment", "genreflow")["spec"]["template"]["spec"]["containers"][0]
    assert service["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_references_between_objects_resolve(overlay: list[Manifest]) -> None:
    """Secrets, ConfigMaps, claims, ports, selectors and targets that are named exist."""
    there = {(one["kind"], one["metadata"]["name"]) for one in overlay}
    there |= {("Secret", name) for name in MADE_BY_HAND}
    pods = {name: (labels, pod) for name, labels, pod in workloads(overlay)}
    for name, container, pod in containers(overlay):
        wanted = [("ConfigMap", ref["configMapRef"]["name"]) for ref in container.get("envFrom", [])
                  if "configMapRef" in ref]  # fmt: skip
        wanted += [("Secret", ref["secretRef"]["name"]) for ref in container.get("envFrom", [])
                   if "secretRef" in ref]  # fmt: skip
        wanted += [("ConfigMap", one["configMap"]["name"]) for one in pod["volumes"] if "configMap" in one]
        wanted += [("Secret", one["secret"]["secretName"]) for one in pod["volumes"] if "secret" in one]
        assert set(wanted) <= there, name
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if "httpGet" in container.get(probe, {}):
                assert container[probe]["httpGet"]["port"] in ports, f"{name}: {probe}"
    for service in of_kind(overlay, "Service"):
        (pod,) = [
            pod for labels, pod in pods.values() if service["spec"]["selector"].items() <= labels.items()
        ]
        ports = {port["name"] for port in pod["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for scaler in of_kind(overlay, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) in there
        deployment = named(overlay, target["kind"], target["name"])
        assert "replicas" not in deployment["spec"], "each apply would undo the autoscaler"
    for budget in of_kind(overlay, "PodDisruptionBudget"):
        selector = budget["spec"]["selector"]["matchLabels"]
        assert [name for name, (labels, _) in pods.items() if selector.items() <= labels.items()]


def test_the_service_is_spread_scaled_and_kept_from_being_drained_at_once(overlay: list[Manifest]) -> None:
    pod = named(overlay, "Deployment", "genreflow")["spec"]["template"]["spec"]
    keys = {constraint["topologyKey"] for constraint in pod["topologySpreadConstraints"]}
    assert keys == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    assert named(overlay, "PodDisruptionBudget", "genreflow")["spec"]["maxUnavailable"] == 1
    scaler = named(overlay, "HorizontalPodAutoscaler", "genreflow")["spec"]
    assert 1 <= scaler["minReplicas"] < scaler["maxReplicas"]


def test_a_pod_of_the_service_starts_without_mlflow(overlay: list[Manifest]) -> None:
    """It fetches one named version from the object store and verifies its digest."""
    pod = named(overlay, "Deployment", "genreflow")["spec"]["template"]["spec"]
    (fetch,) = pod["initContainers"]
    assert fetch["command"] == ["python", "-m", "serving.fetch"]
    assert fetch["args"] == ["--from=$(MODEL_FROM)", "--digest=$(MODEL_DIGEST)", "--to=/models"]
    model = named(overlay, "ConfigMap", "model")
    assert model["data"].keys() == {"MODEL_FROM", "MODEL_DIGEST"}
    assert model["metadata"]["name"] != "model", "a new version would be no new rollout"
    texts = yaml.safe_dump([pod["containers"], pod["initContainers"]])
    assert "mlflow" not in texts.lower().replace("mlflow_s3_endpoint_url", "")


def test_mlflow_answers_under_every_name_of_its_service(overlay: list[Manifest]) -> None:
    (container,) = named(overlay, "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"]
    (hosts,) = [one for one in container["args"] if one.startswith("--allowed-hosts=")]
    service, namespace = named(overlay, "Service", "mlflow"), named(overlay, "Namespace", "genreflow")
    name, space = service["metadata"]["name"], namespace["metadata"]["name"]
    port = service["spec"]["ports"][0]["port"]
    names = (name, f"{name}.{space}", f"{name}.{space}.svc", f"{name}.{space}.svc.cluster.local")
    wanted = {f"{host}:{port}" for host in (*names, "localhost", "127.0.0.1")}
    assert set(hosts.partition("=")[2].split(",")) == wanted
    assert "--app-name=basic-auth" in container["args"]


def test_flags_and_commands_hold_no_password(overlay: list[Manifest]) -> None:
    for name, container, _ in containers(overlay):
        line = " ".join([*container.get("command", []), *container.get("args", [])])
        assert not re.search(r"://[^/@\s]+:[^/@\s]+@|password=|secret=", line, re.IGNORECASE), name


def test_the_policy_checker_is_pinned_with_all_that_it_needs() -> None:
    lines = (ROOT / "tests" / "infra" / "checkov.txt").read_text().splitlines()
    assert CHECKOV in lines
    assert all("==" in line for line in lines)
    assert os.environ.get("CI") != "true" or (Path(sys.executable).parent / "uv").is_file()
