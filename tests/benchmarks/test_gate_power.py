"""The gate's power: how often a true gain is promoted, and a true loss, by clips and by disagreement.

The tables in docs/gate.md come from here: `pytest -s -m bench tests/benchmarks/test_gate_power.py`.
"""

import numpy as np
import pandas as pd
import pytest

from genreflow.core.genres import GENRES
from genreflow.evaluation.gate import GatePolicy, ModelFacts, decide
from genreflow.evaluation.uncertainty import paired_interval

CHAMPION_ACCURACY = 0.80
TRIALS = 400
POLICY = GatePolicy()


def facts(name: str) -> ModelFacts:
    return ModelFacts(
        name=name,
        digest=name,
        genres=GENRES,
        synthetic=False,
        train_clips={},
        validation_clips={},
        runtimes=("openvino",),
    )


def clips_of(count: int) -> pd.DataFrame:
    """Clips of the ten genres in turn, without predictions."""
    names = [f"clip {index}" for index in range(count)]
    genres = [GENRES[index % len(GENRES)] for index in range(count)]
    return pd.DataFrame(
        {
            "clip_id": names,
            "sha256": names,
            "duplicate_cluster": names,
            "near_duplicate_cluster": names,
            "genre": genres,
            "seen": False,
            "predicted": genres,
        }
    )


def answers(clips: pd.DataFrame, right: np.ndarray) -> pd.DataFrame:
    return clips.assign(predicted=clips["genre"].where(right, "something else"))


def promoted(clips: int, gain: float, disagreement: float, policy: GatePolicy = POLICY) -> float:
    """Share of trials in which a candidate of that true gain is promoted.

    Args:
        disagreement: share of clips on which one model is right and the other wrong.
    """
    only_new, only_old = (disagreement + gain) / 2, (disagreement - gain) / 2
    both = CHAMPION_ACCURACY - only_old
    rng = np.random.default_rng([clips, round(1000 * gain) + 1000, round(1000 * disagreement)])
    count, music = 0, clips_of(clips)
    for _ in range(TRIALS):
        kind = rng.choice(4, size=clips, p=[both, only_new, only_old, 1 - both - only_new - only_old])
        new, old = answers(music, kind <= 1), answers(music, (kind == 0) | (kind == 2))
        decision = decide(new, old, facts("new"), facts("version 1"), policy)
        count += decision.promote
    return count / TRIALS


@pytest.mark.bench
def test_power() -> None:
    gains = (-0.05, -0.03, 0.0, 0.03, 0.05, 0.08, 0.10)
    print(f"\nShare promoted of {TRIALS} trials; the champion is right on {CHAMPION_ACCURACY:.0%}")
    print("| clips | disagreement | " + " | ".join(f"{gain * 100:+.0f}" for gain in gains) + " |")
    print("| --- | --- | " + " | ".join("---" for _ in gains) + " |")
    shares = {}
    for clips in (100, 290, 1000):
        for disagreement in (0.12, 0.25):
            row = []
            for gain in gains:
                shares[clips, disagreement, gain] = promoted(clips, gain, disagreement)
                row.append(f"{shares[clips, disagreement, gain]:.1%}")
            print(f"| {clips} | {disagreement:.0%} | " + " | ".join(row) + " |")
    assert all(share <= 0.02 for (_, _, gain), share in shares.items() if gain <= -0.03)
    assert all(share <= 0.15 for (_, _, gain), share in shares.items() if gain == 0.0)
    assert 0.15 <= shares[290, 0.25, 0.03] <= 0.40
    assert shares[1000, 0.25, 0.05] > 0.8


@pytest.mark.bench
def test_genre_floors_rarely_reject_a_true_gain() -> None:
    without = GatePolicy(genre_floor=0.0, genre_max_drop=1.0)
    print("\n| clips | gain | promoted | without genre floors |\n| --- | --- | --- | --- |")
    for clips, gain in ((290, 0.05), (290, 0.10)):
        given, free = promoted(clips, gain, 0.25), promoted(clips, gain, 0.25, without)
        print(f"| {clips} | {gain * 100:+.0f} | {given:.1%} | {free:.1%} |")
        assert free - given < 0.08


def equal_models(rng: np.random.Generator, count: int, clips: int, disagreement: float) -> np.ndarray:
    """(count, clips) booleans: which clips models of equal accuracy are right on.

    On part of the clips all are right or wrong together, on the rest each is right by an even chance: two
    models disagree on half of it.
    """
    loose = rng.random(clips) < 2 * disagreement
    together = rng.random(clips) < (CHAMPION_ACCURACY - disagreement) / (1 - 2 * disagreement)
    return np.where(loose, rng.random((count, clips)) < 0.5, together)


def best_of_equals(count: int, clips: int, disagreement: float) -> tuple[float, float, float]:
    """Of equal models tried one after another on one test split, means over the trials.

    Returns:
        By how much the most accurate one seems better than they are on average; how often the champion
        changes; by how much the last champion seems better. Shares of clips.
    """
    rng = np.random.default_rng([count, clips, round(1000 * disagreement)])
    best, changes, champion = [], [], []
    for _ in range(TRIALS):
        right = equal_models(rng, count, clips, disagreement)
        shares, mean = right.mean(axis=1), right.mean()
        now, moved = 0, 0
        for new in range(1, count):
            low, _ = paired_interval(right[new].astype(float), right[now].astype(float), POLICY.confidence)
            if shares[new] > shares[now] and low >= -POLICY.margin:
                now, moved = new, moved + 1
        best.append(shares.max() - mean)
        changes.append(moved)
        champion.append(shares[now] - mean)
    return float(np.mean(best)), float(np.mean(changes)), float(np.mean(champion))


@pytest.mark.bench
def test_repeated_use_of_a_test_split() -> None:
    print("\n| models | disagreement | best of them | champion changes | last champion |")
    print("| --- | --- | --- | --- | --- |")
    gains = {}
    for count in (2, 5, 10, 20, 50):
        for disagreement in (0.12, 0.25):
            best, changes, champion = best_of_equals(count, 290, disagreement)
            gains[count, disagreement] = best
            print(
                f"| {count} | {disagreement:.0%} | {best * 100:+.1f} | {changes:.2f} "
                f"| {champion * 100:+.1f} |"
            )
    assert gains[50, 0.12] > gains[10, 0.12] > gains[2, 0.12] > 0
