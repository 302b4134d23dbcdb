"""Code in a backbone's folder: never run, and no prompt offers to run it."""

import ast
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import tiny_checkpoint
from services import CLI
from sounds import genre_folder

ROOT = Path(__file__).parent.parent.parent
YES = "y\n" * 20
BUILD = """
import sys
from pathlib import Path
from genreflow.core.errors import GenreflowError
from genreflow.families.encoder import Encoder, EncoderSettings
family, settings = Encoder(), EncoderSettings(backbone=sys.argv[1], window_seconds=1.0)
try:
    family.input_spec(settings)
    module = family.build(settings, ("jazz", "rock"), "inputs", seed=0)
    family.save(module, Path(sys.argv[2]))
    family.load_module(Path(sys.argv[2]), settings, ("jazz", "rock"))
except GenreflowError as error:
    sys.exit(str(error))
"""
AUTO_MAP = {
    "AutoConfig": "planted.PlantedConfig",
    "AutoModel": "planted.PlantedModel",
    "AutoModelForAudioClassification": "planted.PlantedModel",
    "AutoFeatureExtractor": "planted.PlantedExtractor",
    "AutoProcessor": "planted.PlantedExtractor",
}
OF_A_HUB = {name: f"someone/else--{place}" for name, place in AUTO_MAP.items()}


class Writing:
    """Unpickled, it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def plant(folder: Path, marker: Path, auto_map: dict[str, str], **config: Any) -> Path:
    """A tiny HuBERT whose folder says, in every place that transformers reads, that its code is to be run."""
    tiny_checkpoint("hubert", folder)
    code = (
        f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
        "from transformers import HubertConfig, HubertForSequenceClassification, Wav2Vec2FeatureExtractor\n"
        "class PlantedConfig(HubertConfig):\n    model_type = 'planted'\n"
        "class PlantedModel(HubertForSequenceClassification):\n    config_class = PlantedConfig\n"
        "class PlantedExtractor(Wav2Vec2FeatureExtractor):\n    pass\n"
    )
    (folder / "planted.py").write_text(code)
    for name in ("config.json", "preprocessor_config.json"):
        content = json.loads((folder / name).read_text())
        changes = config if name == "config.json" else {}
        (folder / name).write_text(json.dumps(content | changes | {"auto_map": auto_map}))
    return folder


def answered_yes(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, argv)), input=YES, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize("auto_map", [AUTO_MAP, OF_A_HUB], ids=["of the folder", "of a hub"])
def test_a_backbone_that_needs_code_of_its_own_is_rejected_before_the_run(
    auto_map: dict[str, str], tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    folder = plant(tmp_path / "planted", marker, auto_map, model_type="planted")
    music = genre_folder(tmp_path / "music", 2)
    done = answered_yes(
        *CLI, "run", "--source", music, "--backbone", folder, "--set", "corpus.genres=[jazz,rock]"
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "code of its own" in done.stderr
    assert "auto_map" in done.stderr
    assert done.stdout == ""
    assert not marker.exists()


@pytest.mark.parametrize("auto_map", [AUTO_MAP, OF_A_HUB], ids=["of the folder", "of a hub"])
def test_a_backbone_of_a_known_kind_is_loaded_without_its_code_and_saved_without_naming_it(
    auto_map: dict[str, str], tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    folder = plant(tmp_path / "planted", marker, auto_map)
    done = answered_yes(sys.executable, "-c", BUILD, folder, tmp_path / "saved")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not marker.exists()
    for name in ("config.json", "preprocessor_config.json"):
        assert "planted" not in (tmp_path / "saved" / name).read_text()


def test_weights_that_are_a_pickle_run_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for name, write in (
        ("torch", lambda planted, path: torch.save({"encoder": planted}, path)),
        ("bare", lambda planted, path: path.write_bytes(pickle.dumps(planted))),
    ):
        folder = tiny_checkpoint("hubert", tmp_path / name)
        (folder / "model.safetensors").unlink()
        write(Writing(marker), folder / "pytorch_model.bin")
        done = answered_yes(sys.executable, "-c", BUILD, folder, tmp_path / "saved")
        assert done.returncode == 1
        assert "is not a model that can be read" in done.stderr
        assert not marker.exists()


def loads(tree: ast.AST) -> list[ast.Call]:
    """Calls by which transformers chooses a class by what a folder or a configuration says, or loads one."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [(ast.unparse(call.func), call) for call in calls]
    return [
        call
        for name, call in named
        if name.endswith((".from_pretrained", ".from_config")) and name != "nn.Embedding.from_pretrained"
    ]


def test_wherever_transformers_loads_something_remote_code_is_forbidden_explicitly() -> None:
    found = 0
    for package in ("genreflow", "serving", "pipelines", "components"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for call in loads(ast.parse(path.read_text())):
                found += 1
                given = {word.arg: ast.unparse(word.value) for word in call.keywords}
                assert given.get("trust_remote_code") == "False", f"{path}:{call.lineno}"
    assert found >= 4
