"""The components as files: complete, explained, and at work in a pipeline that is not genreflow's."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import components, dsl, local
from sounds import genre_folder

from components.image import BUILD_IMAGE, IMAGE, cluster_image
from genreflow.core.documents import CorpusDocument
from genreflow.families import family
from pipelines.components_command import EXAMPLES, EXAMPLES_OF, all_components, write_components
from pipelines.steps import COMPARISON_STEPS, STEPS

NAMES = list(dict.fromkeys(step.name for step in (*STEPS, *COMPARISON_STEPS)))
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("components")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENREFLOW_IMAGE", "registry.example.org/genreflow@sha256:1")
        patch.setenv("GENREFLOW_BUILD_IMAGE", "registry.example.org/genreflow-build@sha256:2")
        write_components(folder)
    return folder


def test_every_step_of_the_pipelines_is_a_component_with_a_readme(folder: Path) -> None:
    assert list(all_components()) == NAMES
    index = (folder / "README.md").read_text()
    for name in NAMES:
        assert f"[{name}]({name}/README.md)" in index
        assert (folder / name / "README.md").is_file()
    uncached = {step.name for step in (*STEPS, *COMPARISON_STEPS) if not step.cached}
    (sentence,) = re.findall(r"- (.*) depend on what changes outside", index)
    assert set(re.findall("`(.*?)`", sentence)) == uncached


@pytest.mark.parametrize("name", NAMES)
def test_a_readme_explains_every_input_and_output_and_names_the_image(name: str, folder: Path) -> None:
    text = (folder / name / "README.md").read_text()
    spec = all_components()[name].component_spec
    for key in [*(spec.inputs or {}), *(spec.outputs or {})]:
        row = re.search(rf"^\| `{key}` \|.*\| (.+) \|$", text, re.MULTILINE)
        assert row is not None, key
    image = f"registry.example.org/genreflow{'-build@sha256:2' if name == 'build' else '@sha256:1'}"
    assert f"Image: `{image}`" in text
    compiled = yaml.safe_load((folder / name / "component.yaml").read_text())
    (executor,) = compiled["deploymentSpec"]["executors"].values()
    assert executor["container"]["image"] == image
    assert cluster_image() not in text


def test_without_another_image_named_build_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GENREFLOW_IMAGE", raising=False)
    monkeypatch.delenv("GENREFLOW_BUILD_IMAGE", raising=False)
    for path in write_components(tmp_path):
        image = BUILD_IMAGE if path.parent.name == "build" else IMAGE
        assert f"image: {image}\n" in path.read_text()
        assert f"Image: `{image}`" in (path.parent / "README.md").read_text()


def test_the_examples_compile(folder: Path) -> None:
    code = "\n".join(
        match[1] for name in NAMES if (match := PYTHON.search((folder / name / "README.md").read_text()))
    )
    assert code.count("@dsl.pipeline") == len(NAMES)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_examples_of_a_comparison_name_candidates_as_its_steps_read_them() -> None:
    candidate = json.loads(EXAMPLES_OF["train_candidate"]["settings"])
    assert candidate.keys() == {"name", "family", "model", "training"}
    assert family(candidate["family"]).training_type.model_validate(candidate["training"])
    for one in json.loads(EXAMPLES["candidates"]):
        family(one["family"]).settings_type.model_validate(one["model"])


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def largest_genre(corpus: dsl.Input[dsl.Dataset]) -> str:
    """A step of another team, on the corpus that `ingest` made."""
    import pandas

    return str(pandas.read_parquet(f"{corpus.path}/manifest.parquet")["genre"].value_counts().idxmax())


def test_two_components_work_in_a_pipeline_that_is_not_ours(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    music = genre_folder(tmp_path / "music")
    next((music / "rock").iterdir()).unlink()
    resolve, ingest = (
        components.load_component_from_file(str(folder / name / "component.yaml"))
        for name in ("resolve", "ingest")
    )
    genres = '{"genres": ["jazz", "rock"]}'

    @dsl.pipeline(name="another-teams")
    def another_teams(source: str) -> str:
        resolved = resolve(source=source, corpus=genres, family="mfcc_cnn", model="{}")
        made = ingest(
            source=source, source_fingerprint=resolved.outputs["source_fingerprint"], settings=genres
        )
        return largest_genre(corpus=made.outputs["corpus"]).output

    monkeypatch.chdir(tmp_path)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
    task = another_teams(source=str(music))
    assert task.output == "jazz"
    (document,) = (tmp_path / "root").rglob("corpus.json")
    assert CorpusDocument.read(document.parent).source == str(music)


def test_the_command_line_writes_them_alone_or_beside_the_pipeline(tmp_path: Path) -> None:
    def genreflow(*arguments: str) -> subprocess.CompletedProcess[Any]:
        command = [sys.executable, "-m", "pipelines.cli", "compile", *arguments]
        environment = os.environ | {"COLUMNS": "200"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    done = genreflow("--components", str(tmp_path / "all"))
    assert (done.returncode, done.stdout) == (0, f"Wrote {len(NAMES)} components into {tmp_path / 'all'}\n")
    refused = genreflow()
    assert refused.returncode == 2
    assert "--output" in refused.stderr
    assert "--components" in refused.stderr
