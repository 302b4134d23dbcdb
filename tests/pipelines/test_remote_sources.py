"""`genreflow run` as typed, on a bucket and on a data set of a hub."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from faults import Hub, serving
from killing import interrupted
from servers import free_port
from sounds import tone, write

from genreflow.core.documents import CorpusDocument

GENRES = ["jazz", "rock"]
TIMEOUT = 900  # seconds

pytestmark = pytest.mark.timeout(3 * TIMEOUT)


def clips(folder: Path) -> dict[str, bytes]:
    """Names and contents of six tones a genre."""
    for number, genre in enumerate(GENRES):
        for clip in range(6):
            write(folder / genre / f"{clip}.wav", tone(seconds=3.2, pitch=220.0 * 2**number + clip))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.wav"))}


def command(source: str, home: Path) -> list[str]:
    arguments = ["run", "--source", source, "--family", "mfcc_cnn", "--summary", str(home / "summary.json")]
    arguments += ["--set", f"corpus.genres={json.dumps(GENRES)}", "--set", "training.epochs=2"]
    arguments += ["--set", "training.device=cpu", "--set", "gate.min_accuracy=0"]
    return [sys.executable, "-m", "pipelines.cli", *arguments]


def environment(home: Path, **variables: str) -> dict[str, str]:
    home.mkdir()
    own = {"GENREFLOW_HOME": str(home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0"}
    return {**os.environ, **own, "HF_HOME": str(home / "hub"), **variables}


def run(source: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(source, home),
        env=environment(home, **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        cwd=home,
    )


def corpus_and_split(home: Path) -> tuple[str, pd.DataFrame, pd.DataFrame]:
    """What every later step of a run depends on: the fingerprint, and the content and split of each clip."""
    (corpus,) = home.glob("pipelines/*/ingest/corpus")
    (split,) = home.glob("pipelines/*/split/split/split.parquet")
    manifest = pd.read_parquet(corpus / "manifest.parquet")[["clip_id", "genre", "sha256", "seconds"]]
    return CorpusDocument.read(corpus).fingerprint, manifest, pd.read_parquet(split)


def test_a_bucket_and_a_hub_with_the_same_clips_give_the_same_corpus_and_split(
    aws: Any, tmp_path: Path
) -> None:
    files = clips(tmp_path / "clips")
    aws.create_bucket(Bucket="as-typed")
    for name, content in files.items():
        aws.put_object(Bucket="as-typed", Key=f"music/{name}", Body=content)
    bucket = run("s3://as-typed/music", tmp_path / "bucket")
    assert bucket.returncode == 0, bucket.stderr
    summary = json.loads((tmp_path / "bucket" / "summary.json").read_text())
    assert sum(summary["corpus"]["counts"].values()) == len(files)
    assert summary["model_version"] == "1"
    assert not list((tmp_path / "bucket" / "logs").glob("*.in-progress-*"))
    hub = Hub()
    hub.add("owner/music", {f"audio/{name}": content for name, content in files.items()})
    home = tmp_path / "dataset"
    with serving(hub):
        variables = environment(home, HF_ENDPOINT=hub.url)
        interrupted(
            "Fine-tune model: started",
            command("hf://datasets/owner/music", home),
            variables,
            tmp_path,
            TIMEOUT,
        )
    one, other = corpus_and_split(tmp_path / "bucket"), corpus_and_split(home)
    assert one[0] == other[0] == summary["corpus"]["fingerprint"]
    pd.testing.assert_frame_equal(one[1], other[1])
    pd.testing.assert_frame_equal(one[2], other[2])


@pytest.mark.parametrize(
    ("source", "variables", "words"),
    [
        ("s3://no-such-bucket/music", {}, "There is no bucket no-such-bucket"),
        ("s3://as-typed/music", {"AWS_ENDPOINT_URL": "closed"}, "does not answer"),
        ("s3://as-typed/music", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "credentials are refused"),
        ("hf://datasets/owner/music", {"HF_ENDPOINT": "closed"}, "does not answer"),
    ],
)
def test_what_cannot_be_reached_gives_an_error_message(
    source: str, variables: dict[str, str], words: str, aws: Any, tmp_path: Path
) -> None:
    closed = f"http://127.0.0.1:{free_port()}"
    named = {name: closed if value == "closed" else value for name, value in variables.items()}
    done = run(source, tmp_path / "home", **named)
    assert done.returncode == 1
    assert words in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("genreflow: ")
    assert "Traceback" not in done.stderr
    assert not done.stdout
