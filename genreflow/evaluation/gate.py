"""The gate: two sets of predictions in, a decision with its reason out. Pure: no files, no clock, no chance.

The policy, its statistics and its power are explained in docs/gate.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genreflow.core.documents import Frozen, PackagedDocument
from genreflow.core.errors import GenreflowError
from genreflow.evaluation.uncertainty import binomial_tail, paired_interval, wilson
from genreflow.inference.backends import AUTO, BACKENDS, RuntimeChoice, backend

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("clip_id", "sha256", "duplicate_cluster", "near_duplicate_cluster", "genre", "seen", "predicted")
Verdict = Literal["promoted", "kept", "identical"]


class GatePolicy(Frozen):
    """When a candidate becomes champion. Shares and recalls are fractions, 0 to 1."""

    min_clips: int = Field(default=30, ge=1)
    """Fewer recordings that neither model has seen: not comparable."""
    margin: float = Field(default=0.01, ge=0, lt=1)
    """The largest loss of accuracy that the interval may still hold."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of the interval of the difference."""
    min_accuracy: float = Field(default=0.25, ge=0, le=1)
    """No champion below this, whatever it is compared with."""
    genre_min_clips: int = Field(default=20, ge=1)
    """Recordings of a genre from which its recall is judged on its own."""
    genre_floor: float = Field(default=0.2, ge=0, le=1)
    """Least recall of such a genre, unless the champion has less."""
    genre_max_drop: float = Field(default=0.25, ge=0, le=1)
    """Largest fall of such a genre's recall against the champion."""
    runtime: RuntimeChoice = AUTO
    """The runtime that must have passed parity; `auto` is any that is meant for a service on the CPU:
    openvino, or of family `shallow` onnxruntime or sklearn."""
    max_latency_ms: float | None = Field(default=2000.0, gt=0)
    """Largest median latency of one window as the model is served, on the machine that decides."""
    leaky_may_displace: bool = False
    """Whether a model from a leaky split may displace one from a leak-free split."""


class ModelFacts(Frozen):
    """What the gate needs to know of a model besides its predictions."""

    name: str
    """Its name in the reason: `version 3`, `the candidate`."""
    digest: str
    genres: tuple[str, ...]
    synthetic: bool
    train_clips: dict[str, str]
    """sha256 → duplicate cluster of every clip trained on."""
    validation_clips: dict[str, str]
    """The same of every clip used for selection."""
    runtimes: tuple[str, ...]
    """Runtimes that passed parity."""
    scored_with: str = "unknown"
    """Runtime and precision of its predictions and latency."""
    latency_ms: float | None = None
    """Median latency of one window, measured on the machine that decides; None where it was not measured."""
    protocol: str = "unknown"
    leaky: bool = False
    pretrained: str | None = None

    @property
    def seen_sha256(self) -> frozenset[str]:
        return frozenset(self.train_clips) | frozenset(self.validation_clips)

    @property
    def seen_clusters(self) -> frozenset[str]:
        return frozenset(self.train_clips.values()) | frozenset(self.validation_clips.values())


class Decision(Frozen):
    """What the gate decided, why in a sentence, and every number behind it (JSON types only)."""

    promote: bool
    verdict: Verdict
    reason: str
    numbers: dict[str, Any]


def facts(
    packaged: PackagedDocument, name: str, scored_with: str = "unknown", latency_ms: float | None = None
) -> ModelFacts:
    """The facts of a packaged model.

    Args:
        name: its name in the reason.
        scored_with: runtime and precision of its predictions.
        latency_ms: of one window with them, on this machine.
    """
    model = packaged.model
    return ModelFacts(
        name=name,
        digest=packaged.digest,
        genres=model.genres,
        synthetic=model.synthetic,
        train_clips=model.train_clips,
        validation_clips=model.validation_clips,
        runtimes=tuple(dict.fromkeys(one.name for one in packaged.runtimes if one.usable)),
        scored_with=scored_with,
        latency_ms=latency_ms,
        protocol=model.protocol,
        leaky=model.leaky,
        pretrained=model.pretrained,
    )


