"""The gate's decision on record, the aliases, and the way back."""

from collections.abc import Callable

import pytest
from candidates import Candidate, Populated, write_predictions
from corpora import split_of
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from genreflow import registry, steps
from genreflow.core import home
from genreflow.core.documents import PackagedDocument, Served
from genreflow.core.errors import RegistryError
from genreflow.evaluation.gate import Decision

PROMOTED = Decision(promote=True, verdict="promoted", reason="promoted: it is better", numbers={"n": 290})
KEPT = Decision(promote=False, verdict="kept", reason="kept version 2: it is not better", numbers={})


def description(version: str) -> str:
    return str(MlflowClient(home.tracking_uri()).get_model_version(registry.MODEL_NAME, version).description)


def champion() -> str | None:
    found = registry.champion()
    return found.version if found else None


def test_a_promotion_is_written_down_before_the_alias_moves(
    populated: Populated, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.set_champion("2", "the first")

    def broken(*_: object, **__: object) -> None:
        raise MlflowException("the power failed")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", broken)
        with pytest.raises(RegistryError, match="the power failed"):
            registry.apply_decision("3", PROMOTED, "2")
    assert champion() == "2"
    assert registry.version("3").tags["decision"] == "promoted"

    registry.apply_decision("3", PROMOTED, "2")
    assert registry.version("3").aliases == ("champion",)
    assert registry.version("3").tags | {"compared_with": "2"} == registry.version("3").tags
    assert "**Promoted by the gate.** Promoted: it is better." in description("3")
    assert "version 3 took its place" in description("2")
    assert registry.version("2").tags["displaced_by"] == "3"


def test_the_gates_numbers_lie_in_the_run(populated: Populated) -> None:
    registry.apply_decision("3", PROMOTED, None)
    client = MlflowClient(home.tracking_uri())
    run_id = registry.version("3").run_id
    assert run_id
    assert "gate.json" in {file.path for file in client.list_artifacts(run_id)}


def test_a_version_that_is_kept_out_says_why_and_becomes_challenger(populated: Populated) -> None:
    registry.set_champion("2", "the first")
    registry.apply_decision("3", KEPT, "2")
    version = registry.version("challenger")
    assert (version.version, version.tags["decision"]) == ("3", "kept")
    assert version.tags["decision_reason"] == KEPT.reason
    assert "**No.** Kept version 2: it is not better." in description("3")
    assert "### Per genre" in description("3")
    assert champion() == "2"


def test_a_promoted_challenger_is_challenger_no_more(populated: Populated) -> None:
    registry.apply_decision("3", KEPT, None)
    assert registry.version("3").aliases == ("challenger",)
    assert registry.set_champion("3", "by ear").aliases == ("champion",)


def test_the_champion_is_never_its_own_challenger(populated: Populated) -> None:
    registry.set_champion("3", "by ear")
    registry.apply_decision("3", KEPT, "3")
    assert registry.version("3").aliases == ("champion",)


def test_an_identical_verdict_changes_nothing(populated: Populated) -> None:
    registry.apply_decision("3", PROMOTED, None)
    identical = Decision(promote=False, verdict="identical", reason="nothing new", numbers={})
    registry.apply_decision("3", identical, "3")
    assert registry.version("3").tags["decision"] == "promoted"


def test_a_promotion_by_hand_keeps_its_reason(populated: Populated) -> None:
    version = registry.set_champion("1", "the jury liked it")
    assert version.tags["decision"] == "promoted by hand"
    assert version.tags["decision_reason"] == "the jury liked it"
    assert "**Promoted by hand.** The jury liked it." in description("1")


@pytest.mark.parametrize("reason", ["", "  "])
def test_no_promotion_and_no_rollback_without_a_reason(populated: Populated, reason: str) -> None:
    with pytest.raises(RegistryError, match="needs a reason"):
        registry.set_champion("1", reason)
    with pytest.raises(RegistryError, match="needs a reason"):
        registry.rollback(reason)
    assert champion() is None


def test_promoting_the_champion_again_changes_nothing(populated: Populated) -> None:
    registry.set_champion("2", "first")
    assert registry.set_champion("2", "again").tags["decision_reason"] == "first"


def test_an_unknown_version_cannot_be_promoted(populated: Populated) -> None:
    with pytest.raises(RegistryError, match="no version or alias '9'"):
        registry.set_champion("9", "because")


def test_rolling_back_goes_through_the_champions_one_by_one(populated: Populated) -> None:
    for version in ("1", "2", "3"):
        registry.set_champion(version, f"turn of {version}")
    assert registry.rollback("3 mistakes reggae for hiphop").version == "2"
    gone = registry.version("3")
    assert gone.aliases == ()
    assert gone.tags["decision"] == "rolled back"
    assert "reggae" in gone.tags["decision_reason"]
    assert "**No longer.** Rolled back to version 2" in description("3")
    assert "**Champion again.**" in description("2")
    assert registry.rollback("2, too").version == "1"
    with pytest.raises(RegistryError, match="no champion before version 1"):
        registry.rollback("and 1")
    assert champion() == "1"


def test_rolling_back_passes_over_a_deleted_version(populated: Populated) -> None:
    for version in ("1", "2", "3"):
        registry.set_champion(version, f"turn of {version}")
    MlflowClient(home.tracking_uri()).delete_model_version(registry.MODEL_NAME, "2")
    assert registry.rollback("3 fails").version == "1"


def test_an_interrupted_promotion_does_not_break_rollback(
    populated: Populated, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.set_champion("1", "first")
    registry.set_champion("2", "second")

    def broken(*_: object, **__: object) -> None:
        raise MlflowException("the power failed")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", broken)
        with pytest.raises(RegistryError):
            registry.set_champion("3", "third")
    assert registry.rollback("2 fails").version == "1"


def test_there_is_nothing_to_roll_back_without_a_champion(populated: Populated) -> None:
    with pytest.raises(RegistryError, match="no champion to roll back from"):
        registry.rollback("why not")


def test_a_champion_set_in_mlflow_itself_can_be_rolled_back_to(populated: Populated) -> None:
    MlflowClient(home.tracking_uri()).set_registered_model_alias(registry.MODEL_NAME, "champion", "1")
    registry.set_champion("3", "better")
    assert registry.rollback("not better").version == "1"


def test_a_long_reason_is_shortened_in_the_description_and_whole_in_the_tag(populated: Populated) -> None:
    reason = "because " * 600
    registry.set_champion("1", reason)
    assert len(description("1")) <= 5000
    assert "### Per genre" in description("1")
    assert registry.version("1").tags["decision_reason"] == reason


def test_a_version_that_a_person_rolled_back_is_not_promoted_again_by_a_run(populated: Populated) -> None:
    registry.set_champion("2", "good")
    registry.set_champion("3", "better")
    registry.rollback("3 fails on live traffic")
    made = populated.candidates[2]
    decision, aliases, _ = steps.promote("3", made.packaged, made.evaluation, made.corpus, {})
    assert (decision.promote, decision.verdict) == (False, "kept")
    assert "3 fails on live traffic" in decision.reason
    assert "champion" not in aliases
    champion = registry.champion()
    assert champion is not None
    assert champion.version == "2"


def test_a_champion_that_does_not_fit_todays_code_is_not_comparable(
    populated: Populated, candidate: Callable[..., Candidate]
) -> None:
    old = candidate(7, model={"settings": {"backbone": "a/b", "no_longer_a_setting": 1}})
    document = PackagedDocument.read(old.packaged)
    refused = document.runtimes[0].model_copy(update={"usable": False, "reason": "it is too far off"})
    served = Served(runtime="pytorch", precision="f32")  # which reads the settings
    document.model_copy(update={"runtimes": (refused,), "served": served}).write(old.packaged)
    number = registry.register(old.packaged, old.evaluation, old.corpus, split_of(old.corpus), None).version
    registry.set_champion(number, "long ago")
    new = populated.candidates[2]
    write_predictions(new.evaluation)
    decision, aliases, _ = steps.promote("3", new.packaged, new.evaluation, new.corpus, {})
    assert (decision.verdict, aliases) == ("kept", ("challenger",))
    assert f"kept version {number}: not comparable" in decision.reason
    assert "no_longer_a_setting" in decision.reason
    assert registry.version("3").tags["decision_reason"] == decision.reason
    assert champion() == number


def test_a_synthetic_champion_that_cannot_be_read_gives_way_to_real_music(
    populated: Populated, candidate: Callable[..., Candidate]
) -> None:
    old = candidate(8, model={"synthetic": True}, corpus={"synthetic": True})
    number = registry.register(old.packaged, old.evaluation, old.corpus, split_of(old.corpus), None).version
    registry.set_champion(number, "long ago")
    client = MlflowClient(home.tracking_uri())
    client.set_model_version_tag(registry.MODEL_NAME, number, "packaged_sha256", "another")
    new = populated.candidates[2]
    write_predictions(new.evaluation)
    decision, _, _ = steps.promote("3", new.packaged, new.evaluation, new.corpus, {})
    assert decision.verdict == "promoted", decision.reason
    assert champion() == "3"


def test_a_bento_is_to_be_built_of_what_is_promoted_and_of_a_champion_that_has_none(
    populated: Populated,
) -> None:
    made = populated.candidates[2]
    write_predictions(made.evaluation)

    def promote() -> tuple[str, bool]:
        decision, _, to_build = steps.promote("3", made.packaged, made.evaluation, made.corpus, {})
        return decision.verdict, to_build

    assert promote() == ("promoted", True)
    assert promote() == ("identical", True)  # the build has failed since
    registry.record_bento("3", "genreflow:v3-0-0")
    assert registry.version("3").tags["bento"] == "genreflow:v3-0-0"
    assert promote() == ("identical", False)
