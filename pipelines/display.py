"""Display of a run: progress on stderr, the result on stdout."""

import contextlib
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pipelines.steps import step as table_step

if TYPE_CHECKING:
    from genreflow.evaluation.document import EvaluationDocument
    from pipelines.local import Finished, FinishedRun
    from pipelines.step_states import StepState

MARKS = {"waiting": "·", "done": "✓", "cached": "✓", "skipped": "–", "failed": "✗"}
STYLES = {
    "waiting": "dim",
    "running": "bold",
    "done": "green",
    "cached": "cyan",
    "skipped": "dim",
    "failed": "bold red",
}
PLAIN_SECONDS_BETWEEN_LINES = 10.0
Show = Callable[[Sequence["StepState"]], None]


@contextlib.contextmanager
def following(redirect: bool = False) -> Iterator[Show]:
    """A function that shows the steps: a live list in a terminal, a line for each change elsewhere.

    Args:
        redirect: show above the list what is written to stderr meanwhile.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield PlainLines()
        return
    steps_now: list[Sequence[StepState]] = [()]
    began: dict[str, float] = {}
    spinners: dict[str, Spinner] = {}

    def picture() -> Group:
        widest = max((len(title(step)) for step in steps_now[0]), default=0)
        return Group(*(_line(step, began, spinners, widest) for step in steps_now[0]))

    def show(steps: Sequence["StepState"]) -> None:
        steps_now[0] = steps

    with Live(
        get_renderable=picture,
        console=console,
        refresh_per_second=8,
        redirect_stdout=False,
        redirect_stderr=redirect,
    ):
        yield show


class PlainLines:
    """One line a change of a step, and one every ten seconds of counted progress."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._counted: dict[str, float] = {}
        self._said: dict[str, str] = {}

    def __call__(self, steps: Sequence["StepState"]) -> None:
        for step in steps:
            if step.status == "waiting":
                continue
            now = time.monotonic()
            if self._shown.get(step.name) != step.status:
                self._shown[step.name] = step.status
                self._counted[step.name] = now
                self._write(f"{title(step)}: {_status(step)}")
            elif step.status == "running" and step.message and self._is_time(step.name, now):
                self._counted[step.name] = now
                words = _progress(step)
                if words != self._said.get(step.name):
                    self._said[step.name] = words
                    self._write(f"{title(step)}: {words}")

    def _is_time(self, name: str, now: float) -> bool:
        return now - self._counted[name] >= PLAIN_SECONDS_BETWEEN_LINES

    @staticmethod
    def _write(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def title(step: "StepState") -> str:
    """A step as it is shown."""
    return step.title or table_step(step.name).title


def _line(step: "StepState", began: dict[str, float], spinners: dict[str, Spinner], widest: int) -> Any:
    name = f"{title(step):<{widest + 1}}"
    if step.status == "running":
        began.setdefault(step.name, time.monotonic() - step.seconds)
        elapsed = time.monotonic() - began[step.name]
        text = Text(
            f"{name} {elapsed:5.0f} s  {_progress(step)}", style=STYLES["running"], overflow="ellipsis"
        )
        text.no_wrap = step.done is not None  # what is not counted may be a sentence
        spinner = spinners.setdefault(step.name, Spinner("dots"))
        spinner.update(text=text)
        return spinner
    text = Text(
        f"{MARKS[step.status]} {name} {_status(step)}", style=STYLES[step.status], overflow="ellipsis"
    )
    text.no_wrap = True
    return text


def _status(step: "StepState") -> str:
    if step.status == "done":
        return f"{step.seconds:5.1f} s"
    words = {
        "waiting": "",
        "running": "started",
        "cached": " cached",
        "skipped": " skipped: nothing was promoted",
        "failed": " failed",
    }
    return words[step.status]


def _progress(step: "StepState") -> str:
    if step.done is not None and step.total:
        return f"{step.message} {step.done}/{step.total} ({100 * step.done // step.total} %)"
    return step.message


def finished(run: "FinishedRun") -> str:
    """The report of a run, as text: accuracy, the gate's decision, paths, next commands."""
    evaluation, corpus = run.evaluation, run.corpus
    lines = [
        "",
        _accuracy(evaluation),
        f"Corpus {_shown_source(run)}: {_counts(run.split.counts)}, {corpus.quarantined} quarantined; "
        f"split {run.split.protocol}",
        f"Model {run.settings.family}, "
        + (f"from {evaluation.pretrained}" if evaluation.pretrained else "without pretrained weights")
        + (f" ({evaluation.pretraining})" if evaluation.pretraining else ""),
    ]
    if corpus.synthetic:
        lines.append("Trained on synthetic music: these figures say nothing about real music.")
    if evaluation.leaky and evaluation.measured:
        lines.append(f"Leaky split, the figures are optimistic: {evaluation.leak_reason}")
    if evaluation.measured:
        lines += ["", _genre_table(run)]
    lines += ["", f"Gate: {run.decision['reason']}"]
    lines += ending(run, [f"MLflow run {run.run_id}"], next_commands(run))
    if nothing_new(run.created, run.decision["verdict"], run.bento):
        lines += ["", f"nothing new: identical to version {run.version}"]
    return "\n".join(lines)


def ending(run: "Finished", trained: Sequence[str], commands: Sequence[tuple[str, str]]) -> list[str]:
    """How the report of any pipeline's run ends: the version, paths, next commands.

    Args:
        trained: in which MLflow run, for the line of the version; then further lines.
        commands: with a word on what each does.
    """
    aliases = f" ({', '.join(run.aliases)})" if run.aliases else ""
    lines = [f"Model version {run.version}{aliases} of genre-classifier, {trained[0]}", *trained[1:]]
    if run.bento:
        lines.append(f"Bento {run.bento}")
    lines.append(f"Report: {run.report}")
    cached = [title(step) for step in run.steps if step.status == "cached"]
    if cached:
        lines.append(f"Cached: {'; '.join(cached)}")
    lines.append(f"Took {run.seconds:.0f} s")
    widest = max(len(command) for command, _ in commands)
    return [*lines, "", "Next:", *(f"  {command:<{widest}}  {why}" for command, why in commands)]


def _accuracy(evaluation: "EvaluationDocument") -> str:
    if not evaluation.measured:
        return evaluation.headline
    low, high = evaluation.accuracy_ci95
    return (
        f"Accuracy {evaluation.accuracy:.1%} on {evaluation.clips} test clips, "
        f"95 % interval {low:.1%} to {high:.1%}; macro F1 {evaluation.macro_f1:.2f}; "
        f"scored with {evaluation.scored_with}"
    )


def nothing_new(created: bool, verdict: str, bento: str | None) -> bool:
    """Whether a run changed nothing: its model was there before, is not promoted now, nothing was built."""
    return not created and verdict != "promoted" and bento is None


def next_commands(run: "FinishedRun") -> list[tuple[str, str]]:
    """The next commands, each with a short description; only commands that exist."""
    genreflow = program()
    commands = [(f"{genreflow} ui", "runs, versions and reports in the browser")]
    clip = example_clip(run)
    model = "" if "champion" in run.aliases else f" --model {run.version}"
    if clip is not None:
        commands.append((f"{genreflow} classify{model} {shlex.quote(str(clip))}", "a clip of the test split"))
    if "champion" in run.aliases:
        commands.append((f"{genreflow} serve", "the champion over HTTP"))
    elif not run.evaluation.measured:
        commands.append((f"{genreflow} promote {run.version}", "make it champion by your own judgement"))
    commands.append((f"{genreflow} models", "every version, its figures and aliases"))
    return commands


def program() -> str:
    """How this program is called from here: by name where the shell finds it, else by its path."""
    here = Path(sys.executable).parent / "genreflow"
    found = shutil.which("genreflow")
    if found is not None and Path(found).resolve() == here.resolve():
        return "genreflow"
    return shlex.quote(str(_relative(here)))


def example_clip(run: "FinishedRun") -> Path | None:
    """A file of the test split, where the source still has it."""
    import pyarrow.parquet as parquet

    from genreflow.core.errors import CorpusError
    from genreflow.corpus.sources import open_source

    rows = parquet.read_table(run.split_folder / "split.parquet", columns=["clip_id", "split"]).to_pylist()
    test_clips = {row["clip_id"] for row in rows if row["split"] == "test"}
    manifest = parquet.read_table(run.corpus_folder / "manifest.parquet", columns=["clip_id", "source"])
    tested = {row["source"] for row in manifest.to_pylist() if row["clip_id"] in test_clips}
    with contextlib.suppress(CorpusError):  # the run has ended well, whatever became of its source since
        for item in open_source(run.settings.source, run.corpus.genres).items():
            if item.name in tested:
                return _relative(item.open())
    return None


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _shown_source(run: "FinishedRun") -> str:
    return (
        str(_relative(Path(run.settings.source))) if run.settings.source[:1] == "/" else run.settings.source
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in counts.items() if count)


def _genre_table(run: "FinishedRun") -> str:
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("genre")
    for name in ("clips", "precision", "recall", "95 % interval", "F1"):
        table.add_column(name, justify="right")
    for genre, scores in run.evaluation.per_genre.items():
        interval = scores.recall_ci95
        table.add_row(
            genre,
            str(scores.support),
            _share(scores.precision),
            _share(scores.recall),
            f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "–",
            _share(scores.f1),
        )
    return as_text(table)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def as_text(renderable: Any, width: int = 160) -> str:
    """A rich table as plain text without trailing blanks; brackets and colons in names are no markup."""
    console = Console(
        width=width, no_color=True, highlight=False, force_terminal=False, markup=False, emoji=False
    )
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))


