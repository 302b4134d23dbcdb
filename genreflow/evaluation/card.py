"""The sections of a model's card, in Markdown: of its description in MLflow and of its README on a hub.

skops has a card of sections, too. Importing it takes 1.8 s here, of which this module needs none: a card is
written where a model is registered, promoted, rolled back and published.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genreflow.core.documents import ModelDocument, PackagedDocument
from genreflow.evaluation.document import GenreScores, Interval

MOST_GENRES = 30
"""Named in a card."""


@dataclass(frozen=True)
class ModelFacts:
    """The facts of a model's card: from its evaluation, or from the tags of its registered version."""

    packaged: PackagedDocument
    data: str
    """What a reader calls the corpus."""
    accuracy: float | None
    """None where no test clip was left that the model was not trained on."""
    accuracy_ci95: Interval | None
    test_clips: int | None
    """None where it is not known."""
    leaky: bool
    """Whether the split of training or evaluation is leaky."""
    leak_reason: str | None = None
    seen_clips: int = 0
    """Test clips that were used in training or selection."""
    unused_clips: int = 0
    quarantined: int | None = None
    scored_with: str | None = None
    """Runtime and precision of the figures."""

    @property
    def figures_leak(self) -> bool:
        """Whether there are figures, and they are optimistic."""
        return self.leaky and self.accuracy is not None


def bullets(rows: Sequence[tuple[str, str]]) -> str:
    """Names and texts as a list, the names in bold."""
    return "\n".join(f"- **{name}**: {text}" for name, text in rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], padding: str = "") -> str:
    """A table of left-aligned cells.

    Args:
        padding: behind the text of each cell.
    """
    lines = [[cell.replace("|", "\\|") + padding for cell in line] for line in (head, *rows)]
    lines.insert(1, [":---"] * len(head))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(share: float, digits: int = 1) -> str:
    return f"{share * 100:.{digits}f} %"


def interval(facts: ModelFacts) -> str:
    """`on 290 test clips, 95 % interval from 76.0 % to 85.0 %`; empty where nothing was measured."""
    if facts.accuracy_ci95 is None:
        return ""
    low, high = facts.accuracy_ci95
    on = f"on {facts.test_clips} test clips, " if facts.test_clips else ""
    return f"{on}95 % interval from {percent(low)} to {percent(high)}"


def warnings(facts: ModelFacts) -> list[str]:
    """Warnings on what limits the figures, a quoted paragraph each."""
    model = facts.packaged.model
    found = []
    if model.synthetic:
        found.append(
            "> **Synthetic.** Trained and tested on generated music: it shows that the pipeline works and "
            "says nothing about real music. It can never displace a champion trained on real music."
        )
    if facts.figures_leak:
        reason = facts.leak_reason or model.leak_reason or f"the {model.protocol} split is leaky"
        found.append(f"> **Leaky.** The figures are optimistic: {reason.rstrip('.')}.")
    if facts.seen_clips and facts.accuracy is not None:
        found.append(f"> **{facts.seen_clips} of the test clips were used in training or selection.**")
    if model.pretrained is None:
        found.append("> **From scratch.** No pretrained weights.")
    return found


def model_rows(facts: ModelFacts) -> list[tuple[str, str]]:
    """What the model is: names and texts, for `bullets`."""
    packaged, model = facts.packaged, facts.packaged.model
    origin = f"from `{model.pretrained}`" if model.pretrained else "without pretrained weights"
    if model.pretraining:
        origin += f" ({model.pretraining})"
    clips = f"{len(model.train_clips)} clips to train on, {len(model.validation_clips)} for selection"
    clips += f", {facts.test_clips} to test on" if facts.test_clips else ""
    clips += f" ({facts.quarantined} refused)" if facts.quarantined is not None else ""
    honest = "" if facts.accuracy is None else ", leaky" if facts.leaky else ", leak-free"
    spec = model.input_spec
    short = "repeated" if spec.extend == "repeat" else "followed by silence"
    rows = [
        ("Model", f"family `{model.family}`, {origin}"),
        (
            "Input",
            f"windows of {spec.window_seconds:g} s at {spec.sample_rate / 1000:g} kHz; a "
            f"clip's prediction is the mean over its windows; shorter clips are {short}",
        ),
        ("Data", f"{facts.data}: {clips}"),
        ("Split", f"{model.protocol}{'' if model.fold is None else f', fold {model.fold}'}{honest}"),
        ("Genres", ", ".join(model.genres[:MOST_GENRES]) + (" …" if len(model.genres) > MOST_GENRES else "")),
        ("Calibration", calibration(model)),
    ]
    if facts.unused_clips:
        rows.append(("Left out", f"{facts.unused_clips} clips that this split does not use"))
    served = packaged.served
    speed = [
        f", {one.latency_ms_p50:.0f} ms a window ({packaged.processor})"
        for one in packaged.runtimes
        if (one.name, one.precision) == (served.runtime, served.precision)
    ]
    rows.append(("Served with", served.label + "".join(speed)))
    if facts.scored_with:
        rows.append(("Scored with", facts.scored_with))
    refused = [f"{runtime.name} {runtime.precision}" for runtime in packaged.runtimes if not runtime.usable]
    if refused:
        rows.append(("Not served in", ", ".join(refused) + " (failed parity, or int8 no faster)"))
    return rows


def calibration(model: ModelDocument) -> str:
    """What the model's temperature was fitted on, in a few words."""
    # documents of version 0.1.0 do not have it
    fitted = model.calibration or ("validation clips" if model.validation_clips else None)
    if fitted is None:
        return "not calibrated: there were no clips to fit a temperature on"
    return f"temperature {model.temperature:.3g}, fitted with {fitted}"


def per_genre(scores: Mapping[str, GenreScores], padding: str = "") -> str:
    """A table of every genre's figures."""
    rows = []
    for genre, one in scores.items():
        recall = "–" if one.recall is None else percent(one.recall, 0)
        if one.recall_ci95 is not None:
            recall += f" ({one.recall_ci95[0] * 100:.0f} to {one.recall_ci95[1] * 100:.0f})"
        precision = "–" if one.precision is None else percent(one.precision, 0)
        rows.append((genre, str(one.support), recall, precision, "–" if one.f1 is None else f"{one.f1:.2f}"))
    return table(("genre", "test clips", "recall (95 % interval)", "precision", "F1"), rows, padding)
