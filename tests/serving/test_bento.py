"""Bentos as BentoML's users know them: built in a checkout, installed from their own list, served there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from mlflow import MlflowClient
from servers import free_port, served
from services import CLI, Champion

from genreflow import registry
from genreflow.core import home
from serving.recipe import pinned

ROOT = Path(__file__).parent.parent.parent
UV = Path(sys.executable).parent / "uv"
LIMIT_SECONDS = 300
HEAVY = {"torch", "transformers", "mlflow", "kfp", "scipy", "scikit-learn"}
PAGE = {"gradio", "matplotlib", "pandas"}


@pytest.fixture(scope="module")
def champion(champion: Champion, tmp_path_factory: pytest.TempPathFactory) -> Champion:
    """A copy, for more bentos to be built of it."""
    return champion.copy(tmp_path_factory.mktemp("bentos"))


def said(champion: Champion, argv: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | champion.environment | environment
    return subprocess.run(
        argv, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS
    )


def bentoml(champion: Champion, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return said(champion, [sys.executable, "-m", "bentoml", *arguments], **environment)


def folder(champion: Champion, tag: str) -> Path:
    name, _, version = tag.partition(":")
    return champion.root / "bentoml" / "bentos" / name / version


def document(bento: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((bento / "bento.yaml").read_text()))


def requirements(bento: Path) -> list[str]:
    return (bento / "env" / "python" / "requirements.txt").read_text().split()


def names(bento: Path) -> set[str]:
    return {line.partition("==")[0] for line in requirements(bento)}


@pytest.fixture(scope="module")
def built(champion: Champion) -> Path:
    """What `genreflow build` makes."""
    done = said(champion, [*CLI, "build"])
    assert done.returncode == 0, done.stderr
    return folder(champion, done.stdout.strip())


@pytest.fixture(scope="module")
def light(champion: Champion) -> Path:
    """What `genreflow build --no-page` makes."""
    done = said(champion, [*CLI, "build", "--no-page"])
    assert done.returncode == 0, done.stderr
    return folder(champion, done.stdout.strip())


def test_bentoml_build_in_a_checkout_makes_what_genreflow_build_makes(
    champion: Champion, built: Path
) -> None:
    done = bentoml(champion, "build", "--version", "typed", GENREFLOW_MODEL_TAG=champion.model_tag)
    assert done.returncode == 0, done.stderr
    typed = folder(champion, "genreflow:typed")
    for part in ("labels", "services", "image", "envs"):
        assert document(typed)[part] == document(built)[part], part
    assert document(typed)["labels"]["version"] == "1"

    def sources(bento: Path) -> set[str]:
        every = (bento / "src").rglob("*")
        return {path.relative_to(bento).as_posix() for path in every if path.is_file()}

    assert sources(typed) == sources(built)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "Set GENREFLOW_MODEL_TAG to a tag that `bentoml models list` shows"),
        (
            {"GENREFLOW_MODEL_TAG": "genreflow:gone"},
            "There is no model genreflow:gone in BentoML's store here",
        ),
        ({"GENREFLOW_MODEL_TAG": "genreflow:v1", "GENREFLOW_PAGE": "maybe"}, "GENREFLOW_PAGE is yes or no"),
    ],
)
def test_bentoml_build_says_what_to_set(
    champion: Champion, environment: dict[str, str], sentence: str
) -> None:
    done = bentoml(champion, "build", **environment)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_the_image_is_python_alone_and_does_not_run_as_root(built: Path) -> None:
    lines = (built / "env" / "docker" / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM")] == ["FROM python:3.11-slim AS base-container"]
    assert not [line for line in lines if "apt-get" in line]  # no compiler, and no library that no wheel has
    assert [line for line in lines if line.startswith("USER")] == ["USER bentoml"]
    assert "uv venv --python 3.11 /app/.venv" in "\n".join(lines)
    cached = [line for line in lines if line.startswith("ARG UV_NO_CACHE=")]
    installed = [line for line in lines if "pip install -r" in line]
    assert lines.index(cached[0]) < lines.index(installed[0])


def test_every_package_is_pinned_and_what_trains_is_not_among_them(built: Path, light: Path) -> None:
    for bento in (built, light):
        assert all(line.count("==") == 1 for line in requirements(bento))
        assert not names(bento) & HEAVY
        assert {"openvino", "bentoml", "starlette"} <= names(bento)
    assert names(built) - names(light) >= PAGE
    assert not names(light) & PAGE
    assert names(light) < names(built)


def test_what_packages_need_is_pinned_with_them_as_their_markers_say() -> None:
    found = {line.partition("==")[0] for line in pinned(["uvicorn"])}
    assert {"uvicorn", "click", "h11"} <= found
    assert "colorama" not in found  # for Windows
    more = {line.partition("==")[0] for line in pinned(["huggingface-hub"])}
    assert "torch" not in more  # of an extra that nobody asks for


def test_a_bento_without_the_page_has_a_tag_that_says_so_and_no_weights_for_pytorch(
    champion: Champion, built: Path, light: Path
) -> None:
    assert light.name.endswith("-no-page")
    assert built.name != light.name.removesuffix("-no-page")
    assert document(light)["labels"]["page"] == "no"
    name, _, version = champion.model_tag.partition(":")
    stored = champion.root / "bentoml" / "models" / name / version
    assert (stored / "openvino" / "model.bin").is_file()
    assert not (stored / "model").exists()


def test_two_builds_of_the_same_bento_at_once_both_succeed(champion: Champion, tmp_path: Path) -> None:
    """As the pipeline's step does, and a running `genreflow serve` that sees the new champion."""
    own = champion.copy(tmp_path / "own")
    shutil.rmtree(own.root / "bentoml")
    both = [
        subprocess.Popen(
            [*CLI, "build"], env=os.environ | own.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=LIMIT_SECONDS) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0]


