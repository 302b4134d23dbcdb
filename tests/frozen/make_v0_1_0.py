"""Makes `v0_1_0/`: a registry with two champions of version 0.1.0, their bentos, and that version's answers.

Run with the Python of a checkout of version 0.1.0 (see README.md); it refuses any other version.
"""

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import requests
import soundfile

from genreflow import registry
from genreflow.audio import decode
from genreflow.core.digests import code_version, file_digest
from genreflow.core.documents import PackagedDocument
from genreflow.corpus.synthetic import RATE, render
from genreflow.inference.classifier import Classifier
from genreflow.inference.loading import load_classifier
from genreflow.inference.package_files import read_reference

sys.path.insert(0, str(Path(__file__).parent.parent))
from servers import free_port, served
from unpacking import ARCHIVE, CODE, ROOT, ROOT_URI, SQL

CODE_VERSION = "0.1.0+8ef1735f5975"
"""Of commit 16b1e19, the last of version 0.1.0."""
GENRES = ("blues", "classical", "hiphop", "rock")
SOURCE = "synthetic?clips=40&seconds=3&seed=0"
SMALL_ENCODER = {
    "model_type": "hubert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_bias": True,
    "conv_dim": [8, 64, 16, 16, 16, 128, 16],
    "conv_kernel": [4, 96, 4, 3, 3, 1, 1],
    "conv_stride": [4, 32, 2, 2, 2, 1, 1],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "layerdrop": 0.0,
    "mask_time_prob": 0.05,
    "mask_time_length": 5,
}
"""The quickstart's encoder, narrower."""
RUNS = {
    "mfcc_cnn": {"training.epochs": 12},
    "encoder": {"model.from_scratch": SMALL_ENCODER, "training.epochs": 14},
}
"""Family → settings, in the order of the versions."""
CLI = [sys.executable, "-m", "pipelines.cli"]
CHECKOUT = Path(str(registry.__file__)).parents[2]
LEFT_OUT = shutil.ignore_patterns("__pycache__", "plots", "report.html")
"""Of the evaluation, what only people read is left out: it is half of everything."""
PERSON = ("mlflow.user", "mlflow.source.name")
"""MLflow's tags that name the person and the machine."""
XZ_PRESET = 9
"""Its window of 64 MiB sees that bento, model store and registry hold the same files."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the folder to write; it must not exist")
    out = parser.parse_args().out.resolve()
    if code_version() != CODE_VERSION:
        sys.exit(f"This is genreflow {code_version()}: run it with a checkout of {CODE_VERSION}.")
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="genreflow-frozen-") as folder:
        root = Path(folder).resolve()
        os.environ |= {"GENREFLOW_HOME": str(root / "home"), "BENTOML_HOME": str(root / "bentoml")}
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        for family, settings in RUNS.items():
            train(family, settings, out)
        if "champion" not in version("2")["aliases"]:
            command("promote", "2", "--reason", "the fixture's second champion")
            command("build")
        (out / "models.json").write_text(command("models", "--json"))
        write_clips(out / "clips", root / "home" / "corpora")
        write_logits(out)
        write_answers(out, root)
        pack(root, out)


def command(*arguments: str) -> str:
    """What `genreflow` prints."""
    return subprocess.run([*CLI, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def version(number: str) -> dict[str, Any]:
    return next(entry for entry in json.loads(command("models", "--json")) if entry["version"] == number)


def train(family: str, settings: dict[str, Any], out: Path) -> None:
    assignments = {"corpus.genres": list(GENRES), **settings}
    sets = [part for key, value in assignments.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    summary = out / f"summary_{family}.json"
    command("run", "--source", SOURCE, "--family", family, *sets, "--summary", str(summary))


def write_clips(folder: Path, corpora: Path) -> None:
    """Synthetic music and silence: a training clip, a song, a clip shorter than a window, silence."""
    folder.mkdir()
    document = PackagedDocument.read(registry.fetch("2"))
    rock = sorted(corpora.glob("synthetic-*/genres/rock/*.wav"))
    trained_on = next(path for path in rock if file_digest(path) in document.model.train_clips)
    shutil.copy(trained_on, folder / "synthetic_trained_on.wav")
    song, rate = render("classical", 1000, 1, 4.5)
    other, _ = render("hiphop", 1000, 1, 4.0)
    pcm = np.round(np.concatenate([song, other]) * 32767).astype(np.int16)
    soundfile.write(folder / "synthetic_song.flac", pcm, rate)
    short, _ = render("blues", 1000, 1, 1.2)
    soundfile.write(folder / "synthetic_short.flac", np.round(short * 32767).astype(np.int16), rate)
    soundfile.write(folder / "silence.flac", np.zeros(3 * RATE, np.int16), RATE)


def write_logits(out: Path) -> None:
    """Logits and probabilities of both versions, both runtimes in fp32: reference windows, clips' windows."""
    found: dict[str, Any] = {}
    for number in ("1", "2"):
        folder = registry.fetch(number)
        document = PackagedDocument.read(folder)
        inputs, expected = read_reference(folder)
        found[number] = {
            "digest": document.digest,
            "genres": document.model.genres,
            "temperature": document.model.temperature,
            "runtimes": {},
        }
        for name in ("pytorch", "openvino"):
            classifier = load_classifier(folder, runtime=name, precision="f32")
            clips = {}
            for path in sorted((out / "clips").iterdir()):
                audio = decode(path)
                logits, starts = classifier.window_logits(audio.samples, audio.sample_rate)
                clips[path.name] = {"starts": rounded(starts)} | figures(classifier, logits)
            reference = figures(classifier, classifier.logits(inputs))
            assert np.allclose(reference["probabilities"], expected, atol=1e-3)
            found[number]["runtimes"][name] = {"reference": reference, "clips": clips}
    write_json(out / "logits.json", found)


