"""One process of a training run in several: `python -m genreflow.training JOB.json`, started by `launch`."""

import json
import os
import sys
from pathlib import Path

from genreflow.errors import GenreflowError
from genreflow.training import engine


def main(job: Path) -> int:
    """Run the job; curves and an error of the library go to the files that the job names."""
    told = json.loads(job.read_text())

    def tell(step: int, metrics: dict[str, float]) -> None:
        with Path(told["curves"]).open("a") as file:
            file.write(json.dumps({"step": step, "metrics": metrics}) + "\n")

    try:
        engine.fine_tune(
            Path(told["features"]), Path(told["out"]), told["training"], tell=tell, run_id=told["run_id"]
        )
    except GenreflowError as error:
        if os.environ.get("RANK", "0") == "0":
            Path(told["error"]).write_text(json.dumps({"type": type(error).__name__, "message": str(error)}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
