"""The compiled pipeline: what Kubeflow will do, read from its YAML."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format

from components.image import (
    BUILD_IMAGE,
    IMAGE,
    PACKAGES,
    ROOT,
    build_image,
    cluster_image,
    installed_packages,
    subprocess_image,
)
from genreflow.core.errors import SettingsError
from genreflow.core.processors import THREAD_VARIABLES
from pipelines.kubeflow import SECONDS_A_RUN_MAY_TAKE
from pipelines.resources import cores, in_bytes
from pipelines.settings import settings
from pipelines.training import compile_to, training_pipeline
from pipelines.workflow_size import BUDGET, estimated_bytes

CACHED = {"ingest", "split", "extract-features", "fine-tune", "evaluate", "package"}
NEVER_CACHED = {"resolve", "register", "promote", "build"}
READING_STEPS = {"resolve", "ingest", "extract-features", "fine-tune"}
MODEL_STEPS = {"extract-features", "fine-tune", "evaluate"}


def compiled(path: Path, *assignments: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline's specification, and its Kubernetes part (empty where there is none)."""
    compile_to(path, settings("quickstart", assignments=assignments))
    documents = list(yaml.safe_load_all(path.read_text()))
    return documents[0], documents[1] if len(documents) > 1 else {}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compiled(tmp_path_factory.mktemp("compiled") / "training.yaml")[0]


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    """Every step; `build` lies in a graph of its own, behind the condition."""
    found = dict(spec["root"]["dag"]["tasks"])
    condition = found.pop("condition-1")
    return found | spec["components"][condition["componentRef"]["name"]]["dag"]["tasks"]


def environment_of(container: dict[str, Any]) -> list[dict[str, str]]:
    """The variables that every pod gets: without those of one step alone, and those of threads."""
    own = {"GENREFLOW_RUN_SETTINGS", *THREAD_VARIABLES}
    return [one for one in container.get("env", []) if one["name"] not in own]


