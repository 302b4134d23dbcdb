"""Encoders in transformers' form: its own pipeline answers on a window's samples as genreflow does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import LAYOUTS
from encoders import PROBE, RATE, windows, write_encoder

from genreflow.core.genres import GENRES
from genreflow.families import family
from genreflow.inference.loading import load_classifier

TOLERANCE = 1e-4
"""Between probabilities: the two extract features each in its own way."""
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


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of every case a folder with the model, the windows and what was exported."""
    root = tmp_path_factory.mktemp("models") / "cases"
    for name, (layout, settings, _) in CASES.items():
        document = write_encoder(root / name / "model", layout, settings)
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
    classifier = load_classifier(folders / name / "model")
    clips = np.load(folders / name / "windows.npy")
    expected = [classifier.classify_samples(one, RATE).probabilities for one in clips]
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
