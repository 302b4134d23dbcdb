"""The two cards of a model: what MLflow shows of a version, and what a hub shows of what was published."""

from pathlib import Path
from typing import Any

import pytest
from candidates import write_corpus, write_evaluation, write_packaged
from corpora import split_of

from genreflow.core.documents import CorpusDocument, PackagedDocument, SplitDocument
from genreflow.evaluation.document import EvaluationDocument
from genreflow.publishing.card import model_card
from genreflow.registry import Version
from genreflow.registry.card import Trace, describe, tags


def both_cards(
    folder: Path, model: dict[str, Any], corpus: dict[str, Any], evaluation: dict[str, Any]
) -> tuple[str, str]:
    """The description in MLflow, without its no-break spaces, and the README."""
    write_packaged(folder / "packaged", 0, model)
    write_corpus(folder, corpus)
    write_evaluation(folder, folder / "packaged", 0.81, evaluation)
    packaged = PackagedDocument.read(folder / "packaged")
    scores, music = EvaluationDocument.read(folder), CorpusDocument.read(folder)
    split = SplitDocument.read(split_of(folder))
    version = Version(
        version="1",
        aliases=(),
        metrics=scores.scalars(),
        tags=tags(packaged, scores, music, "d0" * 32),
        run_id="run",
        created="2026-01-01T00:00:00+00:00",
    )
    description = describe(packaged, scores, music, split, Trace("1", "run")).replace("\u00a0", " ")
    return description, model_card(version, packaged, None, "hf://owner/name")


def test_both_cards_say_the_same_of_a_model(tmp_path: Path) -> None:
    for card in both_cards(tmp_path, {}, {}, {}):
        for words in (
            "Accuracy 81.0 %",
            "- **Model**: family `encoder`, from `ntu-spml/distilhubert`",
            "- **Data**: gtzan: 443 clips to train on, 197 for selection, 290 to test on",
            "- **Split**: fault-filtered, leak-free",
            "- **Served with**: openvino f32, 93 ms a window (a processor)",
        ):
            assert words in card
        assert ">" not in card.partition("## ")[0]


def test_both_cards_have_the_same_warnings_about_optimistic_figures(tmp_path: Path) -> None:
    leaky = {"synthetic": True, "leaky": True, "leak_reason": "clips of one artist lie on both sides."}
    cards = both_cards(tmp_path, leaky | {"pretrained": None, "protocol": "random"}, leaky, leaky)
    warnings = [[line for line in card.splitlines() if line.startswith("> ")] for card in cards]
    assert warnings[0] == warnings[1]
    assert [line.split("**")[1] for line in warnings[0]] == ["Synthetic.", "Leaky.", "From scratch."]
    assert "clips of one artist" in warnings[0][1]


@pytest.mark.parametrize("leaky", [True, False])
def test_neither_card_has_a_figure_where_nothing_was_measured(tmp_path: Path, leaky: bool) -> None:
    seen = {"protocol": "all", "leaky": leaky}
    for card in both_cards(tmp_path, seen, seen, seen | {"seen_clips": 290}):
        assert "ot measured" in card
        assert "- **Split**: all\n" in card
        assert "81.0" not in card
        assert "Leaky." not in card
