"""A training run in several processes, started here with one process a GPU."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from genreflow.core import errors
from genreflow.core.processors import available_processors
from genreflow.fitting.contract import Family, FitContext, FitResult
from genreflow.training.termination import raised_termination

WORKER = "genreflow.families"
"""The module that each process runs: it finds the family by its name."""
POLL_SECONDS = 0.5
# the end of a failed process's output, enough to show its last traceback
CHARACTERS_SHOWN = 2000


def processes_wanted(device: str) -> int:
    """One a GPU; 1 where there is none, `device` is `cpu`, or a launcher started this process."""
    if "WORLD_SIZE" in os.environ or device == "cpu":
        return 1
    return max(1, torch.cuda.device_count())


def fit(family: Family, context: FitContext, processes: int) -> FitResult:
    """Fit in `processes` processes of this machine under PyTorch's launcher, as `accelerate launch` does.

    Raises:
        GenreflowError: what the processes raised.
        TrainingError: they ended otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="genreflow-launch-") as folder:
        job, result = Path(folder) / "job.json", Path(folder) / "result.json"
        curves, failure, log = (Path(folder) / name for name in ("curves.jsonl", "error.json", "output.log"))
        job.write_text(
            json.dumps(
                {
                    "features": str(context.features.folder.resolve()),
                    "split": str(context.split_folder.resolve()),
                    "corpus": None if context.corpus is None else str(context.corpus.resolve()),
                    "out": str(context.out.resolve()),
                    "family": family.name,
                    "model": context.settings.model_dump(mode="json"),
                    "training": context.training.model_dump(mode="json"),
                    "run_id": context.run_id,
                    "curves": str(curves),
                    "result": str(result),
                    "error": str(failure),
                }
            )
        )
        curves.touch()
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        with log.open("w") as output, curves.open() as points, raised_termination():
            process = subprocess.Popen(
                [sys.executable, *launcher, "-m", WORKER, str(job)],
                env=os.environ | {"OMP_NUM_THREADS": str(max(1, available_processors() // processes))},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                while True:
                    ended = process.poll() is not None
                    for line in points:
                        if context.on_log is not None:
                            point = json.loads(line)
                            context.on_log(point["step"], point["metrics"])
                    if ended:
                        break
                    time.sleep(POLL_SECONDS)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if failure.is_file():
            error = json.loads(failure.read_text())
            raise getattr(errors, error["type"])(error["message"])
        if process.returncode:
            end = log.read_text()[-CHARACTERS_SHOWN:]
            raise errors.TrainingError(
                f"Training in {processes} processes ended with status {process.returncode}. "
                f"The end of its output:\n{end}"
            )
        return FitResult.model_validate_json(result.read_text())