def decide(
    candidate: "pd.DataFrame",
    champion: "pd.DataFrame | None",
    candidate_facts: ModelFacts,
    champion_facts: ModelFacts | None,
    policy: GatePolicy | None = None,
) -> Decision:
    """Whether the candidate becomes champion.

    Args:
        candidate: the candidate's clip-level predictions, the columns of `COLUMNS` (see
            `genreflow.evaluation.predictions.predict`), one row a clip.
        champion: the champion's on the same clips; not needed where the two are not compared (no champion, a
            synthetic one, the same digest).

    Raises:
        GenreflowError: a table lacks a column, repeats a clip, the tables disagree about a clip's genre, or
            there is a champion to compare with but no table of it.
    """
    policy = policy or GatePolicy()
    if champion_facts is not None and champion_facts.digest == candidate_facts.digest:
        reason = f"nothing new: identical to {champion_facts.name}"
        return Decision(
            promote=False, verdict="identical", reason=reason, numbers={"digest": candidate_facts.digest}
        )
    _check(candidate, "candidate")
    if champion_facts is None:
        return _decide_alone(candidate, candidate_facts, "there was no champion", policy)
    if candidate_facts.synthetic and not champion_facts.synthetic:
        return _kept(
            f"kept {champion_facts.name}: the candidate was trained on synthetic music and can never "
            "displace a champion trained on real music",
            _numbers(policy, clips=len(candidate)),
        )
    if champion_facts.synthetic and not candidate_facts.synthetic:
        why = f"{champion_facts.name} was trained on synthetic music, this one on real music"
        return _decide_alone(candidate, candidate_facts, why, policy)
    if candidate_facts.genres != champion_facts.genres and set(candidate_facts.genres) != set(
        champion_facts.genres
    ):
        return _kept(
            f"kept {champion_facts.name}: not comparable, as the two models have different genres "
            f"({', '.join(candidate_facts.genres)} against {', '.join(champion_facts.genres)})",
            _numbers(policy, clips=len(candidate)),
        )
    if champion is None:
        raise GenreflowError(f"The gate needs {champion_facts.name}'s predictions on the candidate's clips.")
    _check(champion, "champion")
    return _decide_paired(candidate, champion, candidate_facts, champion_facts, policy)


def not_comparable(champion: str, why: str, clips: int, policy: GatePolicy) -> Decision:
    """The decision where the champion cannot be scored at all.

    Args:
        champion: how the reason calls it: `version 3`.
        why: goes on after `not comparable, as`.
        clips: the candidate's test clips.
    """
    return _kept(f"kept {champion}: not comparable, as {why}", _numbers(policy, clips=clips))


def _decide_alone(table: "pd.DataFrame", model: ModelFacts, why: str, policy: GatePolicy) -> Decision:
    """Without a champion to compare with: floors, and better than chance."""
    unseen = table[~_seen(table, model)]
    recordings = _recordings(unseen, {"candidate": unseen})
    n, right = recordings.n, float(recordings.right["candidate"].sum())
    numbers = _numbers(policy, clips=len(table), seen_by_candidate=len(table) - len(unseen), recordings=n)
    if n == 0:
        return _kept(
            f"kept out: none of its {len(table)} clips was unseen in training and validation, so nothing "
            "speaks for the model" + _caveats(model),
            numbers,
        )
    accuracy = right / n
    chance = binomial_tail(n, right, 1 / len(model.genres))
    low, high = wilson(right, n, policy.confidence)
    numbers |= {
        "candidate_accuracy": accuracy,
        "candidate_interval": [low, high],
        "probability_by_chance": chance,
        "per_genre": recordings.per_genre(),
    }
    failed = _floors(model, accuracy, recordings, policy)
    if chance > 1 - policy.confidence:
        failed.insert(
            0,
            f"it predicts {right:g} of {n} clips correctly, which guessing among {len(model.genres)} genres "
            f"reaches with probability {chance:.2g}",
        )
    if failed:
        return _kept("kept out: " + "; ".join(failed) + _caveats(model), numbers | {"floors_failed": failed})
    return Decision(
        promote=True,
        verdict="promoted",
        reason=f"promoted: {why}, and the floors hold (accuracy {_percent(accuracy)} on {n} unseen clips, "
        f"{policy.confidence * 100:g} % interval {_percent(low)} to {_percent(high)})" + _caveats(model),
        numbers=numbers,
    )


