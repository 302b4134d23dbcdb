"""Promote: the gate's decision, on predictions and latencies of the machine that decides."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genreflow.core import progress
from genreflow.core.documents import PackagedDocument
from genreflow.core.errors import ChampionChangedError, ModelError, SettingsError
from genreflow.evaluation.gate import Decision, GatePolicy, ModelFacts
from genreflow.steps.reporting import report_step, retry_mlflow

if TYPE_CHECKING:
    import pandas as pd

    from genreflow.evaluation.document import EvaluationDocument
    from genreflow.inference.classifier import Classifier
    from genreflow.registry import Version

DECISIONS = 5
"""How often the gate decides where another run changes the champion each time."""
LATENCY_REPEATS = 5
"""Enough for the median that the gate's latency limit refers to."""


def promote(
    version: str, packaged: Path, evaluation: Path, corpus: Path, policy: Mapping[str, Any]
) -> tuple[Decision, tuple[str, ...], bool]:
    """Decide whether a registered version becomes champion, write the decision down, and move the alias last.

    Args:
        version: the candidate's version in the registry.
        packaged: the candidate's packaged model.
        evaluation: the candidate's evaluation, on the test split of `corpus`.
        corpus: the corpus artifact's folder.
        policy: of `GatePolicy`.

    Returns:
        The decision, the aliases that the version has after it, and whether its bento is to be built: it was
        promoted now, or it is champion and no bento of it is on record (an earlier build failed).
    """
    from genreflow import registry

    with report_step("promote", packaged=packaged, evaluation=evaluation, corpus=corpus):
        chosen = GatePolicy.model_validate(dict(policy))

        def decide() -> tuple[Decision, tuple[str, ...], bool]:
            decision = _decide_until_it_holds(version, packaged, evaluation, corpus, chosen)
            now = registry.version(version)
            unbuilt = registry.CHAMPION in now.aliases and registry.BENTO_TAG not in now.tags
            return decision, now.aliases, decision.promote or unbuilt

        return retry_mlflow("promote", decide)


def _decide_until_it_holds(
    version: str, packaged: Path, evaluation: Path, corpus: Path, policy: GatePolicy
) -> Decision:
    """Decide again where the champion changes while the candidate is compared with it."""
    for _ in range(DECISIONS):
        try:
            return _promote(version, packaged, evaluation, corpus, policy)
        except ChampionChangedError as error:
            changed = error
            progress.report("promote", f"{changed} Deciding again.")
    raise ChampionChangedError(
        f"{changed} This happened {DECISIONS} times in a row: "
        "start genreflow run with the same arguments again."
    )


def _promote(version: str, packaged: Path, evaluation: Path, corpus: Path, policy: GatePolicy) -> Decision:
    from genreflow import registry
    from genreflow.evaluation.document import PREDICTIONS

    earlier = registry.version(version).tags
    if earlier.get("decision") == "rolled back":
        # a person's judgement stands until a person changes it
        why = f"kept: {earlier['decision_reason']}. To promote it anyway: genreflow promote {version}"
        return Decision(promote=False, verdict="kept", reason=why, numbers={})
    champion = registry.champion()
    decision = _decide(version, champion, packaged, evaluation, corpus, policy)
    key = registry.split_key(_clip_rows(evaluation / PREDICTIONS)["sha256"])
    return registry.apply_decision(version, decision, champion.version if champion else None, key)


def _decide(
    version: str,
    champion: "Version | None",
    packaged: Path,
    evaluation: Path,
    corpus: Path,
    policy: GatePolicy,
) -> Decision:
    """The gate's decision, on predictions and latencies of this machine."""
    from genreflow import registry
    from genreflow.evaluation import gate
    from genreflow.evaluation.document import PREDICTIONS, EvaluationDocument

    document, name = PackagedDocument.read(packaged), f"version {version}"
    if champion is not None and champion.digest == document.digest:
        facts = gate.facts(document, name)
        same = facts.model_copy(update={"name": f"version {champion.version}"})
        return gate.decide(_clip_rows(evaluation / PREDICTIONS), None, facts, same, policy)

    scores = EvaluationDocument.read(evaluation)
    predicted = _clip_rows(evaluation / PREDICTIONS)

    def score(loaded: _Loaded) -> "pd.DataFrame":
        return _score(loaded, scores, predicted, corpus)

    candidate = _load_served(packaged, name)
    if champion is None or (champion.tags.get("synthetic") == "true") != document.model.synthetic:
        # of a champion that is not compared its tags are enough: this code may be unable to read its files
        old = None if champion is None else _uncompared(champion, candidate)
        return gate.decide(score(candidate), None, candidate.facts(), old, policy)
    title, note = f"version {champion.version}", ""
    try:
        with _errors_of_champion():
            incumbent = _load_served(registry.fetch(champion.version), title)
        if set(incumbent.document.model.genres) == set(document.model.genres):
            candidate, incumbent, note = _comparable_precision(candidate, incumbent)
            scored = score(candidate)
            with _errors_of_champion():
                before = score(incumbent)
            decision = gate.decide(scored, before, candidate.facts(), incumbent.facts(), policy)
        else:
            decision = gate.decide(predicted, None, candidate.facts(), incumbent.facts(), policy)
    except _ChampionUnusableError as error:
        why = f"it cannot be loaded by this genreflow: {error}"
        return gate.not_comparable(title, why, len(predicted), policy)
    return _with_scoring(decision, candidate, incumbent, note)


