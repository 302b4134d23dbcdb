"""The report of a comparison: one self-contained page, the leaderboard as Markdown, figures as PNG."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from genreflow.comparison import figures
from genreflow.comparison.candidate import Score
from genreflow.comparison.leaderboard import ComparisonDocument, LeaderboardRow
from genreflow.comparison.seconds_heard import SecondsHeard
from genreflow.evaluation.figures import confusion, plain, write_png
from genreflow.evaluation.report import FEW_CLIPS, Banner, page_environment, percent, pictured

TEMPLATE = "comparison.html.j2"
REPORT = "report.html"
PLOTS = "plots"
LEAKY_FOLDS = "Leaky folds: the figures over folds are optimistic"


def write_report(document: ComparisonDocument, out: Path) -> None:
    """Write `report.html`, with everything in it inline, and its figures as PNG into `out/plots`."""
    drawn = _figures(document)
    confusions = {row.name: confusion(row.confusion) for row in document.rows}
    environment = page_environment(Path(__file__).parent)
    filters: dict[str, Callable[..., str]] = {
        "interval": interval,
        "count": count,
        "megabytes": megabytes,
        "seconds": seconds,
    }
    environment.filters |= filters
    page = environment.get_template(TEMPLATE).render(
        document=document,
        title=title(document),
        banners=banners(document),
        protocol=protocol_words(document),
        confusions={name: pictured(figure) for name, figure in confusions.items()},
        gains=gains(document),
        sections=[section for each in document.further for section in each.sections()],
        **{name: pictured(figure) for name, figure in drawn.items()},
    )
    (out / REPORT).write_text(page)
    for name, figure in drawn.items():
        write_png(figure, out / PLOTS / f"{name}.png")
    for name, figure in confusions.items():
        figure.suptitle(plain(_labelled(name, document)), fontsize=10)
        file = "".join(letter if letter.isalnum() else "_" for letter in name)
        write_png(figure, out / PLOTS / f"confusion_{file}.png")


def _figures(document: ComparisonDocument) -> dict[str, Figure]:
    found = {
        "accuracy_against_size": figures.accuracy_against_size(document),
        "accuracy_against_latency": figures.accuracy_against_latency(document),
        "accuracy_against_seconds": figures.accuracy_against_seconds(document),
        "agreement": figures.agreement(document.agreement),
    }
    if label := warning(document):
        for figure in found.values():
            figure.text(0.01, 0.005, label, fontsize=8.5, color=figures.SECOND)
            figure.set_layout_engine("constrained", rect=(0, 0.05, 1, 0.95))
    return found


def title(document: ComparisonDocument) -> str:
    """What was compared on what."""
    return f"{len(document.rows)} model families on {document.source}"


def protocol_words(document: ComparisonDocument) -> str:
    """The protocol with its fold."""
    return document.protocol if document.fold is None else f"{document.protocol}, fold {document.fold}"


def warning(document: ComparisonDocument) -> str:
    """What every table and figure is labelled with; empty where there is nothing to warn of."""
    if document.synthetic:
        return "Synthetic music: says nothing about real music"
    return "Leaky split: these figures are optimistic" if document.leaky else ""


def _labelled(name: str, document: ComparisonDocument) -> str:
    label = warning(document)
    return f"{name} ({label})" if label else name


def banners(document: ComparisonDocument) -> list[Banner]:
    """What a reader has to know before believing the figures."""
    found = []
    if document.synthetic:
        found.append(
            Banner(
                "Synthetic music",
                "The clips are made by a program. The figures say nothing about real music.",
            )
        )
    if document.leaky:
        reason = document.leak_reason or "Training and test share more than they should."
        found.append(Banner("Leaky split: these figures are optimistic", reason))
    if document.folds_leak_reason:
        found.append(Banner(LEAKY_FOLDS, document.folds_leak_reason))
    clips = document.rows[0].test.clips
    if clips < FEW_CLIPS:
        low, high = document.rows[0].test.accuracy_ci95
        found.append(
            Banner(
                f"Only {clips} test clips",
                f"The best candidate's interval is {(high - low) * 100:.0f} points wide: small differences "
                "between families mean nothing here.",
            )
        )
    return found


def gains(document: ComparisonDocument) -> list[str]:
    """How much more accurate each candidate is with all of a clip than with its shortest part, in words."""
    found = []
    for row in document.rows:
        first, last = row.seconds_heard[0], row.seconds_heard[-1]
        if len(row.seconds_heard) == 1:
            found.append(f"{row.name} predicts from {first.seconds:.0f} s at once.")
            continue
        found.append(
            f"{row.name}: {percent(first.accuracy)} from {first.seconds:.1f} s, {percent(last.accuracy)} "
            f"from {last.seconds:.1f} s ({(last.accuracy - first.accuracy) * 100:+.1f} points)."
        )
    return found


def interval(score: Score | SecondsHeard | None) -> str:
    """The interval of a score, a dash where there is none."""
    if score is None:
        return "–"
    low, high = score.accuracy_ci95
    return f"{low * 100:.0f} to {high * 100:.0f}\u00a0%"


def count(number: int | None) -> str:
    """A large number in thousands or millions; a dash where it is not known."""
    if number is None:
        return "–"
    if number >= 1_000_000:
        return f"{number / 1e6:.1f} M"
    return f"{number / 1e3:.1f} k" if number >= 1_000 else str(number)


def megabytes(size: int) -> str:
    """Bytes in MB."""
    digits = 3 if size < 100_000 else 1 if size < 100_000_000 else 0
    return f"{size / 1e6:.{digits}f}"


def seconds(value: float) -> str:
    """Seconds, or minutes where they are many."""
    if value >= 600:
        return f"{value / 60:.0f} min"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def as_markdown(document: ComparisonDocument) -> str:
    """The leaderboard as a Markdown table, for MLflow and docs."""
    lines = [f"**{document.headline}**", ""]
    if label := warning(document):
        lines = [f"**{label}.** {document.leak_reason or ''}".rstrip(), "", *lines]
    if document.folds_leak_reason:
        lines += [f"**{LEAKY_FOLDS}.** {document.folds_leak_reason}", ""]
    names = ["family", "train", "validation", *(["folds"] if document.folds else []), "test", "95 %"]
    names += ["macro F1", "ECE", "parameters", "MB", "training", "ms / 30 s", "RTF", "pretrained"]
    lines += [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for row in document.rows:
        scores = [row.train, row.validation, *([row.out_of_fold] if document.folds else []), row.test]
        cells = [
            f"**{row.name}**" if row.chosen else row.name,
            *(percent(score.accuracy) if score else "–" for score in scores),
            interval(row.test),
            f"{row.macro_f1:.2f}",
            f"{row.ece:.2f}",
            count(row.parameters),
            megabytes(row.served_bytes),
            seconds(row.training_seconds),
            f"{row.latency_30s_ms:.0f}",
            f"{row.real_time_factor:.4f}",
            _pretrained(row),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _pretrained(row: LeaderboardRow) -> str:
    return Path(row.pretrained).name if row.pretrained else "no"
