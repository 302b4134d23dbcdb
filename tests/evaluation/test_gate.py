"""The gate's policy, case by case and as properties over many tables of predictions."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genreflow.core.errors import GenreflowError
from genreflow.core.genres import GENRES
from genreflow.evaluation.gate import Decision, GatePolicy, ModelFacts, decide
from genreflow.evaluation.uncertainty import paired_interval

OTHER = {genre: GENRES[(index + 1) % len(GENRES)] for index, genre in enumerate(GENRES)}


def clips(right: list[bool] | np.ndarray, clusters: list[str] | None = None) -> pd.DataFrame:
    """One clip a value, genres in turn; right where the value is true."""
    genres = [GENRES[index % len(GENRES)] for index in range(len(right))]
    names = [f"{genre}.{index:05d}" for index, genre in enumerate(genres)]
    return pd.DataFrame(
        {
            "clip_id": names,
            "sha256": [f"sha-{name}" for name in names],
            "duplicate_cluster": clusters or [f"cluster-{name}" for name in names],
            "near_duplicate_cluster": clusters or [f"cluster-{name}" for name in names],
            "genre": genres,
            "seen": False,
            "predicted": [genre if good else OTHER[genre] for genre, good in zip(genres, right, strict=True)],
        }
    )


def model(name: str = "the candidate", **facts: Any) -> ModelFacts:
    given_facts: dict[str, Any] = {
        "name": name,
        "digest": f"digest of {name}",
        "genres": GENRES,
        "synthetic": False,
        "train_clips": {},
        "validation_clips": {},
        "runtimes": ("openvino", "pytorch"),
        "scored_with": "openvino f32",
        "latency_ms": 20.0,
    }
    return ModelFacts(**(given_facts | facts))


def share(n: int, right: float, seed: int = 0) -> np.ndarray:
    """`n` booleans, `right` of them true, in a seeded order."""
    values = np.arange(n) < round(n * right)
    return np.random.default_rng(seed).permutation(values)


def compare(new: np.ndarray | list[bool], old: np.ndarray | list[bool], **policy: Any) -> Decision:
    return decide(clips(new), clips(old), model(), model("version 1"), GatePolicy(**policy))


def test_an_identical_model_is_nothing_new() -> None:
    facts = model("version 1")
    decision = decide(clips(share(100, 0.8)), None, model(digest=facts.digest), facts)
    assert (decision.verdict, decision.promote) == ("identical", False)
    assert decision.reason == "nothing new: identical to version 1"


def test_the_first_model_is_promoted_when_the_floors_hold() -> None:
    decision = decide(clips(share(50, 0.8)), None, model(), None)
    assert decision.verdict == "promoted"
    assert "no champion" in decision.reason
    assert "accuracy 80.0 % on 50" in decision.reason


def test_a_first_model_no_better_than_chance_is_kept_out() -> None:
    decision = decide(clips(share(50, 0.12)), None, model(), None)
    assert decision.verdict == "kept"
    assert "guessing among 10 genres" in decision.reason


def test_two_of_four_correct_are_not_better_than_chance_but_four_are() -> None:
    assert not decide(clips([True, False, False, False]), None, model(), None).promote
    assert decide(clips([True] * 4), None, model(), None).promote


def test_a_first_model_below_the_accuracy_floor_is_kept_out() -> None:
    decision = decide(clips(share(300, 0.24)), None, model(), None, GatePolicy(genre_floor=0.0))
    assert decision.verdict == "kept"
    assert "below the floor of 25.0 %" in decision.reason


def test_a_first_model_is_judged_only_on_clips_it_has_not_seen() -> None:
    table = clips(share(60, 0.9))
    seen = dict(zip(table["sha256"], table["duplicate_cluster"], strict=True))
    decision = decide(table, None, model(train_clips=seen), None)
    assert decision.verdict == "kept"
    assert "none of its 60 clips was unseen" in decision.reason


def test_the_reason_names_a_leaky_protocol() -> None:
    facts = model(leaky=True, protocol="random")
    decision = decide(clips(share(50, 0.8)), None, facts, None)
    assert decision.promote
    assert "random split is leaky: its figures are optimistic" in decision.reason


def test_a_synthetic_model_never_displaces_a_real_champion() -> None:
    decision = decide(clips([True] * 100), clips([False] * 100), model(synthetic=True), model("version 1"))
    assert decision.verdict == "kept"
    assert "synthetic music" in decision.reason


def test_a_real_model_displaces_a_synthetic_champion_without_comparison() -> None:
    decision = decide(clips(share(50, 0.6)), None, model(), model("version 1", synthetic=True))
    assert decision.verdict == "promoted"
    assert "version 1 was trained on synthetic music" in decision.reason


def test_a_real_model_that_guesses_does_not_displace_a_synthetic_champion() -> None:
    assert not decide(clips(share(50, 0.1)), None, model(), model("version 1", synthetic=True)).promote


def test_two_synthetic_models_are_compared_like_any_two() -> None:
    facts = model(synthetic=True), model("version 1", synthetic=True)
    assert decide(clips(share(100, 0.95)), clips(share(100, 0.7)), *facts).promote


def test_models_of_other_genres_are_not_comparable() -> None:
    decision = decide(clips(share(50, 0.8)), None, model(), model("version 1", genres=("a", "b")))
    assert decision.verdict == "kept"
    assert "not comparable" in decision.reason


def test_the_same_genres_in_another_order_are_comparable() -> None:
    old = model("version 1", genres=tuple(reversed(GENRES)))
    assert decide(clips(share(100, 0.95)), clips(share(100, 0.7)), model(), old).promote


def test_clips_seen_by_either_are_left_out_by_content_and_by_cluster() -> None:
    table = clips(share(100, 0.9))
    ids, clusters = list(table["sha256"]), list(table["duplicate_cluster"])
    new = model(train_clips={ids[0]: "elsewhere"}, validation_clips={"another file": clusters[1]})
    old = model("version 1", train_clips={ids[0]: clusters[0]}, validation_clips={ids[2]: clusters[2]})
    numbers = decide(table, clips(share(100, 0.5)), new, old).numbers
    assert (numbers["seen_by_candidate"], numbers["seen_by_champion"], numbers["compared"]) == (2, 2, 97)


def test_clips_whose_near_duplicate_was_seen_are_left_out_and_near_duplicates_count_once() -> None:
    table = clips(share(100, 0.9))
    table.loc[:1, "seen"] = True
    table.loc[10:12, "near_duplicate_cluster"] = "one recording"
    numbers = decide(table, clips(share(100, 0.5)), model(), model("version 1")).numbers
    assert (numbers["seen_by_candidate"], numbers["compared"], numbers["recordings"]) == (2, 98, 96)


def test_too_few_unseen_clips_are_not_comparable_and_the_numbers_are_reported() -> None:
    table = clips([True] * 93)
    old = model(
        "version 3", train_clips=dict(zip(table["sha256"][4:], table["duplicate_cluster"][4:], strict=True))
    )
    decision = decide(table, clips([False] * 93), model(), old)
    assert decision.verdict == "kept"
    assert "not comparable, as only 4 of 93" in decision.reason
    assert "89 by version 3" in decision.reason


def test_a_clearly_better_model_is_promoted_with_its_numbers() -> None:
    decision = compare(share(290, 0.85), share(290, 0.70))
    assert decision.verdict == "promoted"
    assert decision.numbers["difference"] == pytest.approx(0.15, abs=0.01)
    low, high = decision.numbers["difference_interval"]
    assert -0.01 < low < 0.15 < high
    assert decision.numbers["per_genre"]["blues"]["clips"] == 29


def test_a_gain_within_noise_is_kept() -> None:
    decision = compare(share(60, 0.82, seed=1), share(60, 0.78, seed=2))
    assert decision.verdict == "kept"
    assert "reaches down to a loss over 1 points" in decision.reason


def test_a_small_gain_whose_interval_stays_within_the_margin_is_promoted() -> None:
    old = np.ones(290, dtype=bool)
    old[:4] = False
    assert compare(np.ones(290, dtype=bool), old).promote


def test_a_genre_that_collapses_keeps_the_champion() -> None:
    old = share(400, 0.7)
    new = np.ones(400, dtype=bool)
    new[0::10], old[0::10] = False, True
    decision = compare(new, old)
    assert decision.numbers["difference"] > 0.1
    assert decision.verdict == "kept"
    assert "blues" in decision.reason


def test_a_genre_that_falls_but_not_to_the_floor_keeps_the_champion() -> None:
    new, old = np.ones(400, dtype=bool), share(400, 0.7)
    old[0::10] = True
    new[0:160:10] = False
    decision = compare(new, old)
    assert decision.verdict == "kept"
    assert "blues falls from 100.0 % to 60.0 %" in decision.reason


def test_a_genre_with_few_clips_is_not_judged_on_its_own() -> None:
    old = share(150, 0.6)
    new = np.ones(150, dtype=bool)
    new[0::10] = False
    assert compare(new, old).promote


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"runtimes": ("pytorch",)}, "did not pass parity in openvino or onnxruntime or sklearn"),
        ({"latency_ms": 9000.0}, "9000 ms with openvino f32, over 2000 ms"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_parity_and_latency_are_floors(facts: dict[str, Any], words: str, first: bool) -> None:
    new, old = clips([True] * 100), clips(share(100, 0.5))
    champion = (None, None) if first else (old, model("version 1"))
    decision = decide(new, champion[0], model(**facts), champion[1])
    assert decision.verdict == "kept"
    assert words in decision.reason


def test_a_leaky_model_does_not_displace_a_leak_free_one_unless_allowed() -> None:
    new, old = clips([True] * 100), clips(share(100, 0.5))
    leaky = model(leaky=True, protocol="random")
    decision = decide(new, old, leaky, model("version 1"))
    assert decision.verdict == "kept"
    assert "leaky split" in decision.reason
    assert decide(new, old, leaky, model("version 1"), GatePolicy(leaky_may_displace=True)).promote
    assert decide(new, old, leaky, model("version 1", leaky=True)).promote


def test_a_recording_that_lies_in_the_corpus_many_times_counts_once() -> None:
    new, old = share(60, 0.9), share(60, 0.6)
    single = compare(new, old)
    twice = [f"cluster {index % 60}" for index in range(240)]
    repeated = decide(
        clips(np.tile(new, 4), twice),
        clips(np.tile(old, 4), twice),
        model(),
        model("version 1"),
        GatePolicy(),
    )
    assert repeated.numbers["recordings"] == 60
    assert repeated.numbers["difference_interval"] == pytest.approx(single.numbers["difference_interval"])


def test_tables_that_do_not_fit_are_refused_with_an_error_message() -> None:
    table = clips([True] * 40)
    other = table.assign(genre="rock")
    for new, old, words in [
        (table.drop(columns="sha256"), table, "lack sha256"),
        (pd.concat([table, table]), table, "twice"),
        (table, other, "different clips"),
        (table, None, "needs version 1's predictions"),
    ]:
        with pytest.raises(GenreflowError, match=words):
            decide(new, old, model(), model("version 1"))


def test_the_paired_interval_is_newcombes() -> None:
    # Newcombe 1998, table III, method 10: a=36 b=12 c=2 d=0 of 50 gives 0.0569 to 0.3404.
    counts = {(1, 1): 36, (1, 0): 12, (0, 1): 2, (0, 0): 0}
    pairs = np.repeat(np.array(list(counts), dtype=float), list(counts.values()), axis=0)
    low, high = paired_interval(pairs[:, 0], pairs[:, 1], 0.95)
    assert low == pytest.approx(0.0569, abs=5e-4)
    assert high == pytest.approx(0.3404, abs=5e-4)


Pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300)


@settings(max_examples=150, deadline=None)
@given(Pairs)
def test_never_do_both_models_displace_each_other(pairs: list[tuple[bool, bool]]) -> None:
    new, old = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = compare(new, old, min_clips=1), compare(old, new, min_clips=1)
    assert not (there.promote and back.promote)
    assert there.numbers["difference"] == pytest.approx(-back.numbers["difference"])
    low, high = there.numbers["difference_interval"]
    assert back.numbers["difference_interval"] == pytest.approx([-high, -low])
    assert low <= there.numbers["difference"] + 1e-12
    assert there.numbers["difference"] <= high + 1e-12


@settings(max_examples=60, deadline=None)
@given(Pairs, st.integers(0, 2**31))
def test_the_order_of_rows_decides_nothing(pairs: list[tuple[bool, bool]], seed: int) -> None:
    new, old = clips([a for a, _ in pairs]), clips([b for _, b in pairs])
    facts = model(), model("version 1")
    plain = decide(new, old, *facts, GatePolicy(min_clips=1))
    shuffled = decide(
        new.sample(frac=1, random_state=seed),
        old.sample(frac=1, random_state=seed + 1),
        *facts,
        GatePolicy(min_clips=1),
    )
    assert shuffled == plain


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_identical_predictions_never_promote(right: list[bool]) -> None:
    assert not compare(right, right, min_clips=1).promote


@settings(max_examples=60, deadline=None)
@given(Pairs, st.sets(st.integers(0, 299)), st.sets(st.integers(0, 299)))
def test_clips_that_either_model_has_seen_are_not_compared(
    pairs: list[tuple[bool, bool]], first: set[int], more: set[int]
) -> None:
    new, old = clips([a for a, _ in pairs]), clips([b for _, b in pairs])

    def compared(rows: set[int]) -> int:
        table = new.iloc[sorted(row for row in rows if row < len(new))]
        facts = model(train_clips=dict(zip(table["sha256"], table["duplicate_cluster"], strict=True)))
        numbers = decide(new, old, facts, model("version 1"), GatePolicy(min_clips=1)).numbers
        assert numbers["compared"] == len(new) - len(table)
        return int(numbers["compared"])

    assert compared(first | more) <= compared(first)


@settings(max_examples=40, deadline=None)
@given(st.integers(100, 600), st.floats(0.3, 0.9), st.integers(0, 2**31))
def test_a_model_right_wherever_the_champion_is_and_on_a_tenth_more_is_promoted(
    n: int, before: float, seed: int
) -> None:
    old = share(n, before, seed)
    wrong = np.flatnonzero(~old)
    new = old.copy()
    new[wrong[: max(n // 10, 1)]] = True
    assert compare(new, old, genre_floor=0.0).promote


@settings(max_examples=60, deadline=None)
@given(Pairs)
def test_the_decision_is_the_same_every_time_and_is_plain_json(pairs: list[tuple[bool, bool]]) -> None:
    new, old = [a for a, _ in pairs], [b for _, b in pairs]
    decision = compare(new, old)
    assert compare(new, old) == decision
    assert Decision.model_validate_json(decision.model_dump_json()) == decision
