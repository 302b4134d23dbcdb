"""Buckets as sources, on a real S3 server, behind a proxy that injects faults."""

import hashlib
import os
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from clocks import clock
from faults import Proxy, Web, serving
from servers import free_port
from sounds import genre_folder

from genreflow.core.errors import CorpusError, FetchError
from genreflow.corpus.ingest import ingest, resolve
from genreflow.corpus.settings import CorpusSettings
from genreflow.corpus.sources import open_source, shown
from genreflow.corpus.sources import s3 as s3_module

TWO = ("jazz", "rock")
PART = 5 << 20


@pytest.fixture
def bucket(aws: Any) -> str:
    name = f"music-{uuid.uuid4().hex[:12]}"
    aws.create_bucket(Bucket=name)
    return name


@pytest.fixture
def proxy(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """The proxy of all tests, and short pauses between tries."""
    monkeypatch.setattr(s3_module, "FIRST_PAUSE_SECONDS", 0.01)
    return proxy


def fill(aws: Any, bucket: str, objects: dict[str, bytes]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: aws.put_object(Bucket=bucket, Key=key, Body=objects[key]), objects))


def small(prefix: str = "", clips: int = 2) -> dict[str, bytes]:
    return {
        f"{prefix}{genre}/{clip}.wav": f"{genre} {clip} ".encode() * 500
        for genre in TWO
        for clip in range(clips)
    }


def contents(spec: str) -> dict[str, bytes]:
    source = open_source(spec, TWO)
    source.fetch()
    return {item.name: item.open().read_bytes() for item in source.items()}


def refusal(spec: str) -> str:
    with pytest.raises(CorpusError) as caught:
        open_source(spec, TWO).fetch()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def cached() -> list[Path]:
    from genreflow.core import home

    return [path for path in home.corpora_folder().glob("s3-*/*") if "partial" not in path.name]


@pytest.mark.parametrize("prefix", ["", "genres/", "data/gtzan/genres/"])
def test_a_bucket_holds_the_clips_below_its_prefix(prefix: str, aws: Any, bucket: str) -> None:
    fill(
        aws, bucket, small(prefix) | {f"{prefix}polka/a.wav": b"x", f"{prefix}README": b"x", "jazz.txt": b"x"}
    )
    place = prefix.removesuffix("genres/")
    assert contents(f"s3://{bucket}/{place}") == small()
    assert "polka" in open_source(f"s3://{bucket}/{place}", TWO).notes()[0]


def test_all_folders_above_the_genres_are_read_from_a_bucket(aws: Any, bucket: str) -> None:
    pictures = {f"clips/images/{genre}/{n}.png": b"x" for genre in ("blues", *TWO) for n in range(3)}
    fill(aws, bucket, small("clips/train/") | small("clips/test/") | pictures)
    source = open_source(f"s3://{bucket}/clips", TWO)
    assert {item.name: item.folder for item in source.items()} == {
        f"{folder}/{name}": folder for folder in ("train", "test") for name in small()
    }
    assert contents(f"s3://{bucket}/clips") == small("train/") | small("test/")
    assert source.notes()[0].startswith("Files of 2 folders were merged: test (4), train (4).")
    assert "images, without files that are named like audio" in source.notes()[1]
    aws.put_object(Bucket=bucket, Key="clips/test/metal/0.wav", Body=b"x")
    with pytest.raises(CorpusError, match="only one file of the genre metal"):
        open_source(f"s3://{bucket}/clips", (*TWO, "metal"))
    aws.put_object(Bucket=bucket, Key="clips/train/pop/0.wav", Body=b"x")
    with pytest.raises(CorpusError, match=r"in clips/test \(jazz.*in clips/train \(jazz"):
        open_source(f"s3://{bucket}", (*TWO, "metal", "pop"))


def test_a_corpus_from_a_bucket_equals_that_of_the_folder(aws: Any, bucket: str, tmp_path: Path) -> None:
    music = genre_folder(tmp_path / "music")
    files = {path.relative_to(music).as_posix(): path.read_bytes() for path in music.rglob("*.wav")}
    fill(aws, bucket, files)
    settings = CorpusSettings(genres=TWO)
    made = [
        ingest(spec, resolve(spec, TWO), settings, tmp_path / f"corpus{number}").fingerprint
        for number, spec in enumerate((str(music), f"s3://{bucket}"))
    ]
    assert made[0] == made[1]


def test_listing_fetches_nothing_and_sees_a_changed_object(aws: Any, bucket: str) -> None:
    fill(aws, bucket, small())
    before = resolve(f"s3://{bucket}", TWO)
    assert resolve(f"s3://{bucket}/", TWO) == before
    assert not cached()
    aws.put_object(Bucket=bucket, Key="jazz/0.wav", Body=small()["jazz/1.wav"])
    assert resolve(f"s3://{bucket}", TWO) != before


