"""Checkpoints: in an object store, damaged, on a full disk; training ends where an undisturbed one does."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disks import little_room
from faults import Proxy
from safetensors.numpy import load_file
from servers import free_port, stored_keys

from genreflow import steps
from genreflow.core import home
from genreflow.core.documents import ModelDocument
from genreflow.core.errors import ObjectStoreError
from genreflow.registry.store import connect
from genreflow.training.checkpoint_digests import seal, verify_checkpoint
from genreflow.training.mirror import CheckpointMirror
from pipelines import cli
from tests.training.test_training import FAST, KILLED, features, fine_tune

GRACE_SECONDS = 30
"""Between SIGTERM and SIGKILL, where a pod says nothing else."""
SETTINGS = {**FAST, "epochs": 5, "probe_epochs": 1, "mixup": 0.2, "checkpoint_seconds": 0, "threads": 1}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return features(tmp_path_factory.mktemp("features"), noise=4.0)


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a run to which nothing happened."""
    folder = tmp_path_factory.mktemp("undisturbed")
    fine_tune(source, folder / "model", {**SETTINGS, "checkpoint_uri": str(folder / "checkpoints")})
    return folder / "model"


def same(model: Path, other: Path) -> None:
    """The same figures and the same weights."""
    a, b = (ModelDocument.read(folder) for folder in (model, other))
    for fact in ("best_epoch", "epochs_run", "validation"):
        assert a.training[fact] == b.training[fact], fact
    assert a.temperature == b.temperature
    weights, others = (load_file(str(folder / "model.safetensors")) for folder in (model, other))
    assert all(np.array_equal(weights[name], others[name]) for name in others)


def interrupted(source: Path, settings: dict[str, Any], epoch: int = 4) -> None:
    """A run that ends in the middle, after the checkpoint of the epoch before."""

    def on_log(_: int, metrics: dict[str, float]) -> None:
        if "eval_loss" in metrics and round(metrics["epoch"]) == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(source, home.home() / "never", settings, on_log=on_log)


def newest() -> list[Path]:
    """The checkpoints on this machine, the newest first."""
    found = home.checkpoints_folder().glob("*/tune/checkpoint-*")
    return sorted(found, key=lambda path: -int(path.name.rpartition("-")[2]))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def test_a_killed_run_resumes_on_another_machine_from_the_object_store(
    source: Path, undisturbed: Path, address: str, aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**SETTINGS, "checkpoint_uri": address}
    arguments = [str(source), str(tmp_path / "killed"), json.dumps(settings)]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "epoch 4\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    monkeypatch.setenv("GENREFLOW_HOME", str(tmp_path / "another machine"))
    resumed = fine_tune(source, tmp_path / "resumed", settings)
    assert resumed.training["resumed_from_step"] == 3 + 9  # the probe's steps, and three epochs
    assert resumed.training["notes"] == []
    same(tmp_path / "resumed", undisturbed)
    assert stored_keys(aws, address) == []


TERMINATED = """
import json, sys, time
from pathlib import Path
from genreflow import steps
from genreflow.training import callback
report = callback.ProgressCallback.on_log
def on_log(self, args, state, *others, **named):
    report(self, args, state, *others, **named)
    if self.phase == "tune" and state.global_step == 4:
        print("step 4", flush=True)
        while not self.termination.requested:
            time.sleep(0.05)
callback.ProgressCallback.on_log = on_log
source = Path(sys.argv[1])
steps.fine_tune(source, source.with_name(source.name + "-split"), Path(sys.argv[2]), "mfcc_cnn", {},
    json.loads(sys.argv[3]))
"""


