"""Publishing below a prefix of a bucket of a real S3 server, and loading back from there."""

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
from encoders import windows
from faults import Proxy
from publishing.conftest import OTHER, OWN_CODE, STOCK, metadata

import genreflow
from genreflow import publishing
from genreflow.core import home
from genreflow.core.documents import PackagedDocument
from genreflow.core.errors import GenreflowError, PublishError, RegistryError


@pytest.fixture
def bucket(aws: Any) -> str:
    name = f"models-{uuid.uuid4().hex[:12]}"
    aws.create_bucket(Bucket=name)
    return name


def objects(aws: Any, bucket: str) -> dict[str, bytes]:
    found = aws.list_objects_v2(Bucket=bucket).get("Contents", ())
    return {item["Key"]: aws.get_object(Bucket=bucket, Key=item["Key"])["Body"].read() for item in found}


def answer(model: str) -> dict[str, float]:
    classifier = genreflow.load(model)
    rate = classifier.document.input_spec.sample_rate
    return classifier.classify_samples(windows(classifier.document)[1], rate).probabilities


def forget_downloads() -> None:
    for folder in home.models_folder().glob("published-*"):
        shutil.rmtree(folder)


def refusal(version: str, to: str, public: bool = False, licence: str | None = None) -> str:
    with pytest.raises(GenreflowError) as caught:
        publishing.publish(version, to, public, licence)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_published_model_is_loaded_back_and_the_same_again_uploads_nothing(
    aws: Any, bucket: str, proxy: Proxy, versions: dict[str, Path]
) -> None:
    to = f"s3://{bucket}/models/genres"
    done = publishing.publish("champion", to)
    assert done.version == STOCK
    held = objects(aws, bucket)
    assert set(held) == {f"models/genres/{name}" for name in (*done.uploaded, "published.json")}
    puts = [line.split()[1].partition("?")[0] for line in proxy.lines("PUT")]
    assert puts[-3:] == [
        f"/{bucket}/models/genres/{name}" for name in ("README.md", "packaged.json", "published.json")
    ]
    assert answer(to) == pytest.approx(answer(str(versions[STOCK])), abs=1e-6)

    proxy.requests.clear()
    again = publishing.publish(STOCK, to + "/")
    assert (again.uploaded, again.removed) == ((), ())
    assert proxy.lines("PUT") == proxy.lines("POST") == proxy.lines("DELETE") == []
    proxy.requests.clear()
    genreflow.load(to)
    assert len(proxy.lines("GET")) == 1  # packaged.json; the rest is here


def test_another_model_takes_its_place_and_only_what_was_published_is_removed(
    aws: Any, bucket: str, versions: dict[str, Path]
) -> None:
    to = f"s3://{bucket}"
    aws.put_object(Bucket=bucket, Key="notes.txt", Body=b"mine")
    aws.put_object(Bucket=bucket, Key="model/notes.txt", Body=b"mine, too")
    publishing.publish(OWN_CODE, to)
    aws.put_object(Bucket=bucket, Key="head.py", Body=b"changed by hand")
    done = publishing.publish(OTHER, to)
    assert {"modeling_genreflow.py", "config.json"} <= set(done.removed)
    held = objects(aws, bucket)
    record = json.loads(held["published.json"])
    assert set(held) == {*record["files"], "published.json", "notes.txt", "model/notes.txt", "head.py"}
    assert answer(to) == pytest.approx(answer(str(versions[OTHER])), abs=1e-6)
    assert "transformers" not in held["README.md"].decode()


def test_the_card_has_the_licence_that_was_named_and_none_of_itself(
    aws: Any, bucket: str, versions: dict[str, Path]
) -> None:
    to = f"s3://{bucket}/genres"
    publishing.publish(OTHER, to, licence="cc-by-nc-4.0")
    assert metadata(objects(aws, bucket)["genres/README.md"].decode())["license"] == "cc-by-nc-4.0"
    assert publishing.publish(OTHER, to).uploaded == ("README.md",)
    assert "license" not in metadata(objects(aws, bucket)["genres/README.md"].decode())
    assert "no licence as hubs write it" in refusal(OTHER, to, licence="Apache 2\nbase_model: x")


def test_files_of_others_are_not_overwritten(aws: Any, bucket: str, versions: dict[str, Path]) -> None:
    aws.put_object(Bucket=bucket, Key="site/README.md", Body=b"mine")
    assert "README.md" in refusal(STOCK, f"s3://{bucket}/site")
    aws.put_object(Bucket=bucket, Key="other/published.json", Body=b"[]")
    assert "published.json" in refusal(STOCK, f"s3://{bucket}/other")
    assert objects(aws, bucket) == {"site/README.md": b"mine", "other/published.json": b"[]"}


def test_an_interrupted_publish_serves_nothing_incomplete_and_is_finished_by_the_next(
    aws: Any, bucket: str, proxy: Proxy, versions: dict[str, Path]
) -> None:
    to = f"s3://{bucket}/m"
    publishing.publish(OWN_CODE, to)
    proxy.only, proxy.down = "PUT /" + bucket + "/m/openvino/model.xml", True
    assert "does not answer" in refusal(OTHER, to)
    proxy.down = False
    forget_downloads()
    with pytest.raises(PublishError, match="not a complete model"):
        genreflow.load(to)
    publishing.publish(STOCK, to)
    record = json.loads(objects(aws, bucket)["m/published.json"])
    assert {f"m/{name}" for name in (*record["files"], "published.json")} == set(objects(aws, bucket))
    assert answer(to) == pytest.approx(answer(str(versions[STOCK])), abs=1e-6)


def test_altered_objects_and_names_that_leave_the_folder_are_refused(
    aws: Any, bucket: str, versions: dict[str, Path], tmp_path: Path
) -> None:
    publishing.publish(STOCK, f"s3://{bucket}/a")
    aws.put_object(Bucket=bucket, Key="a/model/config.json", Body=b"{}")
    forget_downloads()
    with pytest.raises(PublishError, match=r"model/config\.json was altered"):
        genreflow.load(f"s3://{bucket}/a")
    document = PackagedDocument.read(versions[STOCK])
    document.model_copy(update={"files": {"../../evil": "0" * 64}}).write(tmp_path)
    aws.upload_file(str(tmp_path / "packaged.json"), bucket, "a/packaged.json")
    with pytest.raises(PublishError, match="evil"):
        genreflow.load(f"s3://{bucket}/a")


def test_what_a_store_refuses_is_reported(
    aws: Any, bucket: str, versions: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "There is no bucket nowhere" in refusal(STOCK, "s3://nowhere/x")
    assert "names no bucket" in refusal(STOCK, "s3://")
    assert "hf://OWNER/NAME and s3://BUCKET/PREFIX" in refusal(STOCK, "ftp://x/y")
    assert "--public" in refusal(STOCK, f"s3://{bucket}/x", public=True)
    assert "'7'" in refusal("7", f"s3://{bucket}/x")
    with pytest.raises(PublishError, match="no model at"):
        genreflow.load(f"s3://{bucket}/nothing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "credentials are refused" in refusal(STOCK, f"s3://{bucket}/x")
    assert objects(aws, bucket) == {}


def test_without_a_champion_there_is_nothing_to_publish(aws: Any, bucket: str) -> None:
    with pytest.raises(RegistryError, match="registry is empty"):
        publishing.publish("champion", f"s3://{bucket}/x")
