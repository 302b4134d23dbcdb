"""The example clients of `serving/clients`, each against the real service."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from services import Service

from tests.conftest import ROOT, need

CLIENTS = ROOT / "serving" / "clients"


def run(command: list[str], song: Path, service: Service) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, str(song), service.address], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("client", ["with_bentoml.py", "with_requests.py"])
def test_a_client_gets_the_genre(service: Service, client: str) -> None:
    done = run([sys.executable, str(CLIENTS / client)], service.song, service)
    assert done.stdout == f"{service.expected.genre} {service.expected.confidence:.0%}\n", done.stderr


def test_curl_gets_the_genres_over_the_song(service: Service) -> None:
    need(shutil.which("curl") is not None, "curl")
    done = run(["sh", str(CLIENTS / "with_curl.sh")], service.song, service)
    segments = json.loads(done.stdout)["segments"]
    assert segments[0]["start"] == 0
    assert segments[-1]["end"] == pytest.approx(3.0)


def test_audio_that_cannot_be_decoded_gets_the_services_error_message(
    service: Service, tmp_path: Path
) -> None:
    letter = tmp_path / "letter.wav"
    letter.write_text("a letter")
    done = run([sys.executable, str(CLIENTS / "with_requests.py")], letter, service)
    assert done.returncode == 1
    assert "text, not audio" in done.stderr


def test_no_client_is_longer_than_ten_lines_of_code() -> None:
    for client in CLIENTS.iterdir():
        lines = [line for line in client.read_text().splitlines() if line and line[0] not in '#"']
        assert len(lines) <= 10, client.name
