"""A version's description in Markdown and its tags in the registry."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from genreflow.core.documents import CorpusDocument, PackagedDocument, SplitDocument
from genreflow.evaluation import card
from genreflow.evaluation.document import EvaluationDocument
from genreflow.registry.runs import corpus_name
from genreflow.registry.store import MODEL_NAME
from genreflow.registry.versions import DOCUMENT_TAG, Version

SPACE = "\u00a0"
PADDING = 3 * SPACE
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
Predicts the genre of a piece of music. Every version is one trained model with its packaged runtimes and \
its evaluation.

- **@champion** is what `genreflow classify`, `genreflow serve` and `genreflow.load("champion")` use. \
It moves only when a candidate passes the gate (both models on the same clips, none of them seen in \
training), or by hand with `genreflow promote`, back with `genreflow rollback`.
- **@challenger** is the latest version that the gate did not promote.

Figures on a leaky split are optimistic; versions trained on synthetic music say nothing about real music.
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
        **({"pretraining": model.pretraining} if model.pretraining else {}),
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
        "scored_with": evaluation.scored_with,
    }


def headline(evaluation: EvaluationDocument) -> str:
    """How good, in a line, its figures kept together."""
    return _unbroken(evaluation.headline)


def describe(
    packaged: PackagedDocument,
    evaluation: EvaluationDocument,
    corpus: CorpusDocument,
    split: SplitDocument,
    trace: Trace,
) -> str:
    """A version's description: how good, whether champion, what it is, per genre, where it came from."""
    facts = card.ModelFacts(
        packaged=packaged,
        data=corpus_name(corpus),
        accuracy=evaluation.accuracy if evaluation.measured else None,
        accuracy_ci95=evaluation.accuracy_ci95 if evaluation.measured else None,
        test_clips=evaluation.clips,
        leaky=packaged.model.leaky or evaluation.leaky,
        leak_reason=evaluation.leak_reason,
        seen_clips=evaluation.seen_clips,
        unused_clips=split.counts.get("unused", 0),
        quarantined=corpus.quarantined,
        scored_with=_scored_with(evaluation),
    )
    # MLflow's list of versions shows the first characters of this line, unformatted.
    parts = [
        evaluation.headline,
        *card.warnings(facts),
        DECISION,
        "Not yet: the gate has not compared it.",
        WHAT,
        card.bullets(card.model_rows(facts)),
    ]
    ending = _lineage(packaged, corpus, trace)
    table = card.per_genre(evaluation.per_genre, PADDING) if evaluation.measured else "(Not measured.)"
    if len("\n\n".join([*parts, table, ending])) > DESCRIPTION_CHARACTERS - 1200:
        table = "(The table per genre is too long for this page: it is in the report.)"
    parts += ["### Per genre", table, "### Where it came from", ending]
    return _unbroken("\n\n".join(parts))


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
        rows.append((link, names, _accuracy(tags), f"{tags.get('data', '')}, {split}", reason))
    head = ("version", "now", "accuracy (95 % interval)", "data, split", "why it is, was, or is not champion")
    kept = description.partition(OVERVIEW)[0].rstrip()[: DESCRIPTION_CHARACTERS // 3]
    table = card.table(head, rows, PADDING)
    while len(kept) + len(OVERVIEW) + len(table) + 4 > DESCRIPTION_CHARACTERS and rows:
        rows.pop()
        table = card.table(head, rows, PADDING)
    return f"{kept}\n\n{OVERVIEW}\n\n{table}"


def with_decision(description: str, decision: str) -> str:
    """The description with another decision, shortened where MLflow has no room."""
    before, _, rest = description.partition(DECISION)
    _, _, after = rest.partition(WHAT)
    room = DESCRIPTION_CHARACTERS - len(before) - len(DECISION) - len(WHAT) - len(after) - 4
    if len(decision) > room:
        decision = decision[: max(room - 1, 0)] + "…"
    return f"{before}{DECISION}\n\n{decision}\n\n{WHAT}{after}"


def decision_of(description: str) -> str:
    """The part that `with_decision` writes."""
    return description.partition(DECISION)[2].partition(WHAT)[0].strip()


def _accuracy(tags: dict[str, str]) -> str:
    """`82.0 % (77.0 to 86.0)` from a version's tags; empty where they are not genreflow's."""
    try:
        low, high = json.loads(tags["accuracy_ci95"])
        text = f"{card.percent(float(tags['accuracy']))} ({low * 100:.1f} to {high * 100:.1f})"
        return text.replace(" ", SPACE)
    except (KeyError, TypeError, ValueError):
        return NOT_MEASURED if tags.get("accuracy") == NOT_MEASURED else ""


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


def _scored_with(evaluation: EvaluationDocument) -> str | None:
    spare = evaluation.fallback
    if spare is None or not evaluation.measured:
        return evaluation.scored_with if evaluation.measured else None
    return (
        f"{evaluation.scored_with}; its fallback {spare.label} has {card.percent(spare.accuracy)} "
        f"and decides alike on {card.percent(spare.equal_decisions)} of the clips"
    )


def _unbroken(text: str) -> str:
    """With figures kept together with their percent sign."""
    return text.replace(" %", f"{SPACE}%")
