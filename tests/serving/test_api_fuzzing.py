"""Whatever fits the OpenAPI description or breaks it is answered as described, and never with 5xx."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from services import Champion, Service, running

EXAMPLES = 150
"""For each operation, besides those that cover its description: some twenty seconds."""
EXAMPLES_WITH_KEY = 25
UNSOUND = (
    # no schema can say which bytes are music
    "positive_data_acceptance",
    # what is another type in JSON may be the same in a form: [1] is one field, as 1 is
    "negative_data_rejection",
)
KEY = "a-key-of-the-tests"


def fuzzed(service: Service, folder: Path, examples: int, *arguments: str) -> str:
    """What schemathesis reports, always of the same requests; a failure shows the curl that repeats it."""
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{service.address}/docs.json"),
        *("--phases", "coverage,fuzzing", "--max-examples", str(examples), "--generation-deterministic"),
        *("--checks", "all", "--exclude-checks", ",".join(UNSOUND)),
        *("--request-timeout", "60", "--continue-on-failure", "--no-color"),
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "uploads_to_fuzz", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env=os.environ | hooks,
        capture_output=True,
        check=False,
        timeout=500,
    )
    report = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, report + done.stderr.decode("utf-8", "replace")
    (tested,) = re.findall(r"Tested: (\d+)", report)
    assert int(tested) == 8
    return report


def statuses(log: str, path: str) -> set[str]:
    """With what the service says it answered requests there."""
    return set(re.findall(rf"path={path},.*?\(status=(\d+)", log))


def test_every_answer_is_as_described(service: Service, tmp_path: Path) -> None:
    before = len(service.log)
    fuzzed(service, tmp_path, EXAMPLES)
    log = service.log[before:]
    for path in ("/classify", "/timeline", "/classify_batch"):
        assert {"200", "400"} <= statuses(log, path) <= {"200", "400", "405", "413", "415"}
    assert "Traceback" not in log


def test_with_a_key_every_answer_is_as_described_and_none_comes_without(
    champion: Champion, tmp_path: Path
) -> None:
    with running(champion.copy(tmp_path / "champion"), GENREFLOW_API_KEY=KEY) as service:
        described = requests.get(f"{service.address}/docs.json", timeout=60).json()
        locked = {path for path, ways in described["paths"].items() if "security" in str(ways)}
        assert locked == {"/classify", "/classify_batch", "/timeline", "/model"}
        fuzzed(service, tmp_path, EXAMPLES_WITH_KEY, "--header", f"Authorization: Bearer {KEY}")
        assert "Traceback" not in service.log
        assert requests.get(f"{service.address}/model", timeout=60).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "allowed"), [("GET", "classify", "POST"), ("DELETE", "model", "GET")]
)
def test_the_error_for_a_wrong_method_names_the_right_one(
    service: Service, method: str, path: str, allowed: str
) -> None:
    answer = requests.request(method, f"{service.address}/{path}", timeout=60)
    assert answer.status_code == 405
    assert allowed in answer.headers["Allow"]