def test_sigterm_ends_training_with_a_checkpoint_from_which_the_next_attempt_resumes_in_the_same_mlflow_run(
    source: Path, undisturbed: Path, address: str, aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # no checkpoint is due: what there is was written for the signal
    settings = {**SETTINGS, "checkpoint_seconds": 3600, "checkpoint_uri": address}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    arguments = [str(source), str(tmp_path / "model"), json.dumps(settings)]
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINATED, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "step 4\n"
    process.terminate()
    assert process.wait(timeout=GRACE_SECONDS) == 128 + signal.SIGTERM
    (pointer,) = [key for key in stored_keys(aws, address) if key.endswith("last.json")]
    named = json.loads(aws.get_object(Bucket=address.split("/")[2], Key=pointer)["Body"].read())
    # within the second epoch of three steps
    assert list(named["checkpoints"]) == ["probed", "tune/checkpoint-5"]
    (left,) = connect().search_runs(["1"])
    assert left.info.status == "RUNNING"

    monkeypatch.setenv("GENREFLOW_HOME", str(tmp_path / "another machine"))
    split = source.with_name(f"{source.name}-split")
    resumed = steps.fine_tune(source, split, tmp_path / "model", "mfcc_cnn", {}, settings)
    assert resumed.training["resumed_from_step"] == 3 + 5
    assert resumed.run_id == left.info.run_id
    assert connect().get_run(left.info.run_id).info.status == "FINISHED"
    same(tmp_path / "model", undisturbed)


def test_a_long_epoch_is_saved_in_its_middle_and_resumes_from_there(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "checkpoint_seconds": 1e-6}

    def on_log(step: int, metrics: dict[str, float]) -> None:
        if step == 3 + 8 and "loss" in metrics:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(source, home.home() / "never", settings, on_log=on_log)
    assert [path.name for path in newest()] == ["checkpoint-7", "checkpoint-6"]
    resumed = fine_tune(source, tmp_path / "m", settings)
    assert resumed.training["resumed_from_step"] == 3 + 7
    same(tmp_path / "m", undisturbed)


@pytest.mark.parametrize("harm", [flip, truncate, Path.unlink])
def test_a_file_that_is_not_what_was_written_is_noticed(harm: Callable[[Path], None], tmp_path: Path) -> None:
    for name in ("model.safetensors", "optimizer.pt"):
        (tmp_path / name).write_bytes(bytes(1000))
    assert verify_checkpoint(tmp_path) == "was not written to its end"
    seal(tmp_path)
    assert verify_checkpoint(tmp_path) is None
    harm(tmp_path / "optimizer.pt")
    assert "is damaged: optimizer.pt" in str(verify_checkpoint(tmp_path))


def test_for_a_damaged_checkpoint_the_one_before_is_taken(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    interrupted(source, SETTINGS)
    last, before = newest()
    flip(last / "optimizer.pt")
    resumed = fine_tune(source, tmp_path / "m", SETTINGS)
    assert resumed.training["resumed_from_step"] == 3 + 6
    (note,) = resumed.training["notes"]
    assert f"{last} is damaged: optimizer.pt" in note
    assert note.endswith(f"tune goes on from {before.name}.")
    same(tmp_path / "m", undisturbed)


def test_where_all_checkpoints_are_damaged_training_begins_again(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    interrupted(source, SETTINGS)
    (probed,) = home.checkpoints_folder().glob("*/probed")
    for path in (*(folder / "best.safetensors" for folder in newest()), probed / "probe.safetensors"):
        flip(path)
    resumed = fine_tune(source, tmp_path / "m", SETTINGS)
    notes = resumed.training["notes"]
    assert [note.rpartition(": ")[2] for note in notes] == ["probed begins again.", "tune begins again."]
    same(tmp_path / "m", undisturbed)


def test_for_an_altered_and_a_missing_object_the_checkpoint_before_is_taken(
    source: Path,
    undisturbed: Path,
    address: str,
    aws: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {**SETTINGS, "checkpoint_uri": address}
    interrupted(source, settings, epoch=5)
    monkeypatch.setenv("GENREFLOW_HOME", str(tmp_path / "another machine"))
    bucket = address.split("/")[2]
    (pointer,) = [key for key in stored_keys(aws, address) if key.endswith("last.json")]
    named = json.loads(aws.get_object(Bucket=bucket, Key=pointer)["Body"].read())["checkpoints"]
    assert list(named) == ["probed", "tune/checkpoint-9", "tune/checkpoint-12"]
    harmed = pointer.replace("last.json", f"files/{named['tune/checkpoint-12']['model.safetensors']}")
    aws.put_object(Bucket=bucket, Key=harmed, Body=b"something else")
    gone = pointer.replace("last.json", f"files/{named['probed']['probe.safetensors']}")
    aws.delete_object(Bucket=bucket, Key=gone)
    resumed = fine_tune(source, tmp_path / "m", settings)
    first, second = resumed.training["notes"]
    assert "probed is damaged: probe.safetensors is missing. Skipped: probed begins again." in first
    assert "tune/checkpoint-12 is damaged: model.safetensors is not what was written" in second
    assert second.endswith("tune goes on from checkpoint-9.")
    same(tmp_path / "m", undisturbed)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"busy": 1000}, "limits the request rate"),
        ({"down": True}, "does not answer"),
        ({"resets": 1000, "reset_after": 0}, "does not answer"),
    ],
)
def test_training_continues_while_the_object_store_is_down_and_tries_the_next_checkpoint(
    fault: dict[str, Any],
    sentence: str,
    source: Path,
    undisturbed: Path,
    address: str,
    aws: Any,
    proxy: Proxy,
    tmp_path: Path,
) -> None:
    stored: list[bool] = []

    def on_log(_: int, metrics: dict[str, float]) -> None:
        if "eval_loss" in metrics:
            stored.append(any(key.endswith("last.json") for key in stored_keys(aws, address)))
            for name, value in fault.items():
                setattr(proxy, name, value if round(metrics["epoch"]) <= 2 else 0)

    settings = {**SETTINGS, "probe_epochs": 0, "checkpoint_uri": address}
    document = fine_tune(source, tmp_path / "m", settings, on_log=on_log)
    first, second = document.training["notes"]
    assert first.startswith("tune/checkpoint-3 is not stored: ")
    assert sentence in first
    assert second.startswith("tune/checkpoint-6 is not stored: ")
    assert stored == [False, False, False, True, True]
    assert document.training["epochs_run"] == 5


