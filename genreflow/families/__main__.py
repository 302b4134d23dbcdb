"""One process of a fit in several: `python -m genreflow.families JOB.json`, started by `training.launch`."""

import contextlib
import json
import os
import sys
from pathlib import Path

from genreflow.core.errors import GenreflowError
from genreflow.families import family
from genreflow.fitting.fine_tuning import open_context


def main(job: Path) -> int:
    """Run the job; curves, result and an error of the library go to the files that the job names."""
    arguments = json.loads(job.read_text())
    first = os.environ.get("RANK", "0") == "0"

    def write_point(step: int, metrics: dict[str, float]) -> None:
        with Path(arguments["curves"]).open("a") as file:
            file.write(json.dumps({"step": step, "metrics": metrics}) + "\n")

    try:
        kind = family(arguments["family"])
        context = open_context(
            Path(arguments["features"]),
            Path(arguments["split"]),
            Path(arguments["out"]),
            kind,
            arguments["model"],
            arguments["training"],
            on_log=write_point,
            run_id=arguments["run_id"],
            corpus=None if arguments["corpus"] is None else Path(arguments["corpus"]),
        )
        result = kind.fit(context)
    except GenreflowError as error:
        # one process alone may run out of memory; the first to write is the one that is shown
        with contextlib.suppress(FileExistsError), Path(arguments["error"]).open("x") as file:
            json.dump({"type": type(error).__name__, "message": str(error)}, file)
        return 1
    if first:
        Path(arguments["result"]).write_text(result.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
