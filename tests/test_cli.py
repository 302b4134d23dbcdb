"""The command line as a person meets it: in processes of its own, by exit status, stdout and stderr."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from candidates import write_packaged
from sounds import tone, write

from genreflow.core.version import VERSION
from genreflow.registry import store
from pipelines import checks, cli

TIMEOUT = 300  # seconds
Capture = pytest.CaptureFixture[str]
Refused = Callable[..., str]


def genreflow(*arguments: str, stdin: IO[bytes] | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        stdin=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> Refused:
    """Run the command line's `main`, which has to refuse: the one sentence it says."""

    def sentence(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["genreflow", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capfd.readouterr()
        assert ended.value.code == 1
        assert said.out == ""
        (line,) = said.err.strip().splitlines()
        assert line.startswith("genreflow: ")
        return line

    return sentence


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two genres of two clips each."""
    for genre, pitch in (("blues", 220.0), ("rock", 440.0)):
        for number in range(2):
            write(tmp_path / "clips" / genre / f"{number}.wav", tone(pitch=pitch + number))
    return tmp_path / "clips"


def test_help_names_every_command_and_comes_at_once() -> None:
    began = time.process_time()
    done = genreflow("--help")
    assert done.returncode == 0
    for command in ("run", "compile", "submit", "models", "promote", "rollback", "classify", "doctor"):
        assert re.search(rf"^ +{command} ", done.stdout, re.MULTILINE), command
    assert time.process_time() - began < 1


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nimport pipelines.cli\n"
        "heavy = {'kfp', 'torch', 'mlflow', 'pandas', 'numpy', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_the_packages() -> None:
    assert genreflow("--version").stdout == f"genreflow {VERSION}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--source", "no-such-folder"), "There is no folder"),
        (("--source", "empty"), "is empty"),
        (("--source", "photos"), "No genre in"),
        (("--source", "lonely"), "only one file of the genre"),
        (("--source", "ftp://somewhere"), "no kind of source"),
        (("--set", "training.epoch=3"), "did you mean training.epochs?"),
        (("--set", "training.epochs=few"), "Setting training.epochs"),
        (("--set", "resources.batch=0"), "Setting resources.batch"),
        (("--profile", "quick"), "did you mean quickstart?"),
        (("--family", "resnet"), "There is no family"),
        (("--summary", "no-such-folder/summary.json"), "no folder"),
    ],
)  # fmt: skip
def test_invalid_runs_are_rejected_before_the_pipeline_starts(
    arguments: tuple[str, str],
    expected: str,
    refused: Refused,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "photos" / "holidays" / "1.wav", tone())
    for genre in ("blues", "rock"):
        write(tmp_path / "lonely" / genre / "1.wav", tone())
    more = ("--set", "corpus.genres=[blues, rock]") if "lonely" in arguments else ()
    assert expected in refused("run", *arguments, *more)
    assert not (tmp_path / "home" / "pipelines").exists()


def test_a_folder_that_is_no_backbone_is_refused_at_once(clips: Path, refused: Refused) -> None:
    genres = ("--set", "corpus.genres=[blues, rock]")
    sentence = refused("run", "--source", str(clips), *genres, "--backbone", str(clips))
    assert str(clips) in sentence
    missing = refused("run", "--source", str(clips), *genres, "--backbone", "./no-such-weights")
    assert "no-such-weights" in missing


def test_a_tracking_server_that_does_not_answer_is_reported_before_the_pipeline_starts(
    monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    assert "does not answer" in refused("run", "--source", "synthetic")


def test_a_port_in_use_is_reported(refused: Refused) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "--port" in refused("ui", "--port", str(taken.getsockname()[1]))


def test_files_that_are_not_there_are_reported_before_a_model_is_loaded(
    tmp_path: Path, refused: Refused
) -> None:
    assert "There is no file" in refused("classify", str(tmp_path / "song.mp3"))
    assert "is a folder" in refused("timeline", str(tmp_path))


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "packaged"
    write_packaged(folder, 0, {})
    return folder


def test_a_glob_classifies_the_files_and_reports_the_folders(packaged: Path, tmp_path: Path) -> None:
    for name in ("a.wav", "z.wav", "live/c.wav"):
        write(tmp_path / "music" / name, tone())
    named = sorted(str(path) for path in (tmp_path / "music").iterdir())
    done = genreflow("classify", *named, "--model", str(packaged), "--json")
    assert done.returncode == 1
    assert (
        done.stderr == f"genreflow: {tmp_path / 'music' / 'live'} is a folder; name the audio files in it.\n"
    )
    assert [Path(answer["file"]).name for answer in json.loads(done.stdout)] == ["a.wav", "z.wav"]


def test_a_command_with_folders_only_is_reported_before_a_model_is_loaded(
    tmp_path: Path, refused: Refused
) -> None:
    assert "is a folder" in refused("classify", str(tmp_path), "--model", "no-such-model")


def test_standard_input_is_classified_as_the_file_is(packaged: Path, tmp_path: Path) -> None:
    song = write(tmp_path / "song.flac", tone())
    for command in ("classify", "timeline"):
        with song.open("rb") as content:
            piped = genreflow(command, "-", "--model", str(packaged), "--json", stdin=content)
        named = genreflow(command, str(song), "--model", str(packaged), "--json")
        assert (piped.returncode, piped.stderr) == (0, "")
        found, expected = json.loads(piped.stdout), json.loads(named.stdout)
        first, wanted = (found[0], expected[0]) if command == "classify" else (found, expected)
        assert first.pop("file") == "-"
        assert wanted.pop("file") == str(song)
        assert first == wanted


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a letter, not a song\n" * 9, "Standard input is text"), (b"", "Standard input is")],
)
def test_standard_input_that_is_no_audio_is_reported_and_the_rest_classified(
    content: bytes, said: str, packaged: Path, tmp_path: Path
) -> None:
    song = write(tmp_path / "song.wav", tone())
    (tmp_path / "content").write_bytes(content)
    with (tmp_path / "content").open("rb") as given:
        done = genreflow("classify", "-", str(song), "--model", str(packaged), stdin=given)
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"genreflow: {said}")
    assert done.stdout.startswith(f"{song}: ")


def test_standard_input_must_be_open_and_named_once(packaged: Path, refused: Refused) -> None:
    assert "name - once" in refused("classify", "-", "-")
    line = f"{sys.executable} -m pipelines.cli classify - --model {packaged} <&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "genreflow: Standard input is closed; name a file instead of -.\n"


def test_an_empty_registry_is_no_error_to_list_and_one_to_promote_in(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    for arguments, said in ((["models"], "no versions yet"), (["models", "--json"], "[]")):
        monkeypatch.setattr(sys, "argv", ["genreflow", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        assert said in capfd.readouterr().out
    assert "registry is empty" in refused("promote", "1")
    song = write(tmp_path / "song.wav", tone())
    assert "registry is empty" in refused("classify", str(song))


def test_a_refusal_in_a_process_of_its_own_is_one_line_and_no_traceback() -> None:
    done = genreflow("run", "--set", "training.epoch=3")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "genreflow: There is no setting training.epoch; did you mean training.epochs?\n"


def test_an_unknown_option_is_a_usage_error() -> None:
    done = genreflow("run", "--profil", "quickstart")
    assert done.returncode == 2
    assert "--profil" in done.stderr
    assert "Traceback" not in done.stderr


def test_synthesised_clips_are_audio_in_genre_folders(tmp_path: Path, refused: Refused) -> None:
    done = genreflow("data", "synthesize", str(tmp_path / "music"), "--clips", "1", "--seconds", "2")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "music").rglob("*.wav"))) == 10
    assert "not an empty folder" in refused("data", "synthesize", str(tmp_path / "music"))


def test_a_compiled_pipeline_is_written_to_the_given_file(tmp_path: Path, refused: Refused) -> None:
    done = genreflow("compile", "-o", str(tmp_path / "training.yaml"))
    assert done.returncode == 0, done.stderr
    assert "pipelineInfo" in (tmp_path / "training.yaml").read_text()
    assert ".yaml file" in refused("compile", "-o", str(tmp_path / "training.json"))


def test_an_unexpected_exception_gives_an_error_message_and_a_file_with_the_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = (
        "import sys\nfrom pipelines import cli\n"
        "def broken(*_): raise ZeroDivisionError('nobody foresaw this')\n"
        "cli.write_result = broken\nsys.argv = ['genreflow', '--version']\ncli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "nobody foresaw this" in done.stderr.splitlines()[0]
    path = Path(done.stderr.splitlines()[1].removeprefix("The traceback: "))
    assert "ZeroDivisionError" in path.read_text()


def test_the_doctor_says_what_is_there() -> None:
    done = genreflow("doctor")
    assert "Traceback" not in done.stderr
    for what in ("python", "packages", "torch device", "openvino", "memory", "state folder", "champion"):
        assert re.search(rf"^[✓–✗] {what} ", done.stdout, re.MULTILINE), what


@pytest.fixture(params=["below-a-file", "no-disk"])
def unwritable(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder that nobody can make, root included, to whom permissions mean nothing."""
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "home" if request.param == "below-a-file" else Path("/proc/genreflow")
    monkeypatch.setenv("GENREFLOW_HOME", str(folder))
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "--source", "s3://bucket/prefix"),
        ("models",),
        ("promote", "1"),
        ("classify", "song.wav"),
        ("data", "fetch", "gtzan-mini"),
        ("ui", "--port", "0"),
    ],
)
def test_a_state_folder_that_cannot_be_written_gives_an_error_message(
    arguments: tuple[str, ...],
    unwritable: Path,
    refused: Refused,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "song.wav", tone())
    sentence = refused(*arguments)
    assert str(unwritable) in sentence
    assert "unexpected" not in sentence


def test_a_full_disk_under_the_state_folder_is_reported_before_the_pipeline_starts(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "LEAST_FREE_BYTES", 2 * shutil.disk_usage(tmp_path).total)
    sentence = refused("run")
    assert "are free where" in sentence
    assert "GENREFLOW_HOME" in sentence


def test_a_server_that_takes_connections_and_never_answers_is_reported_within_seconds(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "REACH_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert "no answer in 0.5 seconds" in refused("run", "--source", "synthetic")
        assert time.monotonic() - began < 5


def test_a_store_that_is_no_database_is_reported_before_the_pipeline_starts(
    refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mlflow.db").write_text("music")
    assert "is not a SQLite database" in refused("run", "--source", "synthetic")


def test_a_traceback_that_cannot_lie_in_the_state_folder_lies_elsewhere(unwritable: Path) -> None:
    code = (
        "import sys\nfrom pipelines import cli\n"
        "def broken(*_): raise ZeroDivisionError('nobody foresaw this')\n"
        "cli.write_result = broken\nsys.argv = ['genreflow', '--version']\ncli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    first, second = done.stderr.splitlines()
    assert "nobody foresaw this" in first
    assert "ZeroDivisionError" in Path(second.removeprefix("The traceback: ")).read_text()
