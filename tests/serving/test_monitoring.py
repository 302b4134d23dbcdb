"""Records of the answers: BentoML's own monitor, with the configuration that the service gives it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from candidates import write_packaged
from manifests import MANIFESTS
from services import Champion

from components.image import ROOT
from serving.monitoring import CONFIGURATION_VARIABLE, LOG_CONFIGURATION

WORKERS = 2
"""Numbers that the one worker of the front may have: a new one gets the other while the old one is there."""
ANSWERS = 300
"""Recorded by each worker, in records of 200 bytes and more."""
SMALL_FILE = 2_000
RECORDING = """
import json, logging, sys
from bentoml import server_context
from serving.monitoring import record
from serving.schemas import Lineage
from serving.service import served
served.inject_config()
server_context.worker_index = int(sys.argv[2])
lineage = Lineage(**Lineage.model_config["json_schema_extra"]["example"])
for seconds in range(int(sys.argv[1])):
    record("rock", 0.5, False, float(seconds), 0.01, lineage)
handlers = [logging.getLogger("bentoml_monitor_" + kind).handlers[0] for kind in ("data", "schema")]
print(json.dumps([getattr(one, "maxBytes", 0) * (one.backupCount + 1) for one in handlers]))
"""


def recorded(folder: Path, answers: int, worker: int = 1, **environment: str) -> list[int]:
    """Record answers as a worker of the service would; most bytes that it keeps, of records and schemas."""
    model = folder / "model"
    if not model.exists():
        write_packaged(model, 0, {})
    own = {
        "GENREFLOW_MODEL_PATH": str(model),
        "GENREFLOW_MONITORING": str(folder / "records"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", RECORDING, str(answers), str(worker)],
        cwd=folder,
        env=os.environ | own | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def small_files(folder: Path) -> dict[str, Path]:
    """A person's own configuration, the service's with small files, by the variables that may name it."""
    logs = folder / "small.yaml"
    text = LOG_CONFIGURATION.read_text()
    assert "maxBytes: 50000000" in text
    logs.write_text(text.replace("maxBytes: 50000000", f"maxBytes: {SMALL_FILE}"))
    config = folder / "bentoml.yaml"
    monitoring = {"enabled": True, "options": {"log_config_file": str(logs)}}
    config.write_text(yaml.safe_dump({"services": {"genreflow": {"monitoring": monitoring}}}))
    return {"BENTOML_CONFIG": config, CONFIGURATION_VARIABLE: logs}


def test_the_records_of_all_workers_stay_within_the_volume_of_a_pod(tmp_path: Path) -> None:
    records, schemas = recorded(tmp_path, 1)
    (deployment,) = yaml.safe_load_all((MANIFESTS / "base" / "service" / "deployment.yaml").read_text())
    volumes = {one["name"]: one["emptyDir"] for one in deployment["spec"]["template"]["spec"]["volumes"]}
    assert volumes["home"]["sizeLimit"] == "1Gi"
    assert records > 0
    assert schemas > 0, "one is written at every start"
    assert WORKERS * (records + schemas) < 0.9 * 2**30, "BentoML has files of its own there"


@pytest.mark.parametrize("variable", ["BENTOML_CONFIG", CONFIGURATION_VARIABLE])
def test_the_oldest_records_are_deleted_and_a_persons_own_configuration_counts(
    variable: str, tmp_path: Path
) -> None:
    own = small_files(tmp_path)
    for worker in range(1, WORKERS + 1):
        bounds = recorded(tmp_path, ANSWERS, worker, **{variable: str(own[variable])})
    data = tmp_path / "records" / "genreflow" / "data"
    assert bounds[0] == 8 * SMALL_FILE
    for worker in range(1, WORKERS + 1):
        files = sorted(data.glob(f"data.{worker}.log*"))
        assert len(files) == 8
        assert sum(path.stat().st_size for path in files) <= bounds[0]
        last = json.loads((data / f"data.{worker}.log").read_text().splitlines()[-1])
        assert (last["genre"], last["seconds"]) == ("rock", ANSWERS - 1)


def test_a_bento_has_the_configuration_with_it(champion: Champion, tmp_path: Path) -> None:
    (bento,) = (champion.root / "bentoml" / "bentos" / "genreflow").glob("v*")
    own = {"PYTHONPATH": str(bento / "src"), "GENREFLOW_MODEL_PATH": "", **champion.environment}
    assert all(recorded(tmp_path, 1, **own))
