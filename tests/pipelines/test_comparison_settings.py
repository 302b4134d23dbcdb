"""What a comparison is made of, and how bad input is refused before anything starts."""

import subprocess
import sys
from pathlib import Path

import pytest
from sounds import tone, write

from genreflow.core.errors import GenreflowError, SettingsError
from genreflow.families import families
from pipelines import checks
from pipelines.comparison_settings import comparison_settings, features_of
from pipelines.settings import read_profile


def test_without_families_all_are_compared() -> None:
    assert [one.run.family for one in comparison_settings().candidates] == list(families())


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError) as refused:
        comparison_settings("linear,mfcc_cmm")
    assert "There is no family 'mfcc_cmm'; did you mean mfcc_cnn?" in str(refused.value)
    assert all(name in str(refused.value) for name in families())


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ("linear,linear", "--families names linear twice"),
        (" , ", "--families names none"),
        ("mfcc_cnn@musicnn", "The family mfcc_cnn has no backbone"),
        (",".join(f"linear@a{at}" for at in range(9)), "at most 8 candidates"),
    ],
)
def test_families_that_cannot_be_compared_are_refused(chosen: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        comparison_settings(chosen)


def test_a_family_may_appear_again_with_another_backbone() -> None:
    found = comparison_settings("linear@descriptors,linear@musicnn")
    assert [(one.name, one.run.backbone) for one in found.candidates] == [
        ("linear@descriptors", None),
        ("linear@musicnn", "musicnn"),
    ]
    assert found.candidates[0].run.model["backbone"] == "descriptors"


def test_a_family_may_appear_again_under_a_name_of_its_own() -> None:
    found = comparison_settings(
        "mfcc_cnn,small=mfcc_cnn,means=linear@descriptors",
        assignments=["small.training.epochs=2", "mfcc_cnn.training.seed=7", "means.training.C=0.3"],
    )
    assert [one.name for one in found.candidates] == ["mfcc_cnn", "small", "means"]
    usual, small, means = found.runs
    assert (small.training["epochs"], usual.training["epochs"] == 2) == (2, False)
    assert usual.training["seed"] == small.training["seed"] == 7
    assert means.training["C"] == 0.3
    for name in ("training", "linear", "a.b"):
        with pytest.raises(SettingsError, match="is no name for a candidate"):
            comparison_settings(f"{name}=mfcc_cnn")


def test_a_setting_reaches_every_candidate_that_has_the_key_or_one_by_its_name() -> None:
    found = comparison_settings(
        "mfcc_cnn,linear@descriptors,linear@musicnn",
        assignments=[
            "training.epochs=2",
            "linear.training.C=0.5",
            "linear@musicnn.training.C=0.7",
            "mfcc_cnn.resources.gpus=1",
            "corpus.fold=1",
        ],
    )
    network, descriptors, musicnn = (one.run for one in found.candidates)
    assert (network.training["epochs"], network.resources.gpus) == (2, 1)
    assert (descriptors.training["C"], musicnn.training["C"]) == (0.5, 0.7)
    assert descriptors.resources.gpus == 0
    assert all(run.corpus.fold == 1 for run in found.runs)


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("training.epoch=2", "There is no setting training.epoch of linear, mfcc_cnn; did you mean"),
        ("encoder.training.epochs=2", "encoder is not compared here. Compared are linear, mfcc_cnn"),
        ("linear.corpus.protocol=random", "only model, training, resources can differ"),
        ("linear.training.epochs=2", "There is no setting training.epochs"),
        ("family=linear", "with --families"),
        ("training.epochs", "--set needs key=value"),
    ],
)
def test_a_setting_that_fits_no_candidate_is_rejected(assignment: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        comparison_settings("linear,mfcc_cnn", assignments=[assignment])


def test_folds_are_two_or_more_and_need_the_features_of_every_clip() -> None:
    with pytest.raises(SettingsError, match="2 or more"):
        comparison_settings("linear", folds=1)
    with pytest.raises(SettingsError, match="--folds makes others"):
        comparison_settings("linear", folds=2, assignments=["resources.extract=split"])


def test_a_backbone_goes_to_the_families_that_have_one(tmp_path: Path) -> None:
    found = comparison_settings("linear,mfcc_cnn", backbone="descriptors")
    assert found.candidates[0].run.model["backbone"] == "descriptors"
    with pytest.raises(SettingsError, match="None of the families mfcc_cnn has a backbone"):
        comparison_settings("mfcc_cnn", backbone="descriptors")


def test_a_variant_of_a_profile_may_give_a_family_resources_of_its_own(tmp_path: Path) -> None:
    profile = tmp_path / "own.yaml"
    profile.write_text(
        "source: synthetic\nresources: {cpu: '2'}\nvariants:\n  mfcc_cnn:\n    resources: {memory: 9G}\n"
    )
    found = comparison_settings("linear@descriptors,mfcc_cnn", profile=str(profile))
    assert [run.resources.memory for run in found.runs] == ["4G", "9G"]
    profile.write_text("source: synthetic\nvariants: {linear: {resources: {memry: 9G}}}\n")
    with pytest.raises(SettingsError, match="memry"):
        read_profile(str(profile))


def test_families_of_one_representation_share_their_features() -> None:
    once = comparison_settings("linear@descriptors,mfcc_cnn")
    assert features_of(once.candidates) == (0, 1)
    same = once.candidates[0].model_copy(update={"name": "another"})
    assert features_of([*once.candidates, same]) == (0, 1, 0)


def test_a_backbone_that_is_not_here_shares_its_features_with_none(tmp_path: Path) -> None:
    found = comparison_settings(f"linear@{tmp_path}/none,encoder@{tmp_path}/none,linear@descriptors")
    assert features_of(found.candidates) == (0, 1, 2)


TWO = "corpus.genres=[blues, jazz]"


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for number, genre in enumerate(("blues", "jazz")):
        for clip in range(2):
            write(tmp_path / "clips" / genre / f"{clip}.wav", tone(seconds=1.2, pitch=200.0 * (number + 1)))
    return tmp_path / "clips"


def test_weights_that_are_missing_are_reported_before_anything_starts(clips: Path, tmp_path: Path) -> None:
    found = comparison_settings(
        f"linear@descriptors,linear@{tmp_path}/none", source=str(clips), assignments=[TWO]
    )
    with pytest.raises(GenreflowError) as refused:
        checks.before_comparison(found)
    assert str(refused.value).startswith("Not every family can be trained here. linear@none: ")
    assert str(refused.value).endswith("--skip-unavailable compares the others.")
    left, sentences = checks.before_comparison(found, skip=True)
    assert [one.name for one in left.candidates] == ["linear@descriptors"]
    assert len(sentences) == 1


def test_where_no_family_can_be_trained_nothing_is_left_out(clips: Path, tmp_path: Path) -> None:
    found = comparison_settings(f"linear@{tmp_path}/none", source=str(clips), assignments=[TWO])
    with pytest.raises(GenreflowError, match="Not every family can be trained here"):
        checks.before_comparison(found, skip=True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["compare", "--families", "liner"], "There is no family 'liner'; did you mean linear?"),
        (["compare", "--source", "/none"], "/none"),
        (["compare", "--source", "synthetic", "--also-test", "/nowhere"], "There is no folder /nowhere"),
        (["compile", "-o", "a.yaml", "--pipeline", "compare"], "there are training and comparison"),
        (["compile", "-o", "a.yaml", "--families", "linear"], "are of --pipeline comparison"),
        (["compile", "-o", "a.yaml", "--pipeline", "comparison", "--family", "linear"], "names --families"),
    ],
)
def test_the_command_line_refuses_with_an_error_message(
    arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
