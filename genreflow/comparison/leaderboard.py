"""The leaderboard: every candidate's figures in one document, and which is chosen for the gate."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd

from genreflow.comparison.agreement import Agreement, agreement, ensemble
from genreflow.comparison.candidate import OUT_OF_FOLD, VALIDATION, Candidate, Score
from genreflow.comparison.further_tests import FurtherTests
from genreflow.comparison.seconds_heard import SecondsHeard
from genreflow.core.digests import code_version
from genreflow.core.documents import Document, Frozen
from genreflow.core.errors import GenreflowError
from genreflow.evaluation import metrics
from genreflow.evaluation.document import Confusion, Interval
from genreflow.evaluation.predictions import probability_columns

ENSEMBLE_OF = 3
"""The best so many candidates, by what the candidate is chosen by."""


class GenreFigures(Frozen):
    """One genre against the rest on the test split; None where undefined."""

    recall: float | None
    auc: float | None


class LeaderboardRow(Frozen):
    """A candidate's line."""

    name: str
    family: str
    chosen: bool
    """Whether it is the candidate for the gate."""
    train: Score | None
    validation: Score | None
    out_of_fold: Score | None
    test: Score
    macro_f1: float
    macro_f1_ci95: Interval
    macro_auc: float | None
    per_genre: dict[str, GenreFigures]
    ece: float
    """Expected calibration error on the test split."""
    parameters: int | None
    served_bytes: int
    training_seconds: float
    latency_30s_ms: float
    real_time_factor: float
    scored_with: str
    """Runtime and precision, as it would be served."""
    pretrained: str | None
    pretraining: str | None
    run_id: str | None
    """The MLflow run that trained it, which may be older than the comparison."""
    packaged_digest: str
    confusion: Confusion
    seconds_heard: tuple[SecondsHeard, ...]


class EnsembleRow(Frozen):
    """The mean of the best candidates' probabilities: for orientation, never registered."""

    names: tuple[str, ...]
    selection: Score | None
    """On what the candidate is chosen by."""
    test: Score
    macro_f1: float


class ComparisonDocument(Document):
    """Several families on one corpus and split. Beside it: `report.html`, `plots/`."""

    file_name: ClassVar[str] = "comparison.json"
    source: str
    corpus_fingerprint: str
    split_fingerprint: str
    protocol: str
    fold: int | None
    leaky: bool
    leak_reason: str | None
    synthetic: bool
    counts: dict[str, int]
    genres: tuple[str, ...]
    chosen_by: str
    """What the candidate was chosen by; never the test split."""
    candidate: str
    """The chosen one's name."""
    reason: str
    folds: int
    """0 without."""
    folds_leak_reason: str | None
    rows: tuple[LeaderboardRow, ...]
    """The best first, by what the candidate is chosen by."""
    ensemble: EnsembleRow | None
    agreement: Agreement
    code_version: str
    further: tuple[FurtherTests, ...] = ()
    """Of the best two, where requested: scores on another source, and under distortions."""
    parent_run_id: str | None = None
    """The MLflow run of the comparison; None until it is logged."""

    @property
    def headline(self) -> str:
        """The chosen candidate, in a sentence."""
        return f"{self.candidate} is the candidate: {self.reason}"


def build(candidates: Sequence[Candidate]) -> ComparisonDocument:
    """The leaderboard of candidates that were trained on one corpus and split.

    Raises:
        GenreflowError: they were not.
    """
    music, parts = candidates[0].corpus, candidates[0].split
    for one in candidates:
        trained_on = {(one.corpus.fingerprint, one.split.fingerprint)}
        evaluated_on = {(one.evaluation.corpus_fingerprint, one.evaluation.split_fingerprint)}
        if trained_on | evaluated_on != {(music.fingerprint, parts.fingerprint)}:
            raise GenreflowError(
                f"The candidate {one.name} is of another corpus or split than {candidates[0].name}: compare "
                "again."
            )
    ranked = sorted(candidates, key=_rank)
    best = ranked[0]
    folds = best.document.folds
    return ComparisonDocument(
        source=music.source,
        corpus_fingerprint=music.fingerprint,
        split_fingerprint=parts.fingerprint,
        protocol=parts.protocol,
        fold=parts.fold,
        leaky=parts.leaky,
        leak_reason=parts.leak_reason,
        synthetic=music.synthetic,
        counts=parts.counts,
        genres=music.genres,
        chosen_by=f"out-of-fold predictions, {folds} folds" if folds else "validation clips",
        candidate=best.name,
        reason=_reason(ranked),
        folds=folds,
        folds_leak_reason=next(filter(None, (one.document.folds_leak_reason for one in ranked)), None),
        rows=tuple(_row(one, one is best) for one in ranked),
        ensemble=_ensemble(ranked[:ENSEMBLE_OF]) if len(ranked) > 1 else None,
        agreement=agreement({one.name: _test_clips(one) for one in ranked}),
        code_version=code_version(),
    )