def test_a_bucket_of_more_than_a_page_is_listed_whole(aws: Any, bucket: str) -> None:
    fill(aws, bucket, {f"{TWO[clip % 2]}/{clip}.wav": b"x" for clip in range(1003)})
    assert len(list(open_source(f"s3://{bucket}", TWO).items())) == 1003


def test_odd_keys_are_clips_like_any(aws: Any, bucket: str) -> None:
    odd = {
        f"jazz/{name}": name.encode()
        for name in ("a\nb.wav", "🎷.wav", "l\u202ea.wav", "x" * 251 + ".wav", "a+b %20.wav")
    }
    fill(aws, bucket, small() | odd)
    here = contents(f"s3://{bucket}")
    assert {shown(key): content for key, content in odd.items()}.items() <= here.items()


def test_what_is_here_is_not_fetched_again_and_what_was_altered_is(
    aws: Any, bucket: str, proxy: Proxy
) -> None:
    fill(aws, bucket, small())
    assert contents(f"s3://{bucket}") == small()
    proxy.requests.clear()
    assert contents(f"s3://{bucket}") == small()
    assert [line for line in proxy.lines() if ".wav" in line] == []
    damaged = cached()[0]
    damaged.write_bytes(bytes(damaged.stat().st_size))
    assert contents(f"s3://{bucket}") == small()
    assert len([line for line in proxy.lines() if ".wav" in line]) == 1


def test_one_clip_is_fetched_alone_where_only_one_is_opened(aws: Any, bucket: str, proxy: Proxy) -> None:
    fill(aws, bucket, small())
    next(open_source(f"s3://{bucket}", TWO).items()).open()
    assert len([line for line in proxy.lines() if ".wav" in line]) == 1


