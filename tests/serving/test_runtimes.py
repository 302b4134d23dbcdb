"""PyTorch and OpenVINO serve the same model: what is built, what answers, and what the card says of it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from candidates import write_corpus, write_evaluation
from corpora import ingest_and_split, split_of
from encoders import RATE, write_encoder
from services import CLI, Champion, running, until
from sounds import genre_folder

from genreflow import packaging, registry
from genreflow.core.documents import PackagedDocument
from genreflow.core.genres import GENRES
from genreflow.corpus.settings import CorpusSettings
from genreflow.inference.loading import load_classifier

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Champion:
    """A registry with two models that both runtimes serve; the first is champion."""
    root = tmp_path_factory.mktemp("runtimes")
    music = str(genre_folder(root / "music", 2, GENRES))
    ingest_and_split(music, CorpusSettings(protocol="grouped"), root / "clips")
    song = root / "song.flac"
    soundfile.write(song, np.random.default_rng(0).normal(size=3 * RATE) * 0.1, RATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENREFLOW_HOME", str(root / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for version, layout in (("1", "hubert"), ("2", "wavlm")):
            folder = root / version
            write_encoder(folder / "model", layout, {})
            packaging.package(folder / "model", root / "clips", split_of(root / "clips"), folder / "packaged")
            write_corpus(folder / "corpus", {})
            write_evaluation(folder / "scores", folder / "packaged", 0.8, {})
            found = registry.register(
                folder / "packaged", folder / "scores", folder / "corpus", split_of(folder / "corpus"), None
            )
            assert found.version == version
        registry.set_champion("1", "the first")
    expected = load_classifier(root / "1" / "packaged", "openvino", "f32").classify(song)
    return Champion(root, song, expected, PackagedDocument.read(root / "1" / "packaged").digest)


def build(champion: Champion, *options: str) -> Path:
    """What `genreflow build` makes: the bento's folder."""
    done = subprocess.run(
        [*CLI, "build", "--no-page", *options],
        env=os.environ | champion.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return champion.root / "bentoml" / "bentos" / done.stdout.strip().replace(":", "/")


def packages(bento: Path) -> set[str]:
    lines = (bento / "env" / "python" / "requirements.txt").read_text().split()
    return {line.partition("==")[0] for line in lines}


def model_of(champion: Champion, bento: Path) -> tuple[str, Path]:
    """The model's tag, and its folder in BentoML's store."""
    document = yaml.safe_load((bento / "bento.yaml").read_text())
    (tag,) = {entry["tag"] for service in document["services"] for entry in service["models"]}
    return tag, champion.stored(tag)


def label(bento: Path) -> str:
    return str(yaml.safe_load((bento / "bento.yaml").read_text())["labels"]["runtime"])


def test_a_bento_for_pytorch_has_the_weights_and_what_reads_them_and_says_so(champion: Champion) -> None:
    plain, whole = build(champion), build(champion, "--runtime", "pytorch")
    assert (label(plain), label(whole)) == ("openvino", "pytorch")
    assert whole.name.endswith("-pytorch-no-page")
    assert "pytorch" not in plain.name
    heavy = {"torch", "transformers", "safetensors"}
    assert heavy <= packages(whole)
    assert not heavy & packages(plain)
    assert (model_of(champion, whole)[1] / "model" / "genreflow.json").is_file()
    assert not (model_of(champion, plain)[1] / "model").exists()
    assert build(champion, "--runtime", "openvino") == plain


def test_an_unknown_runtime_gives_an_error_message(champion: Champion) -> None:
    done = subprocess.run(
        [*CLI, "build", "--runtime", "tensorrt"],
        env=os.environ | champion.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    sentence = "There is no runtime 'tensorrt'; there are auto, openvino, pytorch, onnxruntime, sklearn."
    assert (done.returncode, done.stderr) == (1, f"genreflow: {sentence}\n")


def test_in_a_checkout_the_environment_names_the_runtime(champion: Champion) -> None:
    imported = {
        name: model_of(champion, build(champion, "--runtime", name))[0] for name in ("openvino", "pytorch")
    }

    def typed(version: str, model: str, wanted: str) -> subprocess.CompletedProcess[str]:
        variables = {"GENREFLOW_MODEL_TAG": imported[model], "GENREFLOW_RUNTIME": wanted}
        return subprocess.run(
            [sys.executable, "-m", "bentoml", "build", "--version", version],
            cwd=ROOT,
            env=os.environ | champion.environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    bentos = champion.root / "bentoml" / "bentos" / "genreflow"
    for version, model, wanted, settled in (
        ("one", "pytorch", "auto", "pytorch"),
        ("two", "pytorch", "openvino", "openvino"),
    ):
        done = typed(version, model, wanted)
        assert done.returncode == 0, done.stderr
        assert label(bentos / version) == settled
        assert ("torch" in packages(bentos / version)) == (settled == "pytorch")
    for model, wanted, sentence in (
        ("openvino", "pytorch", "was imported without the weights that PyTorch reads"),
        (
            "openvino",
            "tensorrt",
            "GENREFLOW_RUNTIME is auto, openvino, pytorch, onnxruntime, sklearn, not 'tensorrt'.",
        ),
    ):
        done = typed("three", model, wanted)
        assert done.returncode != 0
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr


def test_pytorch_answers_as_openvino_does_and_a_new_champion_too(champion: Champion, tmp_path: Path) -> None:
    own = champion.copy(tmp_path / "own")
    with running(own, "--no-page", "--runtime", "pytorch", CUDA_VISIBLE_DEVICES="") as service:
        card = service.model()
        assert (card["runtime"], card["precision"], card["registry"]) == ("pytorch", "f32", "connected")
        assert "no CUDA device here" in " ".join(card["notes"])
        assert "no CUDA device here" in service.log
        answer = service.post("classify", own.song.read_bytes()).json()
        assert answer["lineage"]["runtime"] == "pytorch"
        assert answer["genre"] == own.expected.genre
        assert answer["probabilities"] == pytest.approx(own.expected.probabilities, abs=1e-3)
        assert len({round(share, 2) for share in answer["probabilities"].values()}) > 2
        with own.registry():
            registry.set_champion("2", "it is better")
        until(lambda: service.model()["lineage"]["version"] == "2", "the new champion never came")
        assert service.model()["runtime"] == "pytorch"
        second = service.post("classify", own.song.read_bytes()).json()
    expected = load_classifier(champion.root / "2" / "packaged", "openvino", "f32").classify(own.song)
    assert second["probabilities"] == pytest.approx(expected.probabilities, abs=1e-3)
    assert second["probabilities"] != pytest.approx(answer["probabilities"], abs=1e-2)
