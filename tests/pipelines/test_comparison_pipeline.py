"""The compiled comparison: what Kubeflow will do, read from its YAML, and how large its workflow becomes."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from genreflow.core.errors import SettingsError
from genreflow.families import built_in
from genreflow.fitting import RUN_SETTINGS_VARIABLE
from pipelines import comparison, training
from pipelines.cli import app
from pipelines.comparison_settings import ComparisonSettings, comparison_settings
from pipelines.settings import settings
from pipelines.steps import numbered
from pipelines.workflow_size import BUDGET, estimated_bytes

FAMILIES = "encoder,linear@descriptors,mfcc_cnn"
NEVER_CACHED = {"resolve-candidates", "compare", "build"}
ETCD = 1_500_000


def compiled(path: Path, settings: ComparisonSettings) -> list[dict[str, Any]]:
    comparison.compile_to(path, settings)
    return list(yaml.safe_load_all(path.read_text()))


@pytest.fixture(scope="module")
def chosen() -> ComparisonSettings:
    return comparison_settings(
        FAMILIES,
        profile="quickstart",
        assignments=["mfcc_cnn.resources.gpus=1", "encoder.resources.memory=9G"],
    )


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, chosen: ComparisonSettings) -> dict[str, Any]:
    return compiled(tmp_path_factory.mktemp("compiled") / "comparison.yaml", chosen)[0]


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    """Every step; `build` lies in a graph of its own, behind the condition."""
    found = dict(spec["root"]["dag"]["tasks"])
    condition = found.pop("condition-1")
    return found | spec["components"][condition["componentRef"]["name"]]["dag"]["tasks"]


def container(spec: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
    found: dict[str, Any] = spec["deploymentSpec"]["executors"][label]["container"]
    return found


def test_the_steps_are_those_of_the_table_and_only_some_are_cached(
    spec: dict[str, Any], chosen: ComparisonSettings
) -> None:
    table = {step.task_name: step for step in comparison.steps_of(chosen)}
    assert set(tasks(spec)) == set(table)
    for name, task in tasks(spec).items():
        assert bool(task["cachingOptions"].get("enableCache")) is (name not in NEVER_CACHED), name
        assert task["taskInfo"]["name"] == table[name].title


def test_several_steps_of_one_component_have_titles_with_the_family(spec: dict[str, Any]) -> None:
    titles = [task["taskInfo"]["name"] for task in tasks(spec).values()]
    assert len(set(titles)) == len(titles)
    for family in FAMILIES.split(","):
        assert {f"Extract features: {family}", f"Train: {family}"} <= set(titles)


def test_only_compare_registers_and_decides_and_build_depends_on_its_output(
    spec: dict[str, Any],
) -> None:
    assert set(tasks(spec)["compare"]["dependentTasks"]) == {
        "ingest", "train-candidate", "train-candidate-2", "train-candidate-3"
    }  # fmt: skip
    given = tasks(spec)["compare"]["inputs"]["parameters"]
    assert given["policy"] == {"componentInputParameter": "gate_policy"}
    assert not {"register", "promote"} & set(tasks(spec))
    condition = spec["root"]["dag"]["tasks"]["condition-1"]
    assert condition["triggerPolicy"]["condition"].endswith("compare-Output'] == true")


def test_another_source_and_robustness_reach_the_step_that_compares(tmp_path: Path) -> None:
    chosen = comparison_settings(
        FAMILIES, profile="quickstart", also_test="s3://bucket/music", robustness=True
    )
    (spec, *_) = compiled(tmp_path / "comparison.yaml", chosen)
    task = tasks(spec)["compare"]
    assert "ingest" in task["dependentTasks"]
    further = task["inputs"]["parameters"]["further"]["runtimeValue"]["constant"]
    assert json.loads(further) == {"also_test": "s3://bucket/music", "robustness": True}
    given = tasks(spec)["resolve-candidates"]["inputs"]["parameters"]["also_test"]["runtimeValue"]
    assert given == {"constant": "s3://bucket/music"}, "it is listed before anything is trained"


def mounts(platform: dict[str, Any], executor: str) -> set[str]:
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {one["mountPath"] for one in executors.get(f"exec-{executor}", {}).get("pvcMount", [])}


def test_another_source_on_a_claim_is_mounted_where_it_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volumes = ["resources.volumes={music: /data, weights: /weights}"]
    chosen = comparison_settings(
        "mfcc_cnn", profile="quickstart", assignments=volumes, also_test="/data/others"
    )
    _, platform = compiled(tmp_path / "comparison.yaml", chosen)
    assert mounts(platform, "compare") == {"/data"}
    assert mounts(platform, "resolve-candidates") == {"/data", "/weights"}
    assert "--also-test" not in caplog.text
    without = chosen.model_copy(update={"also_test": None, "robustness": True})
    _, platform = compiled(tmp_path / "comparison.yaml", without)
    assert mounts(platform, "compare") == set()
    elsewhere = chosen.model_copy(update={"also_test": "/home/me/others"})
    compiled(tmp_path / "comparison.yaml", elsewhere)
    assert "--also-test is /home/me/others, a path of this machine" in caplog.text


def test_the_command_line_compiles_further_tests_into_a_comparison_only(tmp_path: Path) -> None:
    file = tmp_path / "comparison.yaml"
    options = ["-o", str(file), "--also-test", "s3://bucket/music", "--robustness"]
    app(["compile", "--pipeline", "comparison", "--families", "mfcc_cnn", *options], standalone_mode=False)
    assert "s3://bucket/music" in file.read_text()
    for option in (["--also-test", "s3://bucket/music"], ["--robustness"]):
        with pytest.raises(SettingsError, match="--also-test and --robustness are of --pipeline comparison"):
            app(["compile", "-o", str(file), *option], standalone_mode=False)


def test_every_family_has_its_own_resources(spec: dict[str, Any]) -> None:
    encoder, linear, network = (
        container(spec, tasks(spec)[name])["resources"]
        for name in ("train-candidate", "train-candidate-2", "train-candidate-3")
    )
    assert (encoder["resourceMemoryLimit"], linear["resourceMemoryLimit"]) == ("9G", "4G")
    assert network["accelerator"]["count"] == "1"
    assert "accelerator" not in encoder
    assert "accelerator" in container(spec, tasks(spec)["extract-features-3"])["resources"]


def test_one_corpus_and_one_split_are_all_candidates(spec: dict[str, Any]) -> None:
    for name in ("train-candidate", "train-candidate-2", "train-candidate-3"):
        given = tasks(spec)[name]["inputs"]["artifacts"]
        assert given["corpus"]["taskOutputArtifact"]["producerTask"] == "ingest"
        assert given["split"]["taskOutputArtifact"]["producerTask"] == "split"
        assert given["features"]["taskOutputArtifact"]["producerTask"] == name.replace(
            "train-candidate", "extract-features"
        )


def test_families_of_one_representation_share_one_extraction(tmp_path: Path) -> None:
    chosen = comparison_settings("mfcc_cnn,linear@descriptors")
    twice = chosen.model_copy(
        update={"candidates": (*chosen.candidates, chosen.candidates[1].model_copy(update={"name": "again"}))}
    )
    spec = compiled(tmp_path / "comparison.yaml", twice)[0]
    assert {name for name in tasks(spec) if name.startswith("extract")} == {
        "extract-features", "extract-features-2"
    }  # fmt: skip
    given = tasks(spec)["train-candidate-3"]["inputs"]["artifacts"]["features"]
    assert given["taskOutputArtifact"]["producerTask"] == "extract-features-2"
    assert tasks(spec)["extract-features-2"]["taskInfo"]["name"] == (
        "Extract features: linear@descriptors, again"
    )


def test_settings_of_a_candidate_are_given_as_far_as_they_differ_from_defaults(spec: dict[str, Any]) -> None:
    given = tasks(spec)["train-candidate-2"]["inputs"]["parameters"]["settings"]["runtimeValue"]["constant"]
    assert json.loads(given) == {
        "name": "linear@descriptors",
        "family": "linear",
        "model": {"backbone": "descriptors"},
        "training": {},
    }
    assert RUN_SETTINGS_VARIABLE not in json.dumps(container(spec, tasks(spec)["train-candidate"]))


def test_how_a_fit_runs_reaches_the_pods_of_the_families_that_have_it(tmp_path: Path) -> None:
    chosen = comparison_settings(FAMILIES, checkpoint_uri="s3://bucket/prefix")
    spec = compiled(tmp_path / "comparison.yaml", chosen)[0]
    variables = [
        json.dumps(container(spec, tasks(spec)[name]).get("env", []))
        for name in ("train-candidate", "train-candidate-2")
    ]
    assert "s3://bucket/prefix" in variables[0]
    assert RUN_SETTINGS_VARIABLE not in variables[1]


def test_sources_compiled_for_pods_are_the_components_without_their_docstrings(spec: dict[str, Any]) -> None:
    for task in tasks(spec).values():
        command = container(spec, task)["command"]
        (function,) = [node for node in ast.parse(command[3]).body if isinstance(node, ast.FunctionDef)]
        assert ast.get_docstring(function) is None
        assert container(spec, task)["args"][-1] == function.name
        assert "  " not in command[2]
        assert "kfp.dsl.executor_main" in command[2]


TRACKING = "resources.environment.MLFLOW_TRACKING_URI=http://mlflow.kubeflow.svc:5000"


def test_the_workflow_of_all_families_stays_below_a_megabyte(tmp_path: Path) -> None:
    further = {"also_test": "s3://bucket/other-music", "robustness": True}
    chosen = comparison_settings(
        ",".join(built_in()), folds=5, profile="quickstart", assignments=[TRACKING], **further
    )
    documents = compiled(tmp_path / "comparison.yaml", chosen)
    assert estimated_bytes(*documents) < BUDGET


def test_the_workflow_of_the_most_families_stays_below_what_etcd_takes(tmp_path: Path) -> None:
    most = f"{','.join(built_in())},encoder@/backbones/hubert,linear@/backbones/hubert"
    mounted = ["resources.volumes={gtzan-data: /data, weights: /weights}", TRACKING]
    chosen = comparison_settings(most, folds=5, profile="quickstart", assignments=mounted)
    documents = compiled(tmp_path / "comparison.yaml", chosen)
    assert estimated_bytes(*documents) < ETCD


def test_a_step_of_the_comparison_weighs_no_more_than_one_of_training(tmp_path: Path) -> None:
    training.compile_to(tmp_path / "training.yaml", settings("quickstart"))
    trained = list(yaml.safe_load_all((tmp_path / "training.yaml").read_text()))
    compared = compiled(tmp_path / "comparison.yaml", comparison_settings(FAMILIES, profile="quickstart"))
    sizes = [estimated_bytes(*documents) / len(tasks(documents[0])) for documents in (trained, compared)]
    assert sizes[1] < sizes[0]


def test_a_submitted_comparison_is_followed_by_the_numbers_of_its_candidates(spec: dict[str, Any]) -> None:
    found = numbered(tasks(spec))
    assert {step.task_name for step in found} == set(tasks(spec))
    assert [step.title for step in found if step.component == "train_candidate"] == [
        "Train: 1", "Train: 2", "Train: 3"
    ]  # fmt: skip