def test_a_multipart_upload_is_checked_by_its_parts(aws: Any, bucket: str, proxy: Proxy) -> None:
    big = bytes(range(256)) * (PART // 256) + b"the last part"
    fill(aws, bucket, small())
    upload = aws.create_multipart_upload(Bucket=bucket, Key="jazz/big.wav")["UploadId"]
    about = {"Bucket": bucket, "Key": "jazz/big.wav", "UploadId": upload}
    parts = [
        {
            "PartNumber": n + 1,
            "ETag": aws.upload_part(**about, PartNumber=n + 1, Body=big[n * PART : (n + 1) * PART])["ETag"],
        }
        for n in range(2)
    ]
    aws.complete_multipart_upload(**about, MultipartUpload={"Parts": parts})
    assert contents(f"s3://{bucket}")["jazz/big.wav"] == big
    (whole,) = [path for path in cached() if path.stat().st_size == len(big)]
    partial = leave_behind(whole, bytes(1000))
    assert contents(f"s3://{bucket}")["jazz/big.wav"] == big
    assert not partial.exists()
    ranges = [head for head in proxy.requests if "range: bytes=1000-" in head.lower()]
    assert len(ranges) == 1


def leave_behind(whole: Path, content: bytes) -> Path:
    """What a process that was killed leaves of a file."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    whole.unlink()
    partial = whole.with_name(f"{whole.name}.partial-{gone.pid}")
    partial.write_bytes(content)
    return partial


def test_a_killed_fetch_is_resumed(aws: Any, bucket: str, proxy: Proxy) -> None:
    fill(aws, bucket, small())
    assert contents(f"s3://{bucket}") == small()
    leave_behind(cached()[0], cached()[0].read_bytes()[:700])
    proxy.requests.clear()
    assert contents(f"s3://{bucket}") == small()
    (asked,) = [head for head in proxy.requests if ".wav" in head.splitlines()[0]]
    assert "range: bytes=700-" in asked.lower()


@pytest.mark.parametrize("offset", ["-1h", "+1d"])
def test_a_clock_that_is_set_wrong_is_reported_as_such(offset: str, aws: Any, bucket: str) -> None:
    fill(aws, bucket, small())
    code = "import sys; from genreflow import steps; steps.resolve(sys.argv[1], {}, 'mfcc_cnn', {})"
    command = [sys.executable, "-c", code, f"s3://{bucket}"]
    done = subprocess.run(
        command, env=os.environ | clock(offset), capture_output=True, text=True, check=False
    )
    sentence = done.stderr.strip().splitlines()[-1]
    assert "the clock here (" in sentence
    assert sentence.endswith(
        "and the store's differ by too much (RequestTimeTooSkewed). Set it right, and run again."
    )


def test_connections_that_are_reset_are_resumed(aws: Any, bucket: str, proxy: Proxy) -> None:
    big = {"jazz/0.wav": bytes(range(256)) * 4096, "jazz/1.wav": b"1", "rock/0.wav": b"2", "rock/1.wav": b"3"}
    fill(aws, bucket, big)
    proxy.only, proxy.resets, proxy.reset_after = "jazz/0.wav", 3, 300_000
    assert contents(f"s3://{bucket}") == big
    assert proxy.resets == 0
    assert len([head for head in proxy.requests if "range: bytes=" in head.lower()]) == 3


def test_a_connection_that_is_always_reset_ends_with_an_error_message(
    aws: Any, bucket: str, proxy: Proxy
) -> None:
    fill(aws, bucket, small())
    proxy.only, proxy.resets, proxy.reset_after = "rock/1.wav", 1000, 10
    message = refusal(f"s3://{bucket}")
    assert "rock/1.wav could not be fetched" in message or "does not answer" in message


def test_a_server_that_sends_without_end_is_left(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "FIRST_PAUSE_SECONDS", 0.01)
    content = b"jazz" * 500
    names = [f"{genre}/{clip}.wav" for genre in TWO for clip in range(2)]
    listed = "".join(
        f"<Contents><Key>{name}</Key><Size>2000</Size><ETag>{hashlib.md5(content).hexdigest()}</ETag>"
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for name in names
    )
    paths = {f"/bucket/{name}": content for name in names}
    web = Web(
        {"/bucket": f"<ListBucketResult>{listed}</ListBucketResult>".encode()} | paths, endless={*paths}
    )
    with serving(web):
        monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
        assert "more came than was listed" in refusal("s3://bucket")
    assert not cached()


def test_a_throttling_server_is_waited_for_and_then_reported(aws: Any, bucket: str, proxy: Proxy) -> None:
    fill(aws, bucket, small())
    proxy.only, proxy.busy = ".wav", 1
    assert contents(f"s3://{bucket}") == small()
    proxy.only, proxy.busy = "list-type", 1000
    assert "limits the request rate (SlowDown)" in refusal(f"s3://{bucket}")


def test_a_slow_server_is_waited_for(aws: Any, bucket: str, proxy: Proxy) -> None:
    fill(aws, bucket, small())
    proxy.bytes_per_second = 20_000
    assert contents(f"s3://{bucket}") == small()


def test_an_object_that_was_replaced_since_it_was_listed_is_reported(aws: Any, bucket: str) -> None:
    fill(aws, bucket, small())
    source = open_source(f"s3://{bucket}", TWO)
    aws.put_object(Bucket=bucket, Key="jazz/0.wav", Body=b"other")
    with pytest.raises(FetchError, match=r"changed since it was listed .*jazz/0.wav.* Run again"):
        source.fetch()


def test_an_object_that_is_deleted_since_it_was_listed_is_reported(aws: Any, bucket: str) -> None:
    fill(aws, bucket, small())
    source = open_source(f"s3://{bucket}", TWO)
    aws.delete_object(Bucket=bucket, Key="jazz/0.wav")
    with pytest.raises(FetchError, match="changed since it was listed"):
        source.fetch()


def test_an_object_that_is_replaced_in_the_middle_of_its_download_is_reported(
    aws: Any, bucket: str, proxy: Proxy
) -> None:
    fill(aws, bucket, small() | {"jazz/0.wav": bytes(1 << 20)})
    source = open_source(f"s3://{bucket}", TWO)
    proxy.only, proxy.resets, proxy.reset_after = "jazz/0.wav", 1, 300_000
    proxy.on_reset = lambda: aws.put_object(Bucket=bucket, Key="jazz/0.wav", Body=b"1" * (1 << 20))
    with pytest.raises(FetchError, match="changed since it was listed"):
        source.fetch()
    assert not [path for path in cached() if path.stat().st_size == 1 << 20]


def test_a_wrong_key_a_missing_bucket_and_an_empty_prefix_are_reported(
    aws: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "There is no bucket no-such-bucket at http://" in refusal("s3://no-such-bucket/music")
    assert "holds no objects" in refusal(f"s3://{bucket}/nothing")
    assert "s3://BUCKET/PREFIX" in refusal("s3://")
    fill(aws, bucket, {"polka/1.wav": b"x"})
    assert "No genre in" in refusal(f"s3://{bucket}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "the credentials are refused (SignatureDoesNotMatch)" in refusal(f"s3://{bucket}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert "the credentials are refused (InvalidAccessKeyId)" in refusal(f"s3://{bucket}")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "AWS_PROFILE" in refusal(f"s3://{bucket}")


def test_a_server_that_is_down_is_reported(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert "does not answer" in refusal("s3://music")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    assert "cannot be opened" in refusal("s3://music")
