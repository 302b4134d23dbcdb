"""Encoders in transformers' form: its own pipeline answers on a window's samples as genreflow does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import LAYOUTS, tiny_checkpoint, window_seconds

from genreflow import runtime
from genreflow.artifacts import ModelDocument
from genreflow.families import family
from genreflow.features import hear
from genreflow.genres import GENRES

RATE = 16_000
SPREAD = 4.0
"""Between the largest and the smallest logit of a genre."""
TOLERANCE = 1e-4
"""Between probabilities: the two extract features each in its own way."""
PROBE = {
    "layers": "inner",
    "combine": "concatenated",
    "pooling": "mean_std",
    "segments": 3,
    "standardise": True,
    "projection": None,
}
"""The recipe of `--profile gtzan-mini`: a head that transformers does not have."""
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    **{layout: (layout, {}, "stock") for layout in LAYOUTS},
    "weighted layers": ("hubert", {"layers": "weighted"}, "stock"),
    "a shorter window": ("whisper", {"window_seconds": 1.0}, "stock"),
    "a window of no whole seconds": ("whisper", {"window_seconds": 1.5, "layers": "weighted"}, "stock"),
    "a probe of hubert": ("hubert", PROBE, "own_code"),
    "a probe of whisper": ("whisper", PROBE, "own_code"),
    "some layers of ast": ("ast", {"pooling": "mean_std", "layers": [1, 2]}, "own_code"),
    "no projection": (
        "wavlm",
        {"projection": None, "normalise_layers": True, "layers": "weighted"},
        "own_code",
    ),
}
"""Layout, settings, form."""
ASK = """
import json, sys
from pathlib import Path
import numpy as np
from transformers import pipeline
answers = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    trust = (folder / "exported" / "head.py").exists()
    ask = pipeline("audio-classification", str(folder / "exported"), trust_remote_code=trust)
    windows = np.load(folder / "windows.npy")
    answers[folder.name] = [{row["label"]: row["score"] for row in ask(one, top_k=None)} for one in windows]
assert "genreflow" not in sys.modules
print(json.dumps(answers))
"""


def model(folder: Path, layout: str, settings: dict[str, Any]) -> ModelDocument:
    """A classifier on a tiny checkpoint with random weights, which answers windows differently."""
    kind = family("encoder")
    checkpoint = tiny_checkpoint(layout, folder.parent / "checkpoint")
    given = {"backbone": str(checkpoint), "window_seconds": window_seconds(layout)} | settings
    chosen = kind.settings_type.model_validate(given)
    document = ModelDocument(
        family="encoder",
        settings=chosen.model_dump(mode="json"),
        genres=GENRES,
        hearing=kind.hearing(chosen),
        temperature=1.7,
        training={},
        pretrained=None,
        synthetic=True,
        train_clips={},
        validation_clips={},
        corpus_fingerprint="c",
        features_fingerprint="f",
        protocol="grouped",
        fold=None,
        leaky=False,
        leak_reason=None,
        code_version="0",
        run_id=None,
    )
    module: Any = kind.build(chosen, GENRES, "inputs", 0).eval()
    heard = windows(document)
    inputs = torch.from_numpy(np.concatenate([hear(document.hearing, one, RATE)[0] for one in heard]))
    if module.head.standard is not None:
        module.fit([inputs.repeat_interleave(8, dim=0)])
        module.eval()
    with torch.no_grad():
        last = [layer for layer in module.head.modules() if isinstance(layer, torch.nn.Linear)][-1]
        last.bias.zero_()
        logits = module(inputs).logits
        stretch = SPREAD / (logits.amax(0) - logits.amin(0)).max()
        last.weight.mul_(stretch)
        last.bias.copy_(-logits.mean(0) * stretch)
    kind.save(module, folder)
    document.write(folder)
    return document


def windows(document: ModelDocument, count: int = 3) -> np.ndarray:
    """(count, samples) at the model's rate."""
    length = document.hearing.window_samples
    times = np.arange(length) / RATE
    noise = np.random.default_rng(0).normal(size=(count, length)) * 0.02
    tones = [0.3 * np.sin(2 * np.pi * 200 * 3**number * times) for number in range(count)]
    return (noise + tones).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of every case a folder with the model, the windows and what was exported."""
    root = tmp_path_factory.mktemp("models") / "cases"
    for name, (layout, settings, _) in CASES.items():
        document = model(root / name / "model", layout, settings)
        family("encoder").export_transformers(root / name / "model", document, root / name / "exported")
        np.save(root / name / "windows.npy", windows(document))
    return root


@pytest.fixture(scope="module")
def answers(folders: Path) -> dict[str, list[dict[str, float]]]:
    """What transformers answers in a process without genreflow."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(folders)],
        env=os.environ | {"HF_MODULES_CACHE": str(folders.parent / "modules")},
        cwd=folders.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", CASES)
def test_transformers_answers_as_genreflow(
    name: str, folders: Path, answers: dict[str, list[dict[str, float]]]
) -> None:
    classifier = runtime.load(folders / name / "model")
    heard = np.load(folders / name / "windows.npy")
    expected = [classifier.classify_samples(one, RATE).probabilities for one in heard]
    assert max(np.ptp([answer[genre] for answer in expected]) for genre in GENRES) > 0.1
    for answer, right in zip(answers[name], expected, strict=True):
        assert answer == pytest.approx(right, abs=TOLERANCE)
    own_code = (folders / name / "exported" / "head.py").exists()
    assert own_code == (CASES[name][2] == "own_code")


def test_a_head_of_its_own_is_not_loaded_without_its_code(folders: Path) -> None:
    """Transformers' classifier would have a head with random weights, and answer."""
    from transformers import AutoModelForAudioClassification

    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForAudioClassification.from_pretrained(
            folders / "a probe of whisper" / "exported", trust_remote_code=False
        )
