"""How a run looks while it goes on (stderr) and when it is over (stdout)."""

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

if TYPE_CHECKING:
    from genreflow.evaluation.document import EvaluationDocument
    from pipelines.local import FinishedRun, StepState

MARKS = {"waiting": "·", "done": "✓", "cached": "✓", "skipped": "–", "failed": "✗"}
STYLES = {
    "waiting": "dim",
    "running": "bold",
    "done": "green",
    "cached": "cyan",
    "skipped": "dim",
    "failed": "bold red",
}
TITLES = {
    "resolve": "Resolve source",
    "ingest": "Ingest corpus",
    "extract_features": "Extract features",
    "fine_tune": "Fine-tune model",
    "evaluate": "Evaluate model",
    "package": "Package model",
    "register": "Register version",
    "promote": "Promote or keep",
    "build": "Build bento",
}
PLAIN_SECONDS_BETWEEN_LINES = 10.0
Show = Callable[[Sequence["StepState"]], None]


@contextlib.contextmanager
def following() -> Iterator[Show]:
    """A function that shows the steps: a live list in a terminal, a line for each change elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield PlainLines()
        return
    steps_now: list[Sequence[StepState]] = [()]
    began: dict[str, float] = {}
    spinners: dict[str, Spinner] = {}

    def picture() -> Group:
        return Group(*(_line(step, began, spinners) for step in steps_now[0]))

    def show(steps: Sequence["StepState"]) -> None:
        steps_now[0] = steps

    with Live(
        get_renderable=picture,
        console=console,
        refresh_per_second=8,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield show


class PlainLines:
    """One line a change of a step, and one every ten seconds of counted progress."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._counted: dict[str, float] = {}

    def __call__(self, steps: Sequence["StepState"]) -> None:
        for step in steps:
            if step.status == "waiting":
                continue
            now = time.monotonic()
            if self._shown.get(step.name) != step.status:
                self._shown[step.name] = step.status
                self._counted[step.name] = now
                self._write(f"{TITLES[step.name]}: {_status(step)}")
            elif step.status == "running" and step.message and self._is_time(step.name, now):
                self._counted[step.name] = now
                self._write(f"{TITLES[step.name]}: {_progress(step)}")

    def _is_time(self, name: str, now: float) -> bool:
        return now - self._counted[name] >= PLAIN_SECONDS_BETWEEN_LINES

    @staticmethod
    def _write(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _line(step: "StepState", began: dict[str, float], spinners: dict[str, Spinner]) -> Any:
    title = f"{TITLES[step.name]:<18}"
    if step.status == "running":
        began.setdefault(step.name, time.monotonic())
        elapsed = time.monotonic() - began[step.name]
        text = Text(
            f"{title} {elapsed:5.0f} s  {_progress(step)}", style=STYLES["running"], overflow="ellipsis"
        )
        text.no_wrap = True
        spinner = spinners.setdefault(step.name, Spinner("dots"))
        spinner.update(text=text)
        return spinner
    text = Text(
        f"{MARKS[step.status]} {title} {_status(step)}", style=STYLES[step.status], overflow="ellipsis"
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
    """The report of a run, as text: how good, what the gate said, where things lie, what to type next."""
    evaluation, corpus = run.evaluation, run.corpus
    cached = [step.name for step in run.steps if step.status == "cached"]
    lines = [
        "",
        _accuracy(evaluation),
        f"Corpus {_shown_source(run)}: {_counts(corpus.counts)}, {corpus.quarantined} quarantined; "
        f"split {corpus.protocol}",
        f"Model {run.settings.family}, "
        + (f"from {evaluation.pretrained}" if evaluation.pretrained else "trained from scratch"),
    ]
    if corpus.synthetic:
        lines.append("Trained on synthetic music: these figures say nothing about real music.")
    if evaluation.leaky and evaluation.measured:
        lines.append(f"Leaky split, the figures flatter: {evaluation.leak_reason}")
    if evaluation.measured:
        lines += ["", _genre_table(run)]
    lines += ["", f"Gate: {run.decision['reason']}"]
    aliases = f" ({', '.join(run.aliases)})" if run.aliases else ""
    lines.append(f"Model version {run.version}{aliases} of genre-classifier, MLflow run {run.run_id}")
    if run.bento:
        lines.append(f"Bento {run.bento}")
    lines.append(f"Report: {run.report}")
    if cached:
        lines.append(f"Cached: {', '.join(TITLES[name] for name in cached)}")
    lines.append(f"Took {run.seconds:.0f} s")
    lines += ["", "Next:", *(f"  {command:<{_widest(run)}}  {why}" for command, why in next_commands(run))]
    if nothing_new(run.created, run.decision["verdict"], run.bento):
        lines += ["", f"nothing new: identical to version {run.version}"]
    return "\n".join(lines)


def _accuracy(evaluation: "EvaluationDocument") -> str:
    if not evaluation.measured:
        return evaluation.headline
    low, high = evaluation.accuracy_ci95
    return (
        f"Accuracy {evaluation.accuracy:.1%} on {evaluation.clips} test clips, "
        f"95 % interval {low:.1%} to {high:.1%}; macro F1 {evaluation.macro_f1:.2f}"
    )


def nothing_new(created: bool, verdict: str, bento: str | None) -> bool:
    """Whether a run changed nothing: its model was there before, is not promoted now, nothing was built."""
    return not created and verdict != "promoted" and bento is None


def next_commands(run: "FinishedRun") -> list[tuple[str, str]]:
    """What one would type next, with a word on what it does; only commands that exist."""
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

    from genreflow.corpus.sources import open_source
    from genreflow.errors import CorpusError

    rows = parquet.read_table(run.corpus_folder / "manifest.parquet", columns=["source", "split"]).to_pylist()
    tested = {row["source"] for row in rows if row["split"] == "test"}
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


def _widest(run: "FinishedRun") -> int:
    return max(len(command) for command, _ in next_commands(run))


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
    """A rich table as plain text without trailing blanks."""
    console = Console(width=width, no_color=True, highlight=False, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))


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
