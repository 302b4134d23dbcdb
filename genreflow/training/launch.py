"""A training run in several processes, started here with one process a GPU."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from genreflow import errors
from genreflow.artifacts import ModelDocument
from genreflow.training.settings import OnLog

SECONDS_BETWEEN_LOOKS = 0.5
# the end of what a failed process said, enough to show its last traceback
CHARACTERS_SHOWN = 2000


def processes_wanted(training: dict[str, Any]) -> int:
    """One a GPU; 1 where there is none, the CPU is asked for, or a launcher started this process."""
    if "WORLD_SIZE" in os.environ or training.get("device") == "cpu":
        return 1
    return max(1, torch.cuda.device_count())


def fine_tune(
    features: Path,
    out: Path,
    training: dict[str, Any],
    on_log: OnLog | None,
    run_id: str | None,
    processes: int,
) -> ModelDocument:
    """Train in `processes` processes of this machine under PyTorch's launcher, as `accelerate launch` does.

    Raises:
        GenreflowError: what the processes raised.
        TrainingError: they ended otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="genreflow-launch-") as folder:
        job = Path(folder) / "job.json"
        curves, failure, said = (Path(folder) / name for name in ("curves.jsonl", "error.json", "said.txt"))
        job.write_text(
            json.dumps(
                {
                    "features": str(features.resolve()),
                    "out": str(out.resolve()),
                    "training": training,
                    "run_id": run_id,
                    "curves": str(curves),
                    "error": str(failure),
                }
            )
        )
        curves.touch()
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        with said.open("w") as output, curves.open() as points:
            process = subprocess.Popen(
                [sys.executable, *launcher, "-m", "genreflow.training", str(job)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                while True:
                    ended = process.poll() is not None
                    for line in points:
                        if on_log is not None:
                            point = json.loads(line)
                            on_log(point["step"], point["metrics"])
                    if ended:
                        break
                    time.sleep(SECONDS_BETWEEN_LOOKS)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if failure.is_file():
            error = json.loads(failure.read_text())
            raise getattr(errors, error["type"])(error["message"])
        if process.returncode:
            end = said.read_text()[-CHARACTERS_SHOWN:]
            raise errors.TrainingError(
                f"Training in {processes} processes ended with status {process.returncode}. "
                f"It said last:\n{end}"
            )
    return ModelDocument.read(out)