def test_what_a_killed_build_left_behind_is_made_anew(
    champion: Champion, built: Path, tmp_path: Path
) -> None:
    own = champion.copy(tmp_path / "own")
    name, _, version = own.model_tag.partition(":")
    left = (folder(own, f"genreflow:{built.name}"), own.root / "bentoml" / "models" / name / version)
    for part, file in zip(left, ("bento.yaml", "model.yaml"), strict=True):
        (part / file).unlink()
    done = said(own, [*CLI, "build"])
    assert (done.returncode, done.stdout.strip()) == (0, f"genreflow:{built.name}"), done.stderr
    assert (left[0] / "bento.yaml").is_file()
    assert (left[1] / "openvino" / "model.bin").is_file()


def test_a_version_that_genreflow_did_not_register_gives_an_error_message(
    champion: Champion, tmp_path: Path
) -> None:
    own = champion.copy(tmp_path / "own")
    with own.registry():
        client = MlflowClient(home.tracking_uri())
        foreign = client.create_model_version(registry.MODEL_NAME, source=str(tmp_path))
    done = said(own, [*CLI, "build", "--model", str(foreign.version)])
    assert done.returncode == 1
    sentence = f"genreflow: Version {foreign.version} of genre-classifier was not registered by genreflow"
    assert done.stderr.splitlines()[-1].startswith(sentence), done.stderr


def test_a_store_that_cannot_be_written_gives_an_error_message(champion: Champion, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    elsewhere = {**champion.environment, "BENTOML_HOME": str(tmp_path / "taken" / "bentoml")}
    done = subprocess.run(
        [*CLI, "build"], env=os.environ | elsewhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert (
        "cannot be written (Not a directory): make room there, or name another folder by BENTOML_HOME."
        in done.stderr
    )
    assert len(done.stderr.splitlines()) == 1


def test_a_bento_answers_from_an_environment_of_its_own_requirements(
    champion: Champion, light: Path, tmp_path: Path
) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    wanted = light / "env" / "python" / "requirements.txt"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
    subprocess.run([UV, "pip", "install", "--quiet", "--python", python, "-r", wanted], check=True)
    # nothing but what the list names: what it does not name, nobody needs
    installed = subprocess.run(
        [UV, "pip", "list", "--quiet", "--format", "freeze", "--python", python],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert set(installed) == set(requirements(light))

    port = free_port()
    address = f"http://127.0.0.1:{port}"
    # from a folder of its own: the checkout's code must not be found
    argv = ["env", "-C", str(tmp_path), str(python), "-m", "bentoml", "serve", f"genreflow:{light.name}"]
    argv += ["--port", str(port)]
    with served(argv, tmp_path / "serve.log", champion.environment, f"{address}/readyz"):
        with champion.song.open("rb") as song:
            answer = requests.post(f"{address}/classify", files={"file": song}, timeout=60).json()
        assert answer["genre"] == champion.expected.genre
        assert answer["probabilities"] == pytest.approx(champion.expected.probabilities, abs=1e-3)
        assert answer["lineage"]["digest"] == champion.digest
        for path in ("ui", "ui/"):
            page = requests.get(f"{address}/{path}", timeout=60)
            assert page.status_code == 404
            assert "built without its page" in page.json()["error"]
        described = requests.get(f"{address}/docs.json", timeout=60).json()
        assert not [path for path in described["paths"] if path.startswith("/ui")]


def test_bentomls_telemetry_is_switched_off() -> None:
    code = (
        "import serving; from bentoml._internal.utils.analytics.usage_stats import do_not_track\n"
        "raise SystemExit(0 if do_not_track() else 'it reports')"
    )
    environment = {key: value for key, value in os.environ.items() if key != "BENTOML_DO_NOT_TRACK"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