def test_an_object_store_that_refuses_from_the_middle_of_training_on_costs_no_model(
    source: Path, undisturbed: Path, address: str, aws: Any, proxy: Proxy, tmp_path: Path
) -> None:
    def on_log(_: int, metrics: dict[str, float]) -> None:
        proxy.down = proxy.down or round(metrics.get("epoch", 0)) >= 3

    document = fine_tune(source, tmp_path / "m", {**SETTINGS, "checkpoint_uri": address}, on_log=on_log)
    notes = document.training["notes"]
    assert [note.rpartition(": s3://")[0] for note in notes] == [
        f"tune/checkpoint-{step} is not stored" for step in (9, 12, 15)
    ] + [f"Checkpoints stay in {address}, where they are no longer needed"]
    same(tmp_path / "m", undisturbed)
    assert stored_keys(aws, address)  # what was there could not be deleted, and a later run may take it


def test_what_is_damaged_in_the_store_is_stored_again(address: str, aws: Any, tmp_path: Path) -> None:
    folder = tmp_path / "tune/checkpoint-1"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(1000))
    seal(folder)
    assert CheckpointMirror(address, "key").push(tmp_path, "tune/checkpoint-1") is None
    (file,) = [key for key in stored_keys(aws, address) if "/files/" in key]
    aws.put_object(Bucket=address.split("/")[2], Key=file, Body=b"other")
    mirror = CheckpointMirror(address, "key")
    assert "is damaged: model.safetensors" in str(mirror.fetch("tune/checkpoint-1", tmp_path / "here"))
    assert not (tmp_path / "here").exists()
    assert mirror.push(tmp_path, "tune/checkpoint-1") is None
    assert CheckpointMirror(address, "key").fetch("tune/checkpoint-1", tmp_path / "here") is None


