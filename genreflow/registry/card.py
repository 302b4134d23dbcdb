"""What a version says of itself in the registry: a description in Markdown, and tags."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from genreflow.artifacts import CorpusDocument, PackagedDocument, RuntimeReport
from genreflow.evaluation.document import EvaluationDocument
from genreflow.registry.runs import corpus_name
from genreflow.registry.store import MODEL_NAME
from genreflow.registry.versions import DOCUMENT_TAG, Version

SPACE = "\u00a0"
"""MLflow shows tables without borders or padding: cells bring their own."""
NOT_MEASURED = "not measured"
DESCRIPTION_CHARACTERS = 5000
"""MLflow's database ends descriptions here."""
OVERVIEW = "### Versions"
OVERVIEW_ROWS = 8
REASON_CHARACTERS = 220
DECISION = "### Is it champion?"
WHAT = "### What it is"

MODEL_DESCRIPTION = """\
Answers the genre of a piece of music. Every version is one trained model with its packaged runtimes and the \
proof of how good it is.

- **@champion** is what `genreflow classify`, `genreflow serve` and `genreflow.load("champion")` answer \
with. It moves only when a candidate passes the gate (both models on the same clips, none of them seen in \
training), or by hand with `genreflow promote`, back with `genreflow rollback`.
- **@challenger** is the latest version that the gate did not promote.

Figures on a leaky split flatter; versions trained on synthetic music say nothing about real music.
"""


@dataclass(frozen=True)
class Trace:
    """Where a version came from, within MLflow."""

    experiment_id: str
    run_id: str


def tags(
    packaged: PackagedDocument,
    evaluation: EvaluationDocument,
    corpus: CorpusDocument,
    document_sha256: str,
) -> dict[str, str]:
    """The tags of a version, all of them set when it is created; MLflow shows them in this order.

    Args:
        document_sha256: of the file `packaged.json`, which names the digests of all other files.
    """
    model = packaged.model
    return {
        "decision": "none yet",
        **_figures(evaluation),
        "data": corpus_name(corpus),
        "protocol": model.protocol,
        "leaky": str(model.leaky or evaluation.leaky).lower(),
        "synthetic": str(model.synthetic).lower(),
        "family": model.family,
        "backbone": model.pretrained or "none (from scratch)",
        "decision_reason": "The gate has not compared it yet.",
        "digest": packaged.digest,
        DOCUMENT_TAG: document_sha256,
        "corpus_fingerprint": model.corpus_fingerprint,
    }


def _figures(evaluation: EvaluationDocument) -> dict[str, str]:
    if not evaluation.measured:
        return {"accuracy": NOT_MEASURED}
    low, high = evaluation.accuracy_ci95
    return {
        "accuracy": f"{evaluation.accuracy:.4f}",
        "accuracy_ci95": json.dumps([round(low, 4), round(high, 4)]),
        "macro_f1": f"{evaluation.macro_f1:.4f}",
    }


def headline(evaluation: EvaluationDocument) -> str:
    """How good, in a line, its figures kept together."""
    return evaluation.headline.replace(" %", f"{SPACE}%")


def describe(
    packaged: PackagedDocument, evaluation: EvaluationDocument, corpus: CorpusDocument, trace: Trace
) -> str:
    """A version's description: how good, whether champion, what it is, per genre, where it came from."""
    # MLflow's list of versions shows the first characters of this line, unformatted.
    parts = [
        headline(evaluation),
        *_warnings(packaged, evaluation),
        DECISION,
        "Not yet: the gate has not compared it.",
        WHAT,
    ]
    parts.append(_what(packaged, corpus, evaluation))
    ending = _lineage(packaged, corpus, trace)
    table = _per_genre(evaluation) if evaluation.measured else "(Not measured.)"
    if len("\n\n".join([*parts, table, ending])) > DESCRIPTION_CHARACTERS - 1200:
        table = "(The table per genre is too long for this page: it is in the report.)"
    return "\n\n".join([*parts, "### Per genre", table, "### Where it came from", ending])