def cluster_runs(rows: Sequence[dict[str, Any]]) -> str:
    """Runs or recurring runs on Kubeflow as a table, in their order."""
    titles = {
        "run_id": "run",
        "recurring_run_id": "recurring run",
        "name": "name",
        "state": "state",
        "cron": "schedule",
        "created": "created",
        "seconds": "seconds",
    }
    names = [name for name in titles if any(row.get(name) is not None for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="")
    for name in names:
        table.add_column(titles[name], justify="right" if name == "seconds" else "left", no_wrap=True)
    for row in rows:
        cells = [row.get(name) for name in names]
        table.add_row(
            *("–" if cell is None else f"{cell:.0f}" if isinstance(cell, float) else cell for cell in cells)
        )
    return as_text(table)


def versions(entries: Sequence[Any]) -> str:
    """The registered versions as a table, newest first."""
    table = Table(box=None, pad_edge=False, header_style="")
    for name in ("version", "aliases", "accuracy", "95 % interval", "family", "trained on", "created"):
        table.add_column(name, justify="right" if name in ("version", "accuracy") else "left")
    for entry in entries:
        low, high = entry.metrics.get("accuracy_ci95_low"), entry.metrics.get("accuracy_ci95_high")
        accuracy = entry.metrics.get("accuracy")
        table.add_row(
            str(entry.version),
            ", ".join(entry.aliases) or "–",
            "–" if accuracy is None else f"{accuracy:.1%}",
            "–" if low is None or high is None else f"{low:.1%} to {high:.1%}",
            entry.tags.get("family", "–"),
            entry.tags.get("data", "–"),
            str(entry.created)[:16],
        )
    return as_text(table)