def test_a_checkpoint_is_not_taken_before_it_is_stored_to_its_end(
    address: str, aws: Any, proxy: Proxy, tmp_path: Path
) -> None:
    for step in (1, 2):
        folder = tmp_path / f"tune/checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes([step]) * 1000)
        (folder / "same").write_bytes(b"same")
        seal(folder)
    mirror = CheckpointMirror(address, "key")
    assert mirror.push(tmp_path, "tune/checkpoint-1") is None
    proxy.only, proxy.busy = "last.json", 1000
    assert "limits the request rate" in str(mirror.push(tmp_path, "tune/checkpoint-2"))
    assert (
        len(stored_keys(aws, address)) == 4
    )  # three files and the pointer, which names the first checkpoint alone
    proxy.busy = 0
    assert list(CheckpointMirror(address, "key").checkpoints) == ["tune/checkpoint-1"]
    assert mirror.push(tmp_path, "tune/checkpoint-2") is None
    other = CheckpointMirror(address, "key")
    assert list(other.checkpoints) == ["tune/checkpoint-1", "tune/checkpoint-2"]
    assert other.fetch("tune/checkpoint-2", tmp_path / "here") is None
    assert (tmp_path / "here" / "model.safetensors").read_bytes() == b"\2" * 1000
    assert len([line for line in proxy.lines("PUT") if "/files/" in line]) == 3  # what is the same, once


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"checkpoints": {"../../away": {}}}',
        b'{"checkpoints": {"tune/checkpoint-1": {"../a": "%s"}}}' % (b"0" * 64),
    ],
)
def test_a_pointer_with_forbidden_names_is_ignored(content: bytes, address: str, aws: Any) -> None:
    aws.put_object(Bucket=address.split("/")[2], Key="runs/key/last.json", Body=content)
    assert CheckpointMirror(address, "key").checkpoints == {}


def test_a_store_that_cannot_be_used_is_reported_at_once(
    source: Path, address: str, aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(uri: str) -> str:
        with pytest.raises(ObjectStoreError) as caught:
            fine_tune(source, tmp_path / "m", {**SETTINGS, "checkpoint_uri": uri})
        return str(caught.value)

    assert "There is no bucket no-such-bucket at http://" in refusal("s3://no-such-bucket/runs")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "cannot be written to: the credentials are refused (SignatureDoesNotMatch)" in refusal(address)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "AWS_PROFILE" in refusal(address)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "genreflow")
    assert "does not answer" in refusal(address)


def test_the_command_line_refuses_a_missing_bucket_before_the_pipeline_starts(
    aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(uri: str) -> str:
        command = ["genreflow", "run", "--source", "synthetic", "--checkpoint-uri", uri]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1
        return capfd.readouterr().err

    assert refused("s3://no-such-bucket/runs").startswith("genreflow: There is no bucket no-such-bucket at ")
    assert "training.checkpoint_uri" in refused("ftp://somewhere")
    assert not (tmp_path / "home" / "pipelines").exists()


def test_a_clock_that_is_set_back_loses_no_checkpoint(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    def on_log(_: int, metrics: dict[str, float]) -> None:
        if "eval_loss" in metrics and round(metrics["epoch"]) == 3:
            for path in (file for folder in newest() for file in (folder, *folder.iterdir())):
                os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 3600))
        if "eval_loss" in metrics and round(metrics["epoch"]) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(source, tmp_path / "never", SETTINGS, on_log=on_log)
    assert [path.name for path in newest()] == ["checkpoint-12", "checkpoint-9"]
    resumed = fine_tune(source, tmp_path / "m", SETTINGS)
    assert resumed.training["resumed_from_step"] == 3 + 12
    assert resumed.training["notes"] == []
    same(tmp_path / "m", undisturbed)


def test_a_checkpoint_that_does_not_fit_on_the_disk_does_not_stop_training(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    # the optimiser's state is twice as large as the model
    with little_room((undisturbed / "model.safetensors").stat().st_size * 3 // 2):
        document = fine_tune(source, tmp_path / "m", SETTINGS)
    notes = document.training["notes"]
    assert any("checkpoint-15 could not be written" in note for note in notes)
    assert newest() == []
    same(tmp_path / "m", undisturbed)