def chosen_score(candidate: Candidate) -> Score:
    """What a candidate is chosen by: out-of-fold predictions where there are folds, else validation clips.

    Raises:
        GenreflowError: there are neither.
    """
    document = candidate.document
    score = document.out_of_fold or document.validation
    if score is None:
        raise GenreflowError(
            f"The candidate {candidate.name} has neither validation clips nor folds to be chosen by: compare "
            "with --folds 3."
        )
    return score


def _rank(candidate: Candidate) -> tuple[float, float, str]:
    """The most accurate first; of equally accurate ones the likelier, then by name."""
    score = chosen_score(candidate)
    return (-score.accuracy, score.nll, candidate.name)


def _reason(ranked: Sequence[Candidate]) -> str:
    score = chosen_score(ranked[0])
    what = "out of fold" if ranked[0].document.folds else "validation"
    low, high = score.accuracy_ci95
    text = (
        f"accuracy {score.accuracy:.1%} on {score.clips} {what} clips (95 % interval {low:.1%} to "
        f"{high:.1%}), negative log-likelihood {score.nll:.3f}"
    )
    if len(ranked) == 1:
        return f"{text}."
    second = chosen_score(ranked[1])
    return (
        f"{text}; then {ranked[1].name} with {second.accuracy:.1%} and {second.nll:.3f}. Of equally "
        "accurate ones that with the lower negative log-likelihood is chosen."
        if second.accuracy == score.accuracy
        else f"{text}; then {ranked[1].name} with {second.accuracy:.1%}."
    )


def _test_clips(candidate: Candidate) -> pd.DataFrame:
    return candidate.test[candidate.test["level"] == "clip"].reset_index(drop=True)


def _row(candidate: Candidate, chosen: bool) -> LeaderboardRow:
    document, scores = candidate.document, candidate.evaluation
    genres = candidate.packaged.model.genres
    test = Score.of(candidate.test, genres)
    assert test is not None
    return LeaderboardRow(
        name=document.name,
        family=document.family,
        chosen=chosen,
        train=document.train,
        validation=document.validation,
        out_of_fold=document.out_of_fold,
        test=test,
        macro_f1=scores.macro_f1,
        macro_f1_ci95=scores.macro_f1_ci95,
        macro_auc=scores.macro_auc,
        per_genre={
            genre: GenreFigures(recall=of.recall, auc=of.auc) for genre, of in scores.per_genre.items()
        },
        ece=scores.calibration.ece,
        parameters=document.parameters,
        served_bytes=document.served_bytes,
        training_seconds=document.training_seconds,
        latency_30s_ms=document.latency_30s_ms,
        real_time_factor=document.real_time_factor,
        scored_with=scores.scored_with,
        pretrained=scores.pretrained,
        pretraining=scores.pretraining,
        run_id=document.run_id,
        packaged_digest=candidate.packaged.digest,
        confusion=scores.confusion,
        seconds_heard=document.seconds_heard,
    )


def _ensemble(best: Sequence[Candidate]) -> EnsembleRow:
    genres = best[0].packaged.model.genres
    mean = ensemble([_test_clips(one) for one in best], genres)
    of = OUT_OF_FOLD if best[0].document.folds else VALIDATION
    others = ensemble([one.clips(of) for one in best], genres)
    test = Score.of(mean, genres)
    assert test is not None
    label = {genre: at for at, genre in enumerate(genres)}
    truth = mean["genre"].map(label).to_numpy(np.int64)
    answers = mean[probability_columns(genres)].to_numpy(float).argmax(axis=1)
    return EnsembleRow(
        names=tuple(one.name for one in best),
        selection=Score.of(others, genres),
        test=test,
        macro_f1=metrics.macro_f1(truth, answers),
    )
