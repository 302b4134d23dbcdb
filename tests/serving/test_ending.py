"""How `genreflow serve` ends: quietly when asked to, else with a sentence; it leaves no process behind."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests
import servers
from services import CLI, PROCESS_SECONDS, Champion, until

INTERRUPTED_AT_ONCE = """
import os, signal, subprocess
from serving import run

class Popen(subprocess.Popen):  # asked to end when the server has just been started, and nobody knows it yet
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        if "serve" in self.args:
            os.kill(os.getpid(), signal.SIGTERM)

subprocess.Popen = Popen
run.serve("champion", "127.0.0.1", {port}, 60.0, True, "auto", print)
"""


@pytest.fixture
def own(champion: Champion, tmp_path: Path) -> Champion:
    """A copy, so that its processes can be distinguished from others."""
    return champion.copy(tmp_path / "own")


def left(champion: Champion) -> list[list[str]]:
    """The processes that serve this champion, after a moment to end in."""
    processes = [one for one in psutil.process_iter() if serves(one, champion)]
    _, alive = psutil.wait_procs(processes, timeout=1)
    return [one.cmdline() for one in alive]


def serves(process: psutil.Process, champion: Champion) -> bool:
    with suppress(psutil.Error):
        return process.environ().get("BENTOML_HOME") == champion.environment["BENTOML_HOME"]
    return False


def test_a_server_that_was_killed_is_reported_by_a_sentence_and_the_status(
    own: Champion, tmp_path: Path
) -> None:
    log, port = tmp_path / "log", servers.free_port()
    with servers.running([*CLI, "serve", "--port", str(port)], log, own.environment) as process:
        until(lambda: answers(port), "it never started")
        (server,) = (one for one in psutil.Process(process.pid).children() if "bentoml" in one.cmdline())
        server.kill()  # as the kernel does where memory ends
        assert process.wait(PROCESS_SECONDS) == 1
        assert left(own) == []
    assert "\ngenreflow: The service was ended by SIGKILL" in log.read_text()


def answers(port: int) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).ok
    return False


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_server_starts_ends_both_quietly(
    own: Champion, tmp_path: Path, asked: signal.Signals
) -> None:
    log = tmp_path / "log"
    code = INTERRUPTED_AT_ONCE.format(port=servers.free_port()).replace("SIGTERM", asked.name)
    environment = own.environment | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with servers.running([sys.executable, "-c", code], log, environment) as process:
        assert process.wait(PROCESS_SECONDS) == 0, log.read_text()
        assert left(own) == []
    assert "Traceback" not in log.read_text()
