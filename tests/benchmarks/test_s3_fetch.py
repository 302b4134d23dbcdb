"""How fast a bucket is fetched, against boto3's own transfer manager with the parallelism of `aws s3 cp`."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig

from genreflow.corpus.sources import open_source

pytestmark = pytest.mark.bench

CLIPS = 100
CLIP_BYTES = 1_323_632
"""A clip of GTZAN."""
AT_ONCE = 10
"""`max_concurrent_requests` of the AWS command line, whose `cp --recursive` is this transfer manager."""
SLOWER = 1.15
"""Times as long as the transfer manager that would be a failure: the spread of runs on a busy machine."""


def test_a_bucket_is_fetched_no_slower_than_by_the_transfer_manager(
    aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.create_bucket(Bucket="music")
    keys = [f"{genre}/{clip}.wav" for genre in ("jazz", "rock") for clip in range(CLIPS // 2)]
    with ThreadPoolExecutor(8) as pool:
        body = bytes(range(256)) * (CLIP_BYTES // 256)
        list(pool.map(lambda key: aws.put_object(Bucket="music", Key=key, Body=key.encode() + body), keys))
    ours, theirs = [], []
    for run in range(5):
        monkeypatch.setenv("GENREFLOW_HOME", str(tmp_path / f"home{run}"))
        began = time.perf_counter()
        open_source("s3://music", ("jazz", "rock")).fetch()
        ours.append(time.perf_counter() - began)
        theirs.append(_transfer_manager(tmp_path / f"theirs{run}"))
        for folder in (tmp_path / f"home{run}", tmp_path / f"theirs{run}"):
            shutil.rmtree(folder)  # half a run's data is not written to disk before it is gone
    mb = CLIPS * CLIP_BYTES / 1e6
    ratio = median(ours) / median(theirs)
    print(
        f"\n{CLIPS} clips of {CLIP_BYTES / 1e6:.1f} MB: genreflow {mb / median(ours):.0f} MB/s "
        f"({', '.join(f'{each:.1f}' for each in ours)} s), transfer manager {mb / median(theirs):.0f} MB/s "
        f"({', '.join(f'{each:.1f}' for each in theirs)} s); ratio of the medians {ratio:.2f}"
    )
    assert ratio < SLOWER


def _transfer_manager(folder: Path) -> float:
    """Seconds to make a client, list the bucket and fetch every object; nothing is checked."""
    config = TransferConfig(max_concurrency=AT_ONCE)
    began = time.perf_counter()
    aws = boto3.Session().client("s3")
    pages = aws.get_paginator("list_objects_v2").paginate(Bucket="music")
    keys = [entry["Key"] for page in pages for entry in page["Contents"]]

    def fetch(key: str) -> None:
        target = folder / key
        target.parent.mkdir(parents=True, exist_ok=True)
        aws.download_file("music", key, str(target), Config=config)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(fetch, keys))
    return time.perf_counter() - began
