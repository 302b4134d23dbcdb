"""Running the comparison pipeline on this machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.local import Finished, execute
from pipelines.step_states import StepState

if TYPE_CHECKING:
    from genreflow.comparison.leaderboard import ComparisonDocument
    from pipelines.comparison_settings import ComparisonSettings


@dataclass(frozen=True)
class FinishedComparison(Finished):
    """A comparison that went well; what it is of besides the leaderboard is of the candidate."""

    settings: "ComparisonSettings"
    folder: Path
    """With `comparison.json`, `report.html` and `plots/`."""
    leaderboard: "ComparisonDocument"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    def summary(self) -> dict[str, Any]:
        """The JSON object that `--summary` writes: a run's, of the candidate, with `leaderboard`."""
        chosen = next(row for row in self.leaderboard.rows if row.chosen)
        found = super().summary()
        return found | {
            "corpus": found["corpus"] | {"leaky": self.split.leaky},
            "parent_run_id": self.leaderboard.parent_run_id,
            "candidate": self.leaderboard.candidate,
            "chosen_by": self.leaderboard.chosen_by,
            "metrics": {
                "accuracy": chosen.test.accuracy,
                "accuracy_ci95": list(chosen.test.accuracy_ci95),
                "macro_f1": chosen.macro_f1,
            },
            "leaderboard": [_entry(row.model_dump(mode="json")) for row in self.leaderboard.rows],
            "further": [each.model_dump(mode="json") for each in self.leaderboard.further],
            "report": str(self.report),
        }


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the leaderboard with the test accuracy in front."""
    test = row.pop("test")
    return {
        "name": row.pop("name"),
        "family": row.pop("family"),
        "accuracy": test["accuracy"],
        "accuracy_ci95": test["accuracy_ci95"],
        "test_clips": test["clips"],
        **row,
    }


def run(
    settings: "ComparisonSettings",
    show: Callable[[Sequence[StepState]], None],
    runner: str = "subprocess",
) -> FinishedComparison:
    """Run the comparison pipeline here, every step in a process or container of its own.

    Args:
        settings: complete and checked.
        show: called with all steps, several times a second, from another thread.
        runner: `subprocess` or `docker`.

    Raises:
        StepFailed: with the step's sentence and the log's place.
        KeyboardInterrupt: the person or the system stopped it; its steps are stopped, too.
    """
    from pipelines.comparison import comparison_pipeline, steps_of

    def pipeline(image: str) -> Callable[[], Any]:
        return comparison_pipeline(settings, image, local=True)

    read = [settings.also_test] if settings.also_test else []
    done = execute(pipeline, steps_of(settings), settings.runs, show, runner, read)
    from genreflow.comparison.leaderboard import ComparisonDocument

    folder = done.folder("comparison")
    return FinishedComparison(
        **done.finished(),
        settings=settings,
        folder=folder,
        leaderboard=ComparisonDocument.read(folder),
    )