def with_overview(description: str, versions: Sequence[Version]) -> str:
    """The registered model's description ending in a table of its latest versions, the newest first."""
    rows = []
    for version in versions[:OVERVIEW_ROWS]:
        tags = version.tags
        reason = tags.get("decision_reason", "")
        if len(reason) > REASON_CHARACTERS:
            reason = reason[: REASON_CHARACTERS - 1] + "…"
        if "displaced_by" in tags and "champion" not in version.aliases:
            reason = f"was champion before version {tags['displaced_by']}; {reason}"
        names = " ".join(f"**@{alias}**" for alias in version.aliases)
        link = f"[Version{SPACE}{version.version}](#/models/{MODEL_NAME}/versions/{version.version})"
        split = tags.get("protocol", "") + (" (leaky)" if tags.get("leaky") == "true" else "")
        rows.append((link, names, _right(tags), f"{tags.get('data', '')}, {split}", reason))
    head = ("version", "now", "right (95 % interval)", "data, split", "why it is, was, or is not champion")
    kept = description.partition(OVERVIEW)[0].rstrip()[: DESCRIPTION_CHARACTERS // 3]
    table = _table(head, rows)
    while len(kept) + len(OVERVIEW) + len(table) + 4 > DESCRIPTION_CHARACTERS and rows:
        rows.pop()
        table = _table(head, rows)
    return f"{kept}\n\n{OVERVIEW}\n\n{table}"


def with_decision(description: str, decision: str) -> str:
    """The description with another answer to whether it is champion, shortened where MLflow has no room."""
    before, _, rest = description.partition(DECISION)
    _, _, after = rest.partition(WHAT)
    room = DESCRIPTION_CHARACTERS - len(before) - len(DECISION) - len(WHAT) - len(after) - 4
    if len(decision) > room:
        decision = decision[: max(room - 1, 0)] + "…"
    return f"{before}{DECISION}\n\n{decision}\n\n{WHAT}{after}"


def decision_of(description: str) -> str:
    """The part that `with_decision` writes."""
    return description.partition(DECISION)[2].partition(WHAT)[0].strip()


def _right(tags: dict[str, str]) -> str:
    """`82.0 % (77.0 to 86.0)` from a version's tags; empty where they are not genreflow's."""
    try:
        low, high = json.loads(tags["accuracy_ci95"])
        return f"{_percent(float(tags['accuracy']))} ({low * 100:.1f} to {high * 100:.1f})".replace(
            " ", SPACE
        )
    except (KeyError, TypeError, ValueError):
        return NOT_MEASURED if tags.get("accuracy") == NOT_MEASURED else ""


def _warnings(packaged: PackagedDocument, evaluation: EvaluationDocument) -> list[str]:
    model = packaged.model
    warnings = []
    if model.synthetic:
        warnings.append(
            "> **Synthetic.** Trained and tested on generated music: it shows that the pipeline works and "
            "says nothing about real music. It can never displace a champion trained on real music."
        )
    if (model.leaky or evaluation.leaky) and evaluation.measured:
        reason = evaluation.leak_reason or model.leak_reason or f"the {model.protocol} split is leaky"
        warnings.append(f"> **Leaky.** The figures flatter: {reason.rstrip('.')}.")
    if evaluation.seen_clips and evaluation.measured:
        warnings.append(f"> **{evaluation.seen_clips} of the test clips were met in training or selection.**")
    if model.pretrained is None:
        warnings.append("> **From scratch.** No pretrained weights.")
    return warnings


def _what(packaged: PackagedDocument, corpus: CorpusDocument, evaluation: EvaluationDocument) -> str:
    model = packaged.model
    origin = f"`{model.pretrained}`, fine-tuned" if model.pretrained else "trained from scratch"
    counts = corpus.counts
    rows = [
        ("Model", f"family `{model.family}`, {origin}"),
        (
            "Hears",
            f"windows of {model.hearing.window_seconds:g} s at {model.hearing.sample_rate / 1000:g} kHz; a "
            "clip's answer is the mean over its windows",
        ),
        (
            "Data",
            f"{corpus_name(corpus)}: {len(model.train_clips)} clips to train on, "
            f"{len(model.validation_clips)} for selection, {evaluation.clips} to test on "
            f"({corpus.quarantined} refused)",
        ),
        ("Split", f"{model.protocol}{_fold(model.fold)}, {'leaky' if model.leaky else 'honest'}"),
        ("Genres", ", ".join(model.genres[:30]) + (" …" if len(model.genres) > 30 else "")),
    ]
    unused = counts.get("unused", 0)
    if unused:
        rows.append(("Left out", f"{unused} clips that this split does not use"))
    fastest = _fastest(packaged)
    if fastest is not None:
        rows.append(
            (
                "Speed",
                f"{fastest.latency_ms_p50:.0f} ms a window in {fastest.name} {fastest.precision} "
                f"({packaged.processor})",
            )
        )
    refused = [f"{runtime.name} {runtime.precision}" for runtime in packaged.runtimes if not runtime.usable]
    if refused:
        rows.append(("Not served in", ", ".join(refused) + " (failed parity)"))
    return "\n".join(f"- **{name}**: {text}" for name, text in rows)


def _per_genre(evaluation: EvaluationDocument) -> str:
    rows = []
    for genre, scores in evaluation.per_genre.items():
        recall = "–"
        if scores.recall is not None:
            recall = _percent(scores.recall, 0)
            if scores.recall_ci95 is not None:
                recall += f" ({scores.recall_ci95[0] * 100:.0f} to {scores.recall_ci95[1] * 100:.0f})"
        precision = "–" if scores.precision is None else _percent(scores.precision, 0)
        f1 = "–" if scores.f1 is None else f"{scores.f1:.2f}"
        rows.append((genre, str(scores.support), recall, precision, f1))
    return _table(("genre", "test clips", "found (95 % interval)", "right when said", "F1"), rows)


def _lineage(packaged: PackagedDocument, corpus: CorpusDocument, trace: Trace) -> str:
    run = f"#/experiments/{trace.experiment_id}/runs/{trace.run_id}"
    return "\n".join(
        [
            f"- [training run]({run}) with parameters, curves and environment",
            f"- [report]({run}/artifacts/evaluation/report.html): worst clips, confusions, calibration",
            f"- corpus `{corpus.fingerprint}` from {corpus.source}",
            f"- digest `{packaged.digest}`, code {packaged.code_version}",
        ]
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    padded = [[cell.replace("|", "\\|") + 3 * SPACE for cell in line] for line in (head, *rows)]
    padded.insert(1, [":---"] * len(head))
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)


def _percent(share: float, digits: int = 1) -> str:
    return f"{share * 100:.{digits}f}{SPACE}%"


def _fold(fold: int | None) -> str:
    return "" if fold is None else f", fold {fold}"


def _fastest(packaged: PackagedDocument) -> RuntimeReport | None:
    usable = [runtime for runtime in packaged.runtimes if runtime.usable]
    return min(usable, key=lambda runtime: runtime.latency_ms_p50, default=None)
