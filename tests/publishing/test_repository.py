"""Publishing to a model hub by the command line, and loading back from there, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from encoders import RATE, windows
from model_hub import READER, WRITER, ModelHub, Repository
from publishing.conftest import OTHER, OWN_CODE, STOCK, metadata

import genreflow
from genreflow.core.documents import PackagedDocument, PublishedDocument
from genreflow.core.genres import GENRES

TOLERANCE = 1e-4
PIPELINE = """
import json, sys
import numpy as np
from transformers import pipeline
for name, windows, *trust in json.loads(sys.argv[1]):
    ask = pipeline("audio-classification", name, trust_remote_code=bool(trust))
    rows = [ask(one, top_k=None) for one in np.load(windows)]
    print(json.dumps([{row["label"]: row["score"] for row in answer} for answer in rows]))
"""
PUBLISH = """
import json, os, sys
from dataclasses import asdict
import genreflow
from genreflow import publishing
from genreflow.core.errors import GenreflowError
for version, to, token, *public in json.loads(sys.argv[1]):
    os.environ["HF_TOKEN"] = token
    try:
        print(json.dumps(asdict(publishing.publish(version, to, bool(public)))))
    except GenreflowError as error:
        print(json.dumps({"error": str(error)}))
for address, song in json.loads(sys.argv[2]):
    print(json.dumps(genreflow.load(address).classify(song).to_dict()))
"""
UPLOAD = """
import sys
from pathlib import Path
from genreflow.core.documents import PublishedDocument
from genreflow.core.errors import PublishError
from genreflow.publishing import repository
folder = Path(sys.argv[1])
try:
    repository.upload("hf://owner/genres", folder, PublishedDocument.read(folder), public=False)
except PublishError as error:
    print(error)
"""


def ran(hub: ModelHub, tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": WRITER,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def published(
    hub: ModelHub,
    tmp_path: Path,
    what: list[tuple[str, ...]],
    classify: list[tuple[str, str]] | None = None,
) -> list[dict[str, Any]]:
    """What becomes of each version, address and token (and whether public); then of each model and song."""
    done = ran(hub, tmp_path, "-c", PUBLISH, json.dumps(what), json.dumps(classify or []))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def expected(folder: Path) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Windows, and what genreflow answers with a packaged model in fp32."""
    classifier = genreflow.load(str(folder), runtime="pytorch")
    clips = windows(classifier.document)
    answers = [classifier.classify_samples(one, RATE).probabilities for one in clips]
    assert max(np.ptp([answer[genre] for answer in answers]) for genre in GENRES) > 0.1
    return clips, answers


def test_a_published_model_is_loaded_back_by_transformers_and_by_genreflow(
    hub: ModelHub, versions: dict[str, Path], tmp_path: Path
) -> None:
    done = ran(hub, tmp_path, "-m", "pipelines.cli", "publish", "--to", "hf://owner/stock")
    assert done.returncode == 0, done.stderr
    assert f"Published version 1 at {hub.url}/owner/stock (private): " in done.stdout
    repository = hub.repositories["owner/stock"]
    assert repository.private
    assert len(repository.commits) == 2
    uploads = len(hub.uploads)

    song = tmp_path / "song.wav"
    clips, answers = {}, {}
    for version, name in ((STOCK, "stock"), (OWN_CODE, "own")):
        clips[name], answers[name] = expected(versions[version])
        np.save(tmp_path / f"{name}.npy", clips[name])
    soundfile.write(song, clips["stock"][1], RATE, subtype="FLOAT")
    again, new, classified = published(
        hub,
        tmp_path,
        [(STOCK, "hf://owner/stock/", WRITER), (OWN_CODE, "hf://owner/own", WRITER)],
        [("hf://owner/stock", str(song))],
    )
    assert again["uploaded"] == again["removed"] == []
    assert "head.py" in new["uploaded"]
    assert len(repository.commits) == 2
    assert not set(hub.uploads[uploads:]) & set(hub.uploads[:uploads])
    right = genreflow.load(str(versions[STOCK])).classify(song).probabilities
    assert classified["probabilities"] == pytest.approx(right, abs=TOLERANCE)

    wanted = [
        ("owner/stock", str(tmp_path / "stock.npy")),
        ("owner/own", str(tmp_path / "own.npy"), "trust"),
    ]
    asked = ran(hub, tmp_path, "-c", PIPELINE, json.dumps(wanted), HF_TOKEN=READER)
    assert asked.returncode == 0, asked.stderr
    for line, name in zip(asked.stdout.splitlines(), ("stock", "own"), strict=True):
        for answer, right in zip(json.loads(line), answers[name], strict=True):
            assert answer == pytest.approx(right, abs=TOLERANCE)