def _decide_paired(
    candidate: "pd.DataFrame", champion: "pd.DataFrame", new: ModelFacts, old: ModelFacts, policy: GatePolicy
) -> Decision:
    """Both models on the clips that neither has seen."""
    both = candidate.merge(champion, on="clip_id", suffixes=("", "_champion"), validate="one_to_one")
    if (both["genre"] != both["genre_champion"]).any() or (both["sha256"] != both["sha256_champion"]).any():
        raise GenreflowError("The two models were scored on different clips under the same names.")
    seen_new, seen_old = _seen(both, new), _seen(both, old)
    unseen = both[~(seen_new | seen_old)]
    recordings = _recordings(
        unseen, {"candidate": unseen, "champion": unseen.assign(predicted=unseen["predicted_champion"])}
    )
    n = recordings.n
    numbers = _numbers(
        policy,
        clips=len(both),
        not_scored_by_both=len(candidate) + len(champion) - 2 * len(both),
        seen_by_candidate=int(seen_new.sum()),
        seen_by_champion=int(seen_old.sum()),
        compared=len(unseen),
        recordings=n,
    )
    if n < policy.min_clips:
        return _kept(
            f"kept {old.name}: not comparable, as only {n} of {len(both)} clips were seen by neither model "
            f"in training or validation ({int(seen_new.sum())} seen by the candidate, {int(seen_old.sum())} "
            f"by {old.name}), fewer than {policy.min_clips}" + _caveats(new),
            numbers,
        )
    right_new, right_old = recordings.right["candidate"], recordings.right["champion"]
    accuracy, accuracy_old = float(right_new.mean()), float(right_old.mean())
    difference = accuracy - accuracy_old
    low, high = paired_interval(right_new, right_old, policy.confidence)
    numbers |= {
        "candidate_accuracy": accuracy,
        "champion_accuracy": accuracy_old,
        "difference": difference,
        "difference_interval": [low, high],
        "only_candidate_right": float((right_new * (1 - right_old)).sum()),
        "only_champion_right": float(((1 - right_new) * right_old).sum()),
        "both_right": float((right_new * right_old).sum()),
        "both_wrong": float(((1 - right_new) * (1 - right_old)).sum()),
        "per_genre": recordings.per_genre(),
    }
    figures = (
        f"accuracy {_percent(accuracy)} on {n} clips that neither had seen, {old.name} "
        f"{_percent(accuracy_old)}; difference {_points(difference)} points, {policy.confidence * 100:g} % "
        f"interval {_points(low)} to {_points(high)}"
    )
    caveats = _caveats(new) + _old_caveat(old)
    failed = _floors(new, accuracy, recordings, policy)
    if new.leaky and not old.leaky and not policy.leaky_may_displace:
        failed.append(
            f"it was trained on a leaky split and {old.name} on a leak-free one, which comparing on unseen "
            "files cannot make up for"
        )
    if difference <= 0:
        failed.insert(0, "it is not better" if difference < 0 else "it is equally good, no better")
    elif low < -policy.margin:
        failed.insert(0, f"the interval reaches down to a loss over {policy.margin * 100:g} points")
    if failed:
        reason = f"kept {old.name}: {'; '.join(failed)} ({figures})" + caveats
        return _kept(reason, numbers | {"floors_failed": failed})
    return Decision(
        promote=True,
        verdict="promoted",
        reason=f"promoted: better than {old.name}, and the interval excludes a loss over "
        f"{policy.margin * 100:g} points ({figures})" + caveats,
        numbers=numbers,
    )


@dataclass(frozen=True)
class _Recordings:
    """Clips joined into recordings: a recording that lies in the corpus twice is one observation."""

    n: int
    right: dict[str, NDArray[np.float64]]
    """Per model (n,): the share of the recording's clips that it has right; 0 or 1 but for duplicates."""
    genre: NDArray[np.str_]

    def per_genre(self) -> dict[str, dict[str, float]]:
        """Recordings of each genre and each model's recall."""
        table: dict[str, dict[str, float]] = {}
        for genre in sorted(set(self.genre.tolist())):
            of_genre = self.genre == genre
            recalls = {model: float(right[of_genre].mean()) for model, right in self.right.items()}
            table[genre] = {"clips": int(of_genre.sum()), **recalls}
        return table