class _ChampionUnusableError(Exception):
    """The champion cannot be loaded or scored; errors of the candidate fail the step instead."""


@contextmanager
def _errors_of_champion() -> Iterator[None]:
    try:
        yield
    except (ModelError, SettingsError) as error:
        raise _ChampionUnusableError(str(error)) from error


@dataclass(frozen=True)
class _Loaded:
    """A packaged model as it is compared."""

    name: str
    folder: Path
    document: PackagedDocument
    classifier: "Classifier"

    @property
    def scored_with(self) -> str:
        return f"{self.classifier.runtime} {self.classifier.precision}"

    @cached_property
    def latency_ms(self) -> float:
        """Median of one window, model only, on this machine."""
        from genreflow.inference.package_files import read_reference
        from genreflow.packaging.measurement import latency

        return latency(self.classifier, read_reference(self.folder)[0], LATENCY_REPEATS)[0]

    def facts(self) -> ModelFacts:
        from genreflow.evaluation import gate

        return gate.facts(self.document, self.name, self.scored_with, self.latency_ms)


def _load_served(folder: Path, name: str) -> _Loaded:
    """A model with its declared runtime and precision; with its fallback where they cannot run here."""
    from genreflow.inference.loading import load_checked_classifier

    return _Loaded(name, folder, PackagedDocument.read(folder), load_checked_classifier(folder))


def _comparable_precision(candidate: _Loaded, champion: _Loaded) -> tuple[_Loaded, _Loaded, str]:
    """Both models as declared or, where one cannot run so here, both in f32, with the reason."""
    from genreflow.inference.loading import fallback, load_classifier

    off = [one for one in (candidate, champion) if one.scored_with != one.document.served.label]
    if not off:
        return candidate, champion, ""
    named = " and ".join(f"{one.name} ({one.document.served.label})" for one in off)
    note = f"Both were scored in f32, as {named} cannot run on this machine as declared"
    spare = []
    for one, errors in ((candidate, nullcontext()), (champion, _errors_of_champion())):
        choice = fallback(one.document)
        with errors:
            classifier = load_classifier(one.folder, choice.runtime, choice.precision)  # type: ignore[arg-type]
        spare.append(replace(one, classifier=classifier))
    return spare[0], spare[1], note


def _score(
    loaded: _Loaded, scores: "EvaluationDocument", predicted: "pd.DataFrame", corpus: Path
) -> "pd.DataFrame":
    """A model's clip-level predictions on the candidate's test clips, made by this kind of processor.

    The candidate's evaluation is used where it was made with the same runtime, precision and instructions.
    """
    from genreflow.corpus.store import Corpus
    from genreflow.evaluation.scores import clip_predictions
    from genreflow.inference.processor import instruction_set

    evaluated = scores.model.packaged_digest == loaded.document.digest
    if (
        evaluated
        and scores.scored_with == loaded.scored_with
        and scores.instruction_set == instruction_set()
        and loaded.classifier.device == "cpu"
    ):
        return predicted
    progress.report("promote", f"scoring {loaded.name} on {len(predicted)} clips with {loaded.scored_with}")
    return clip_predictions(
        loaded.classifier,
        loaded.document.digest,
        Corpus.open(corpus),
        predicted["clip_id"].tolist(),
        scores.split_fingerprint or "",
    )


def _uncompared(champion: "Version", candidate: _Loaded) -> ModelFacts:
    """What the gate needs of a champion that it does not compare, by its tags."""
    return ModelFacts(
        name=f"version {champion.version}",
        digest=champion.digest or "",
        genres=candidate.document.model.genres,
        synthetic=champion.tags.get("synthetic") == "true",
        train_clips={},
        validation_clips={},
        runtimes=(),
    )


def _with_scoring(decision: Decision, candidate: _Loaded, champion: _Loaded, note: str) -> Decision:
    """The decision with what both models were scored with, and with why that is not as declared."""
    from genreflow.inference.processor import instruction_set

    numbers = {
        "candidate_scored_with": candidate.scored_with,
        "champion_scored_with": champion.scored_with,
        "candidate_latency_ms": candidate.latency_ms,
        "champion_latency_ms": champion.latency_ms,
        "instruction_set": instruction_set(),
    }
    reason = f"{decision.reason}. {note}" if note else decision.reason
    return decision.model_copy(update={"reason": reason, "numbers": decision.numbers | numbers})


def _clip_rows(predictions: Path) -> "pd.DataFrame":
    import pandas as pd

    table = pd.read_parquet(predictions)
    return table[table["level"] == "clip"].reset_index(drop=True)