def kubernetes_of(kubernetes: dict[str, Any]) -> dict[str, Any]:
    """The Kubernetes part of every step that has one."""
    executors = kubernetes["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor for name, executor in executors.items()}


def containers(spec: dict[str, Any]) -> dict[str, Any]:
    executors = spec["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor["container"] for name, executor in executors.items()}


def test_the_steps_are_chained_and_resolve_register_promote_build_are_never_cached(
    spec: dict[str, Any],
) -> None:
    assert set(tasks(spec)) == CACHED | NEVER_CACHED
    for name, task in tasks(spec).items():
        assert bool(task["cachingOptions"].get("enableCache")) is (name in CACHED), name
    assert set(tasks(spec)["promote"]["dependentTasks"]) == {"register", "package", "evaluate", "ingest"}


def test_the_bento_is_built_only_of_what_was_promoted_and_exported_from_the_pod(spec: dict[str, Any]) -> None:
    condition = spec["root"]["dag"]["tasks"]["condition-1"]
    assert condition["triggerPolicy"]["condition"] == (
        "inputs.parameter_values['pipelinechannel--promote-Output'] == true"
    )
    assert set(condition["dependentTasks"]) == {"promote", "register"}
    given = tasks(spec)["build"]["inputs"]["parameters"]
    assert given["export"]["runtimeValue"]["constant"] is True
    local = json_format.MessageToDict(training_pipeline(settings(), IMAGE, local=True).pipeline_spec)
    assert tasks(local)["build"]["inputs"]["parameters"]["export"]["runtimeValue"]["constant"] is False


def test_every_step_has_a_name_retries_and_limits(spec: dict[str, Any]) -> None:
    for name, task in tasks(spec).items():
        assert task["taskInfo"]["name"][0].isupper()
        assert task["retryPolicy"]["maxRetryCount"] == 2, name
        # Argo counts it from the beginning of the first attempt
        longest = int(task["retryPolicy"]["backoffMaxDuration"].removesuffix("s"))
        assert longest >= SECONDS_A_RUN_MAY_TAKE, name
    for container in containers(spec).values():
        assert container["resources"]["cpuLimit"] >= 1
        assert container["resources"]["memoryLimit"] >= 2


def test_steps_run_in_the_image_of_this_code_and_install_nothing(spec: dict[str, Any]) -> None:
    for name, container in containers(spec).items():
        assert container["image"] == (BUILD_IMAGE if name == "build" else cluster_image())
        assert "pip install" not in " ".join(container["command"])


def test_a_step_is_given_only_what_it_needs(spec: dict[str, Any]) -> None:
    def parameters(task: str) -> set[str]:
        given = tasks(spec)[task].get("inputs", {}).get("parameters", {})
        return {entry.get("componentInputParameter", "") for entry in given.values()} - {""}

    assert parameters("resolve") == {"source", "corpus_settings", "model_settings"}
    assert parameters("ingest") == {"source", "corpus_settings"}
    assert parameters("split") == {"split_settings"}
    assert parameters("extract-features") == {"device", "batch"}
    assert parameters("fine-tune") == {"model_settings", "training_settings", "experiment"}
    assert parameters("evaluate") == parameters("register") == set()
    assert parameters("package") == {"packaging_settings", "runtime"}
    assert parameters("promote") == {"gate_policy"}


def test_extraction_depends_on_the_split_only_where_its_clips_alone_are_wanted(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    assert set(tasks(spec)["extract-features"]["dependentTasks"]) == {"resolve", "ingest"}
    assert "split" not in tasks(spec)["extract-features"]["inputs"]["artifacts"]
    of_split, _ = compiled(tmp_path / "training.yaml", "resources.extract=split")
    assert set(tasks(of_split)["extract-features"]["dependentTasks"]) == {"resolve", "ingest", "split"}
    assert set(tasks(of_split)["extract-features"]["inputs"]["artifacts"]) == {"corpus", "split"}


def test_what_is_to_be_served_on_a_gpu_is_built_so_and_measured_on_one(tmp_path: Path) -> None:
    path = tmp_path / "training.yaml"
    spec, _ = compiled(path, "resources.gpus=1", "serving.runtime=pytorch")
    assert spec["root"]["inputDefinitions"]["parameters"]["runtime"]["defaultValue"] == "pytorch"
    given = tasks(spec)["build"]["inputs"]["parameters"]["runtime"]
    assert given == {"componentInputParameter": "pipelinechannel--runtime"}
    assert "accelerator" in containers(spec)["package"]["resources"]


def test_every_parameter_in_kubeflows_form_reaches_what_it_names(spec: dict[str, Any]) -> None:
    used: dict[str, set[str]] = {}
    for name, task in spec["root"]["dag"]["tasks"].items():
        for given in task.get("inputs", {}).get("parameters", {}).values():
            used.setdefault(given.get("componentInputParameter", ""), set()).add(name)
    assert set(spec["root"]["inputDefinitions"]["parameters"]) == set(used) - {""}
    # what is listed and fingerprinted follows the very settings that corpus and model are made with
    assert used["corpus_settings"] == {"resolve", "ingest"}
    assert used["model_settings"] == {"resolve", "fine-tune"}


def test_volumes_are_mounted_where_source_and_backbone_are_read(tmp_path: Path) -> None:
    _, kubernetes = compiled(
        tmp_path / "training.yaml", "resources.volumes={gtzan-data: /data, weights: /weights}"
    )
    executors = kubernetes["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {name.removeprefix("exec-") for name in executors} == READING_STEPS
    for executor in executors.values():
        mounts = [(mount["constant"], mount["mountPath"]) for mount in executor["pvcMount"]]
        assert mounts == [("gtzan-data", "/data"), ("weights", "/weights")]


@pytest.mark.parametrize(
    "variable",
    [
        "GENREFLOW_HOME=/state",
        "HF_HOME=/state/hub",
        "A=file:///state/folder",
        "MLFLOW_TRACKING_URI=sqlite:////state/mlflow.db",
    ],
)
def test_a_claim_is_mounted_in_every_step_where_a_variable_names_a_folder_on_it(
    variable: str, tmp_path: Path
) -> None:
    volumes = "resources.volumes={kept: /state, gtzan-data: /state2}"
    spec, kubernetes = compiled(tmp_path / "training.yaml", volumes, f"resources.environment.{variable}")
    executors = kubernetes_of(kubernetes)
    assert executors.keys() == containers(spec).keys()
    for name, executor in executors.items():
        mounts = {mount["constant"] for mount in executor["pvcMount"]}
        assert mounts == ({"kept", "gtzan-data"} if name in READING_STEPS else {"kept"}), name


def test_what_is_reserved_for_a_step_is_what_it_was_measured_to_use_and_within_its_limit(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    def resources(spec: dict[str, Any]) -> dict[str, dict[str, str]]:
        return {name: container["resources"] for name, container in containers(spec).items()}

    for name, given in resources(spec).items():
        assert 0 < given["cpuRequest"] <= given["cpuLimit"], name
        assert 0 < given["memoryRequest"] <= given["memoryLimit"], name
    assert resources(spec)["package"]["memoryRequest"] > resources(spec)["fine-tune"]["memoryRequest"]
    small, _ = compiled(tmp_path / "small.yaml", "resources.memory=1Gi", "resources.cpu=500m")
    for given in resources(small).values():
        assert given["cpuRequest"] <= given["cpuLimit"]
        assert given["memoryRequest"] <= given["memoryLimit"]
    reserved, _ = compiled(
        tmp_path / "all.yaml", "resources.memory_request=4G", "resources.cpu_request=2", "resources.cpu=2"
    )
    given = resources(reserved)["fine-tune"]
    assert (given["memoryRequest"], given["cpuRequest"]) == (4.0, 2.0)
    assert resources(reserved)["split"]["memoryRequest"] < 1


def test_libraries_start_no_more_threads_than_the_pod_may_use(spec: dict[str, Any], tmp_path: Path) -> None:
    def threads(spec: dict[str, Any], name: str) -> set[str]:
        given = {one["name"]: one.get("value", "") for one in containers(spec)[name]["env"]}
        return {given[variable] for variable in THREAD_VARIABLES}

    assert threads(spec, "fine-tune") == {"2"}
    assert threads(spec, "resolve") == {"1"}
    part, _ = compiled(tmp_path / "part.yaml", "resources.cpu=200m")
    assert threads(part, "fine-tune") == {"1"}
    own, _ = compiled(
        tmp_path / "own.yaml", *(f"resources.environment.{variable}=3" for variable in THREAD_VARIABLES)
    )
    assert threads(own, "fine-tune") == {"3"}


def test_shared_memory_is_added_to_the_memory_limit(tmp_path: Path) -> None:
    spec, _ = compiled(
        tmp_path / "gpu.yaml", "resources.gpus=1", "resources.memory=4Gi", "resources.shared_memory=8Gi"
    )
    limits = {name: container["resources"]["memoryLimit"] for name, container in containers(spec).items()}
    for name, limit in limits.items():
        expected = 12 * 2**30 / 1e9 if name in MODEL_STEPS else 4 * 2**30 / 1e9
        assert name in {"resolve", "split", "register"} or limit == pytest.approx(expected), name


def test_pods_are_placed_labelled_and_pulled_as_the_settings_say(tmp_path: Path) -> None:
    spec, kubernetes = compiled(
        tmp_path / "placed.yaml",
        "resources.gpus=1",
        "resources.pull_secrets=[registry.example.org, other]",
        "resources.labels={team: no, example.org/cost-centre: 042}",
        "resources.node_selector={pool: batch}",
        "resources.tolerations=[{key: batch, operator: Equal, value: 'yes', effect: NoSchedule}]",
        "resources.accelerator_node_selector={gpu: h200}",
        "resources.accelerator_tolerations=[{key: nvidia.com/gpu, effect: NoSchedule}]",
    )
    executors = kubernetes_of(kubernetes)
    assert executors.keys() == containers(spec).keys()
    for name, executor in executors.items():
        pulled = [secret["secretName"] for secret in executor["imagePullSecret"]]
        assert pulled == ["registry.example.org", "other"]
        assert executor["podMetadata"]["labels"] == {"team": "no", "example.org/cost-centre": "042"}
        batch = {"key": "batch", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}
        gpu = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        on_gpu = name in MODEL_STEPS
        assert executor["tolerations"] == ([batch, gpu] if on_gpu else [batch])
        labels = {"pool": "batch", "gpu": "h200"} if on_gpu else {"pool": "batch"}
        assert executor["nodeSelector"]["labels"] == labels


def test_a_security_context_is_set_only_where_the_settings_say(spec: dict[str, Any], tmp_path: Path) -> None:
    plain = compiled(tmp_path / "plain.yaml")[1]  # KFP before 2.16 would refuse the field
    assert plain == {}
    spec, kubernetes = compiled(
        tmp_path / "restricted.yaml", "resources.run_as_non_root=true", "resources.run_as_user=12345"
    )
    executors = kubernetes_of(kubernetes)
    assert executors.keys() == containers(spec).keys()
    for executor in executors.values():
        assert executor["securityContext"] == {"runAsNonRoot": True, "runAsUser": "12345"}


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("volumes={my.claim: /data}", "resources.volumes.my.claim: has to be .*no dots.*, not 'my.claim'"),
        *(
            (f"volumes={{claim: {path}}}", "resources.volumes.claim: has to be another path: .* belongs to")
            for path in ("/s3", "/minio/x", "/gcs/", "/kfp-launcher", "/.cache", "/var/run/argo", "/dev/shm")
        ),
        ("volumes={claim: /}", "resources.volumes.claim: has to be an absolute path below /"),
        ("volumes={claim: data}", "resources.volumes.claim: has to be an absolute path below /"),
        ("volumes={a: /data, b: /data/}", "two claims are mounted on /data"),
        ("memory=4096K", "resources.memory: has to be bytes, as 4G.*, not '4096K'"),
        ("memory=4k", "resources.memory: has to be bytes"),
        ("shared_memory=1T5", "resources.shared_memory: has to be bytes"),
        ("cpu=0.5m", "resources.cpu: has to be cores"),
        ("memory_request=8G", "memory_request 8G is more than the limit memory 4G"),
        ("cpu_request=2500m", "cpu_request 2500m is more than the limit cpu 2"),
        ("environment={A-B: c}", "resources.environment.A-B: has to be letters, digits and _"),
        ("secrets={keys: {id: AWS KEY}}", "resources.secrets.keys.id: has to be letters, digits and _"),
        ("secrets={one: {a: TOKEN}, two: {b: TOKEN}}", "TOKEN comes out of two secrets"),
        ("labels={team: two words}", "resources.labels.team: has to be letters"),
        ("labels={-team: a}", "resources.labels.-team: has to be letters"),
        ("tolerations=[{operator: Exists, value: a}]", "operator Exists compares no value"),
        ("tolerations=[{operator: Equal, value: a}]", "operator Equal needs a key"),
    ],
)
def test_what_kfp_or_kubernetes_refuses_is_refused_here(assignment: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        settings(assignments=[f"resources.{assignment}"])


def test_a_variable_comes_from_one_place_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "resources.secrets.mlflow={uri: MLFLOW_TRACKING_URI}"
    with pytest.raises(SettingsError, match="MLFLOW_TRACKING_URI stands both in environment and in secrets"):
        settings(assignments=[secret, "resources.environment.MLFLOW_TRACKING_URI=http://mlflow:5000"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://of-this-shell:5000")
    spec, _ = compiled(tmp_path / "training.yaml", secret)
    assert all(environment_of(container) == [] for container in containers(spec).values())


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("4G", 4 * 10**9), ("2Gi", 2**31), ("4096Ki", 2**22), ("1Ei", 2**60)]
)
def test_amounts_of_memory_are_read_as_kubernetes_reads_them(text: str, size: int) -> None:
    assert in_bytes(text) == size
    assert in_bytes(settings(assignments=[f"resources.shared_memory={text}"]).resources.shared_memory) == size
    assert (cores("500m"), cores("2"), cores(".5")) == (0.5, 2, 0.5)


BYTES_A_STEP = 85_000
"""Of the Workflow, all of it divided: 64 kB were measured, once, on nine steps."""


@pytest.mark.parametrize("profile", ["quickstart", "music", "gtzan"])
def test_the_workflow_of_a_run_stays_within_its_budget(
    profile: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With what a cluster of some size needs: claims, secrets, variables, tolerations, labels."""
    assignments = (
        "resources.gpus=1",
        "resources.volumes={music-data: /data, weights: /weights, state: /state}",
        "resources.environment={GENREFLOW_HOME: /state, AWS_ENDPOINT_URL: 'https://s3.example.org', A: b}",
        "resources.secrets={s3: {id: AWS_ACCESS_KEY_ID, key: AWS_SECRET_ACCESS_KEY}, hub: {token: HF_TOKEN}}",
        "resources.pull_secrets=[registry]",
        "resources.labels={team: music, stage: production}",
        "resources.tolerations=[{key: nvidia.com/gpu}]",
        "resources.run_as_non_root=true",
    )
    path = tmp_path / "training.yaml"
    compile_to(path, settings(profile, source="/data/music", assignments=assignments))
    spec, platform = yaml.safe_load_all(path.read_text())
    size = estimated_bytes(spec, platform)
    assert size < BUDGET
    assert size / len(tasks(spec)) < BYTES_A_STEP
    assert "estimated" not in caplog.text


def test_no_text_of_settings_is_passed_to_more_than_two_steps(spec: dict[str, Any]) -> None:
    """Each step holds its arguments four times in the Workflow."""
    texts = {
        name
        for name, given in spec["root"]["inputDefinitions"]["parameters"].items()
        if str(given.get("defaultValue", "")).startswith("{")
    }
    assert len(texts) >= 6
    for text in texts:
        readers = [
            name
            for name, task in tasks(spec).items()
            for given in task.get("inputs", {}).get("parameters", {}).values()
            if given.get("componentInputParameter") == text
        ]
        assert 1 <= len(readers) <= 2, text


def test_a_workflow_that_is_too_large_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "genreflow"):
        compiled(tmp_path / "large.yaml", f"resources.environment.CERTIFICATES={'A' * 20_000}")
    assert "The Workflow of a run is estimated at 2." in caplog.text


def test_secrets_reach_every_pod_and_their_values_never_the_pipeline(tmp_path: Path) -> None:
    spec, kubernetes = compiled(
        tmp_path / "training.yaml",
        "resources.secrets.s3-keys={id: AWS_ACCESS_KEY_ID, key: AWS_SECRET_ACCESS_KEY}",
        "resources.secrets.hub={t: HF_TOKEN}",
    )
    executors = kubernetes["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors.keys() == spec["deploymentSpec"]["executors"].keys()
    for executor in executors.values():
        given = {
            (secret["secretName"], entry["secretKey"], entry["envVar"])
            for secret in executor["secretAsEnv"]
            for entry in secret["keyToEnv"]
        }
        assert given == {
            ("hub", "t", "HF_TOKEN"),
            ("s3-keys", "id", "AWS_ACCESS_KEY_ID"),
            ("s3-keys", "key", "AWS_SECRET_ACCESS_KEY"),
        }
    with pytest.raises(SettingsError, match=r"resources\.secrets"):
        settings(assignments=["resources.secrets={keys: {id: 'AWS KEY'}}"])


def test_no_accelerator_is_requested_by_default(spec: dict[str, Any], tmp_path: Path) -> None:
    assert not any("accelerator" in container["resources"] for container in containers(spec).values())
    wanted, kubernetes = compiled(tmp_path / "gpu.yaml", "resources.gpus=2", "resources.shared_memory=8Gi")
    for name, container in containers(wanted).items():
        accelerator = container["resources"].get("accelerator", {})
        expected = ("nvidia.com/gpu", "2") if name in MODEL_STEPS else (None, None)
        assert (accelerator.get("type"), accelerator.get("count")) == expected, name
    mounts = kubernetes["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {name.removeprefix("exec-") for name in mounts} == MODEL_STEPS
    for mount in mounts.values():
        (shared_memory,) = mount["emptyDirMounts"]
        assert shared_memory["mountPath"] == "/dev/shm"
        assert shared_memory["medium"] == "Memory"
        assert shared_memory["sizeLimit"] == "8Gi"


def test_pods_get_the_address_of_a_tracking_server_but_not_of_a_local_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///here.db")
    local, _ = compiled(tmp_path / "a.yaml", "resources.environment.A=b")
    assert all(
        environment_of(container) == [{"name": "A", "value": "b"}] for container in containers(local).values()
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    served, _ = compiled(tmp_path / "b.yaml")
    expected = [{"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"}]
    assert all(environment_of(container) == expected for container in containers(served).values())


LOOPBACKS = [
    "http://127.0.0.1:5000",
    "http://localhost:5000",
    "https://user:secret@[::1]/prefix",
    "http://0.0.0.0:5000",
]


@pytest.mark.parametrize("address", LOOPBACKS)
@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
def test_an_address_of_this_machine_is_never_compiled_into_pods(
    address: str,
    variable: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(
        SettingsError, match=f"resources.environment.{variable} is .*what a pod reaches there is itself"
    ) as caught:
        compiled(tmp_path / "a.yaml", f"resources.environment.{variable}={address}")
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "a.yaml").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with caplog.at_level("WARNING", "genreflow"):
        spec, _ = compiled(tmp_path / "b.yaml", "resources.environment.A=b")
    assert all(
        environment_of(container) == [{"name": "A", "value": "b"}] for container in containers(spec).values()
    )
    assert "The pods get no MLFLOW_TRACKING_URI" in caplog.text
    assert "secret" not in caplog.text


def test_pods_run_in_the_image_of_the_environment_and_local_steps_in_the_one_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENREFLOW_IMAGE", "registry/genreflow@sha256:1")
    spec, _ = compiled(tmp_path / "training.yaml")
    assert {container["image"] for container in containers(spec).values()} == {"registry/genreflow@sha256:1"}
    local = training_pipeline(settings(), subprocess_image(), local=True).pipeline_spec
    images = {container["image"] for container in containers(json_format.MessageToDict(local)).values()}
    assert images == {subprocess_image()}


def test_a_change_of_the_services_page_trains_nothing_anew(tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    before, built_before = subprocess_image([], tmp_path), build_image(tmp_path)
    (tmp_path / "serving" / "page.css").write_text("body { color: teal }")
    assert subprocess_image([], tmp_path) == before
    assert build_image(tmp_path) != built_before  # the bento is built of it
    (tmp_path / "genreflow" / "extraction.py").write_text("# changed")
    assert subprocess_image([], tmp_path) != before


def test_where_checkpoints_go_is_no_part_of_what_is_cached(tmp_path: Path) -> None:
    def fine_tuning(uri: str) -> tuple[str, dict[str, str]]:
        chosen = settings(checkpoint_uri=uri)
        spec = json_format.MessageToDict(training_pipeline(chosen, IMAGE).pipeline_spec)
        given = spec["root"]["inputDefinitions"]["parameters"]["training_settings"]["defaultValue"]
        environment = containers(spec)["fine-tune"]["env"]
        return given, {entry["name"]: entry.get("value", "") for entry in environment}

    one, other = fine_tuning("s3://bucket/one"), fine_tuning("s3://bucket/other")
    assert one[0] == other[0]
    assert not {"checkpoint_uri", "checkpoint_seconds", "resume"} & json.loads(one[0]).keys()
    assert json.loads(other[1]["GENREFLOW_RUN_SETTINGS"])["checkpoint_uri"] == "s3://bucket/other"


def test_a_pipeline_is_compiled_for_one_family_and_says_so() -> None:
    spec = json_format.MessageToDict(training_pipeline(settings(), IMAGE).pipeline_spec)
    assert "family" not in spec["root"]["inputDefinitions"]["parameters"]
    assert f"Trains the family {settings().family}" in spec["pipelineInfo"]["description"]


def test_steps_of_this_machine_are_cached_by_the_packages_that_are_installed() -> None:
    packages = installed_packages()
    named = {package.partition("==")[0] for package in packages}
    assert {"numpy", "soundfile", "soxr", "openvino", "torch", "transformers"} <= named
    assert subprocess_image() == subprocess_image(packages)
    assert subprocess_image([*packages[:-1], "transformers==0"]) != subprocess_image()
