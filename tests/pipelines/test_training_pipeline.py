"""The compiled pipeline: what Kubeflow will do, read from its YAML."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format

from components.image import (
    IMAGE,
    LOCK,
    PACKAGES,
    ROOT,
    cluster_image,
    image,
    installed_packages,
    subprocess_image,
)
from genreflow.errors import SettingsError
from pipelines.settings import settings
from pipelines.training import compile_to, training_pipeline

CACHED = {"ingest", "extract-features", "fine-tune", "evaluate", "package"}
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
    for container in containers(spec).values():
        assert container["resources"]["cpuLimit"] >= 1
        assert container["resources"]["memoryLimit"] >= 2


def test_steps_run_in_the_image_of_this_code_and_install_nothing(spec: dict[str, Any]) -> None:
    for container in containers(spec).values():
        assert container["image"] == cluster_image()
        assert "pip install" not in " ".join(container["command"])


def test_a_step_is_given_only_what_it_needs(spec: dict[str, Any]) -> None:
    def parameters(task: str) -> set[str]:
        given = tasks(spec)[task].get("inputs", {}).get("parameters", {})
        return {entry.get("componentInputParameter", "") for entry in given.values()} - {""}

    assert parameters("resolve") == {"source", "corpus_settings", "model_settings"}
    assert parameters("ingest") == {"source", "corpus_settings"}
    assert parameters("extract-features") == {"family", "model_settings", "device", "batch"}
    assert parameters("fine-tune") == {"training_settings", "experiment"}
    assert parameters("evaluate") == parameters("register") == set()
    assert parameters("package") == {"packaging_settings"}
    assert parameters("promote") == {"gate_policy"}


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
    assert used["model_settings"] == {"resolve", "extract-features"}


def test_volumes_are_mounted_where_source_and_backbone_are_read(tmp_path: Path) -> None:
    _, kubernetes = compiled(
        tmp_path / "training.yaml", "resources.volumes={gtzan-data: /data, weights: /weights}"
    )
    executors = kubernetes["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {name.removeprefix("exec-") for name in executors} == READING_STEPS
    for executor in executors.values():
        mounts = [(mount["constant"], mount["mountPath"]) for mount in executor["pvcMount"]]
        assert mounts == [("gtzan-data", "/data"), ("weights", "/weights")]


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


def test_no_accelerator_is_asked_for_unless_wanted(spec: dict[str, Any], tmp_path: Path) -> None:
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


def test_pods_are_told_of_a_tracking_server_but_not_of_a_local_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///here.db")
    local, _ = compiled(tmp_path / "a.yaml", "resources.environment.A=b")
    assert all(container["env"] == [{"name": "A", "value": "b"}] for container in containers(local).values())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    served, _ = compiled(tmp_path / "b.yaml")
    expected = [{"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"}]
    assert all(container["env"] == expected for container in containers(served).values())


def test_pods_run_in_the_image_of_the_environment_and_local_steps_in_the_one_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENREFLOW_IMAGE", "registry/genreflow@sha256:1")
    spec, _ = compiled(tmp_path / "training.yaml")
    assert {container["image"] for container in containers(spec).values()} == {"registry/genreflow@sha256:1"}
    local = training_pipeline(settings(), subprocess_image(), local=True).pipeline_spec
    images = {container["image"] for container in containers(json_format.MessageToDict(local)).values()}
    assert images == {subprocess_image()}
    assert subprocess_image().startswith(image())


def test_changed_code_or_another_lock_is_another_image(tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / LOCK, tmp_path)
    assert image(tmp_path) == IMAGE
    seen = [IMAGE]
    for name in ("genreflow/audio.py", "components/ingest.py", "serving/service.py", LOCK):
        with (tmp_path / name).open("a") as file:
            file.write("# changed\n")
        seen.append(image(tmp_path))
    assert len(set(seen)) == len(seen)


def test_steps_of_this_machine_are_cached_by_the_packages_that_are_installed() -> None:
    packages = installed_packages()
    named = {package.partition("==")[0] for package in packages}
    assert {"numpy", "soundfile", "soxr", "openvino", "torch", "transformers"} <= named
    assert subprocess_image() == subprocess_image(packages)
    assert subprocess_image([*packages[:-1], "transformers==0"]) != subprocess_image()