def _recordings(unseen: "pd.DataFrame", models: Mapping[str, "pd.DataFrame"]) -> _Recordings:
    """Join the rows of `unseen` by near duplicate cluster, in the clusters' alphabetical order."""
    clusters, index = np.unique(unseen["near_duplicate_cluster"].to_numpy(dtype=str), return_inverse=True)
    n = len(clusters)
    sizes = np.bincount(index, minlength=n).astype(float)
    right = {
        name: np.bincount(
            index, weights=(table["genre"] == table["predicted"]).to_numpy(dtype=float), minlength=n
        )
        / np.maximum(sizes, 1)
        for name, table in models.items()
    }
    genre = np.full(n, "", dtype=object)
    # A recording that carries two labels goes by the first in the alphabet, which no row order moves.
    for cluster, label in sorted(zip(index.tolist(), unseen["genre"].tolist(), strict=True), reverse=True):
        genre[cluster] = label
    return _Recordings(n, right, genre.astype(str))


def _floors(model: ModelFacts, accuracy: float, recordings: _Recordings, policy: GatePolicy) -> list[str]:
    """Sentences for the floors that the candidate does not hold."""
    failed = []
    if accuracy < policy.min_accuracy:
        failed.append(
            f"its accuracy of {_percent(accuracy)} is below the floor of {_percent(policy.min_accuracy)}"
        )
    for genre, row in recordings.per_genre().items():
        if row["clips"] < policy.genre_min_clips:
            continue
        recall, before = row["candidate"], row.get("champion")
        floor = policy.genre_floor if before is None else min(policy.genre_floor, before)
        if recall < floor:
            failed.append(
                f"its recall of {genre} is {_percent(recall)}, below the floor of "
                f"{_percent(policy.genre_floor)}"
            )
        elif before is not None and before - recall > policy.genre_max_drop:
            failed.append(
                f"the recall of {genre} falls from {_percent(before)} to {_percent(recall)}, more than "
                f"{policy.genre_max_drop * 100:g} points"
            )
    wanted = [policy.runtime] if policy.runtime != AUTO else [one for one in BACKENDS if backend(one).for_cpu]
    if not set(wanted) & set(model.runtimes):
        failed.append(f"it did not pass parity in {' or '.join(wanted)}, which gate.runtime requires")
    slowest, latency = policy.max_latency_ms, model.latency_ms
    if slowest is not None and latency is not None and latency > slowest:
        failed.append(f"a window takes {latency:.0f} ms with {model.scored_with}, over {slowest:.0f} ms")
    return failed


def _seen(table: "pd.DataFrame", model: ModelFacts) -> "pd.Series[bool]":
    """Which rows the model has seen in training or validation.

    By content, by exact duplicate, or by near duplicate as `predict` found it: that takes the whole corpus.
    """
    met = table["sha256"].isin(model.seen_sha256) | table["duplicate_cluster"].isin(model.seen_clusters)
    return met | table["seen"]


def _check(table: "pd.DataFrame", name: str) -> None:
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise GenreflowError(
            f"The {name}'s predictions lack {', '.join(missing)}; the gate needs {', '.join(COLUMNS)}."
        )
    if table["clip_id"].duplicated().any():
        again = table["clip_id"][table["clip_id"].duplicated()].iloc[0]
        raise GenreflowError(f"The {name}'s predictions name {again} twice; the gate needs one row per clip.")


def _numbers(policy: GatePolicy, **counts: int) -> dict[str, Any]:
    return {**counts, "policy": policy.model_dump()}


def _kept(reason: str, numbers: dict[str, Any]) -> Decision:
    return Decision(promote=False, verdict="kept", reason=reason, numbers=numbers)


def _caveats(model: ModelFacts) -> str:
    """What a reader must know of the figures, as a tail of the reason."""
    tail = ""
    if model.leaky and model.protocol != "all":
        tail += f". The {model.protocol} split is leaky: its figures are optimistic"
    if model.synthetic:
        tail += ". Synthetic music: nothing is said about real music"
    return tail


def _old_caveat(old: ModelFacts) -> str:
    return f". {old.name.capitalize()}'s own split was leaky, which favours it here" if old.leaky else ""


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _points(difference: float) -> str:
    return f"{difference * 100:+.1f}"