def figures(classifier: Classifier, logits: np.ndarray) -> dict[str, Any]:
    return {"logits": rounded(logits), "probabilities": rounded(classifier.probabilities(logits))}


def rounded(values: np.ndarray) -> Any:
    return np.asarray(values, np.float64).round(6).tolist()


def write_answers(out: Path, root: Path) -> None:
    """What `genreflow serve` answers over HTTP to the clips."""
    clips = sorted((out / "clips").iterdir())
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with served([*CLI, "serve", "--port", str(port)], root / "serve.log", {}, f"{address}/readyz"):
        answers: dict[str, Any] = {"classify": {}, "timeline": {}}
        for path in clips:
            for endpoint in ("classify", "timeline"):
                with path.open("rb") as file:
                    answer = requests.post(f"{address}/{endpoint}", files={"file": file}, timeout=120)
                answers[endpoint][path.name] = answer.json()
        content = [("files", (path.name, path.read_bytes())) for path in clips]
        content.append(("files", ("no_audio.wav", b"this is no audio")))
        answers["classify_batch"] = requests.post(
            f"{address}/classify_batch", files=content, timeout=120
        ).json()
        answers["model"] = requests.get(f"{address}/model", timeout=120).json()
        write_json(out / "answers.json", answers)
        write_json(out / "openapi.json", requests.get(f"{address}/docs.json", timeout=120).json())


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def pack(root: Path, out: Path) -> None:
    """Registry and bento as one archive in which no path of this machine is left."""
    kept = root / "kept"
    shutil.copytree(root / "home" / "mlartifacts", kept / "home" / "mlartifacts", ignore=LEFT_OUT)
    for store in ("models", "bentos"):
        shutil.copytree(root / "bentoml" / store, kept / "bentoml" / store, ignore=LEFT_OUT)
    corpus = min((root / "home" / "pipelines").rglob("corpus.json"))
    shutil.copytree(corpus.parent, kept / "corpus", ignore=shutil.ignore_patterns("clips"))
    for path in kept.rglob("MLmodel"):
        path.write_text(without(path.read_text(), root))
    (kept / "home" / SQL).write_text(dump(root / "home" / "mlflow.db", root))
    for path in kept.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for folder in (root, CHECKOUT):
            if str(folder).encode() in content:
                sys.exit(f"{path.relative_to(kept)} names {folder}.")
    with tarfile.open(out / ARCHIVE, "w:xz", preset=XZ_PRESET) as archive:
        for path in sorted(kept.rglob("*")):
            archive.add(path, path.relative_to(kept).as_posix(), recursive=False, filter=nobody)


def nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def dump(database: Path, root: Path) -> str:
    """The registry as SQL, its folder replaced by placeholders."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.db"
        shutil.copy(database, copy)
        connection = sqlite3.connect(copy)
        with connection:
            connection.execute("DELETE FROM tags WHERE key IN (?, ?)", PERSON)
            connection.execute("UPDATE runs SET user_id = '', source_name = ''")
        text = "\n".join(connection.iterdump()) + "\n"
        connection.close()
    return without(text, root)


def without(text: str, root: Path) -> str:
    text = text.replace(root.as_uri(), ROOT_URI).replace(str(root), ROOT)
    return text.replace(str(CHECKOUT), CODE)


if __name__ == "__main__":
    main()