def test_another_version_takes_its_place_and_what_is_not_genreflows_stays(
    hub: ModelHub, versions: dict[str, Path], tmp_path: Path
) -> None:
    repository = Repository(private=True, commits=[("1" * 40, {".gitattributes": b"x", "README.md": b"x"})])
    hub.repositories["owner/genres"] = repository
    first, second, third = published(
        hub, tmp_path, [(version, "hf://owner/genres", WRITER) for version in (OWN_CODE, OTHER, STOCK)]
    )
    assert [one["visibility"] for one in (first, second, third)] == ["private"] * 3
    assert {"head.py", "config.json", "README.md", "model/model.safetensors"} <= set(first["uploaded"])
    assert first["removed"] == []
    # the other family has its files under model/ alone
    assert {"head.py", "modeling_genreflow.py", "model.safetensors", "config.json"} <= set(second["removed"])
    assert "config.json" in third["uploaded"]
    assert not [name for name in repository.files if name.endswith(".py")]
    for _, files in repository.commits[1:]:
        assert files[".gitattributes"] == b"x"
        document = PackagedDocument.model_validate_json(files["packaged.json"])
        assert set(document.files) <= set(files)
        assert not [name for name, content in files.items() if b"/secret/" in content or b"/tmp/" in content]

    for name, content in repository.files.items():
        path = tmp_path / "clone" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert genreflow.load(str(tmp_path / "clone")).document.temperature == 1.7

    cards = [files["README.md"].decode() for _, files in repository.commits[1:]]
    own, other, stock = map(metadata, cards)
    assert stock["library_name"] == own["library_name"] == "transformers"
    assert other["library_name"] == "genreflow"
    assert {"synthetic", "not-measured", "custom_code"} <= set(own["tags"])
    assert "model-index" not in own
    for words in ("Synthetic.", "not measured", "trust_remote_code=True"):
        assert words in cards[0]
    assert "Leaky." in cards[1]
    assert "transformers" not in cards[1]
    assert stock["pipeline_tag"] == "audio-classification"
    accuracy = stock["model-index"][0]["results"][0]["metrics"][0]
    assert accuracy["value"] == 0.81
    assert "95 % interval from 76.0 % to 85.0 %" in accuracy["name"]
    for digest in (PackagedDocument.read(versions[STOCK]).digest, "c0" * 32):
        assert digest in cards[2]


def test_a_repository_is_public_only_on_request(
    hub: ModelHub, versions: dict[str, Path], tmp_path: Path
) -> None:
    hub.repositories["owner/closed"] = Repository(private=True)
    hub.repositories["owner/open"] = Repository(private=False)
    names = ("new", "closed", "open")
    new, closed, opened = published(
        hub, tmp_path, [(STOCK, f"hf://owner/{name}", WRITER, "public") for name in names]
    )
    assert not hub.repositories["owner/new"].private
    assert [one["visibility"] for one in (new, closed, opened)] == ["public", "private", "public"]
    assert new["notes"] == opened["notes"] == []
    assert f"{hub.url}/owner/closed/settings" in closed["notes"][0]
    assert hub.repositories["owner/closed"].private


def test_what_a_hub_refuses_is_reported_with_an_error_message(
    hub: ModelHub, versions: dict[str, Path], tmp_path: Path
) -> None:
    hub.repositories["owner/open"] = Repository(private=False)
    hub.refusals |= {"/api/models/owner/busy": 429, "/api/models/owner/broken": 500, "/lfs": 403}
    wanted = {
        ("hf://genres", WRITER): "hf://OWNER/NAME",
        ("hf://datasets/owner/genres", WRITER): "hf://OWNER/NAME",
        ("hf://owner/genres@v1", WRITER): "main branch",
        ("hf://owner/open", WRITER): "--public",
        ("hf://owner/busy", WRITER): "request rate",
        ("hf://owner/broken", WRITER): "answers 500",
        ("hf://owner/genres", ""): "needs a token",
        ("hf://owner/genres", "wrong"): "valid token",
        ("hf://owner/genres", READER): "may write",
        ("hf://owner/full", WRITER): "could not be written",
    }
    reported = published(hub, tmp_path, [(STOCK, to, token) for to, token in wanted])
    for (to, _), one in zip(wanted, reported, strict=True):
        assert wanted[to, _] in one["error"]
        assert to in one["error"]
        assert "\n" not in one["error"]
    assert not hub.uploads
    assert len(hub.repositories["owner/full"].commits) == 1


def test_the_error_of_a_hub_without_xet_names_the_variable_to_set(hub: ModelHub, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    record = PublishedDocument(version="1", digest="d" * 64, files={"model.safetensors": "5" * 64})
    record.write(tmp_path)
    done = ran(hub, tmp_path, "-c", UPLOAD, str(tmp_path), HF_HUB_DISABLE_XET="0")
    assert "could not be written" in done.stdout
    assert "set HF_HUB_DISABLE_XET=1" in done.stdout
