"""`genreflow run` as typed, on a bucket and on a data set of a hub."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faults import Hub, serving
from servers import free_port
from sounds import tone, write

GENRES = ["jazz", "rock"]
TIMEOUT = 900  # seconds

pytestmark = pytest.mark.timeout(3 * TIMEOUT)


def clips(folder: Path) -> dict[str, bytes]:
    """Names and contents of six tones a genre."""
    for number, genre in enumerate(GENRES):
        for clip in range(6):
            write(folder / genre / f"{clip}.wav", tone(seconds=3.2, pitch=220.0 * 2**number + clip))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.wav"))}


def run(source: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = ["run", "--source", source, "--family", "mfcc_cnn", "--summary", str(home / "summary.json")]
    command += ["--set", f"corpus.genres={json.dumps(GENRES)}", "--set", "training.epochs=2"]
    command += ["--set", "training.device=cpu", "--set", "gate.min_accuracy=0"]
    home.mkdir()
    environment = {**os.environ, "GENREFLOW_HOME": str(home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0"}
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *command],
        env=environment | {"HF_HOME": str(home / "hub")} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        cwd=home,
    )


def test_a_bucket_and_a_hub_with_the_same_clips_give_the_same_corpus_and_metrics(
    aws: Any, tmp_path: Path
) -> None:
    files = clips(tmp_path / "clips")
    aws.create_bucket(Bucket="as-typed")
    for name, content in files.items():
        aws.put_object(Bucket="as-typed", Key=f"music/{name}", Body=content)
    bucket = run("s3://as-typed/music", tmp_path / "bucket")
    assert bucket.returncode == 0, bucket.stderr
    hub = Hub()
    hub.add("owner/music", {f"audio/{name}": content for name, content in files.items()})
    with serving(hub):
        dataset = run("hf://datasets/owner/music", tmp_path / "dataset", HF_ENDPOINT=hub.url)
    assert dataset.returncode == 0, dataset.stderr
    one, other = (
        json.loads((tmp_path / home / "summary.json").read_text()) for home in ("bucket", "dataset")
    )
    assert one["corpus"]["fingerprint"] == other["corpus"]["fingerprint"]
    assert sum(one["corpus"]["counts"].values()) == len(files)
    assert one["metrics"] == other["metrics"]
    assert not list((tmp_path / "bucket" / "logs").glob("*.in-progress-*"))
    assert one["model_version"] == other["model_version"] == "1"


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
