"""Which version is champion: the gate's decisions on record, the aliases, their history."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from genreflow.core.errors import ChampionChangedError, RegistryError
from genreflow.evaluation.gate import Decision
from genreflow.registry import card
from genreflow.registry.lock import registry_lock
from genreflow.registry.split_decisions import count_decision, numbered
from genreflow.registry.store import MODEL_NAME, connect, translate_errors
from genreflow.registry.versions import (
    CHALLENGER,
    CHAMPION,
    Version,
    alias_targets,
    described,
    entries,
    find,
    look_up,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

HISTORY_TAG = "champions_so_far"
"""The champions one after another, as a tag of the registered model; why each came is with the version."""
HISTORY_LENGTH = 50
BENTO_TAG = "bento"
"""The tag of a version with the bento that was last built of it."""


def apply_decision(
    version: str, decision: Decision, compared_with: str | None, test_split: str | None = None
) -> Decision:
    """Record the gate's decision and reason on a version, and apply it: the alias moves last.

    An `identical` verdict changes nothing.

    Args:
        compared_with: the champion that the decision was made against; None where there was none.
        test_split: the key of the test split that it was made on; the decision is counted.

    Returns:
        The decision with its number among those on its test split.

    Raises:
        ChampionChangedError: another is champion by now. Nothing was written: decide again.
        RegistryError: there is no such version, or the store refuses.
    """
    client = connect()
    with translate_errors("act on the gate's decision"), registry_lock(client):
        present = alias_targets(client).get(CHAMPION)
        if present != compared_with:
            raise ChampionChangedError(
                f"The champion changed from {_named(compared_with)} to {_named(present)} while version "
                f"{version} was compared with it."
            )
        if decision.verdict == "identical":
            _note_displaced(client)
            return decision
        entry = find(client, version)
        if test_split is not None:
            decision = numbered(decision, count_decision(client, entry, test_split))
        number = str(entry.version)
        tags = {"decision": decision.verdict, "decision_reason": decision.reason}
        if compared_with is not None:
            tags["compared_with"] = compared_with
        word = "**Promoted by the gate.**" if decision.promote else "**No.**"
        _note(client, entry, tags, f"{word} {_sentence(decision.reason)}")
        if entry.run_id:
            client.log_dict(entry.run_id, decision.model_dump(mode="json"), "gate.json")
        if decision.promote:
            _succeed(client, number, present)
        elif number != present:
            client.set_registered_model_alias(MODEL_NAME, CHALLENGER, number)
        refresh_overview(client)
    return decision


def set_champion(version: str, reason: str) -> Version:
    """Make a version champion by hand; the alias moves last.

    Raises:
        RegistryError: there is no such version, no reason, or the store refuses.
    """
    if not reason.strip():
        raise RegistryError("A promotion needs a reason: it is kept with the version.")
    client = connect()
    with translate_errors("promote the version"), registry_lock(client):
        entry = find(client, version)
        number = str(entry.version)
        before = alias_targets(client).get(CHAMPION)
        if before != number:
            tags = {"decision": "promoted by hand", "decision_reason": reason}
            _note(client, entry, tags, f"**Promoted by hand.** {_sentence(reason)}")
            _succeed(client, number, before)
            refresh_overview(client)
        return described(client, find(client, number))


def record_bento(version: str, tag: str) -> None:
    """Note on a version which bento was built of it, as its tag `bento`."""
    client = connect()
    with translate_errors("note the bento"):
        client.set_model_version_tag(MODEL_NAME, str(find(client, version).version), BENTO_TAG, tag)


def rollback(reason: str) -> Version:
    """Make the previous champion champion again.

    Raises:
        RegistryError: there is no champion, none before it, or no reason.
    """
    if not reason.strip():
        raise RegistryError("A rollback needs a reason: it is kept with the version.")
    client = connect()
    with translate_errors("roll back"), registry_lock(client):
        current = alias_targets(client).get(CHAMPION)
        if current is None:
            raise RegistryError("There is no champion to roll back from.")
        existing = {str(entry.version) for entry in entries(client)}
        earlier = [number for number in _until(_history(client), current) if number in existing - {current}]
        if not earlier:
            raise RegistryError(
                f"There is no champion before version {current}: choose one with genreflow promote VERSION."
            )
        chosen = earlier[-1]
        why = f"rolled back from version {current}: {reason}"
        tags = {"decision": "champion again", "decision_reason": why}
        _note(client, find(client, chosen), tags, f"**Champion again.** {_sentence(why)}")
        _move_champion_alias(client, chosen, earlier)
        why = f"rolled back to version {chosen}: {reason}"
        tags = {"decision": "rolled back", "decision_reason": why, "displaced_by": chosen}
        _note(client, find(client, current), tags, f"**No longer.** {_sentence(why)}")
        refresh_overview(client)
        return described(client, find(client, chosen))


def refresh_overview(client: "MlflowClient") -> None:
    """Bring the table of versions in the registered model's description up to date; text above it stays."""
    targets = alias_targets(client)
    latest = [described(client, entry, targets) for entry in entries(client, most=card.OVERVIEW_ROWS)]
    before = client.get_registered_model(MODEL_NAME).description or card.MODEL_DESCRIPTION
    client.update_registered_model(MODEL_NAME, card.with_overview(before, latest))


def _note(client: "MlflowClient", entry: "ModelVersion", tags: dict[str, str], text: str) -> None:
    """Tags on a version, and the decision in its description."""
    number = str(entry.version)
    for key, value in tags.items():
        client.set_model_version_tag(MODEL_NAME, number, key, value)
    client.update_model_version(MODEL_NAME, number, card.with_decision(entry.description or "", text))


def _succeed(client: "MlflowClient", number: str, before: str | None) -> None:
    earlier = [*_until(_history(client), before), before] if before is not None else []
    _move_champion_alias(client, number, [*earlier, number])
    _note_displaced(client)


def _note_displaced(client: "MlflowClient") -> None:
    """Write on the champion before this one that it is no longer, unless that was done."""
    *_, before, after = ["", "", *_history(client)]
    entry = look_up(client, before) if before else None
    if entry is None or entry.tags.get("displaced_by") == after:
        return
    if after != alias_targets(client).get(CHAMPION):
        return
    then = f"**No longer.** Champion until {datetime.now(UTC):%Y-%m-%d}, when version {after} took its place."
    earlier = card.decision_of(entry.description or "")
    _note(client, entry, {"displaced_by": after}, f"{then}\n\nBefore: {earlier}")


def _history(client: "MlflowClient") -> list[str]:
    """The champions' versions one after another, the present one last."""
    text = client.get_registered_model(MODEL_NAME).tags.get(HISTORY_TAG, "")
    return [number for number in text.split(", ") if number]


def _until(history: list[str], number: str) -> list[str]:
    """The history before a version last became champion; what a crash left after it is dropped."""
    return (
        history[: max(at for at, other in enumerate(history) if other == number)] if number in history else []
    )


def _move_champion_alias(client: "MlflowClient", number: str, history: list[str]) -> None:
    """Record a new champion, and move its alias last."""
    client.set_registered_model_tag(MODEL_NAME, HISTORY_TAG, ", ".join(history[-HISTORY_LENGTH:]))
    if "displaced_by" in find(client, number).tags:  # from an earlier reign
        client.delete_model_version_tag(MODEL_NAME, number, "displaced_by")
    if alias_targets(client).get(CHALLENGER) == number:
        client.delete_registered_model_alias(MODEL_NAME, CHALLENGER)
    client.set_registered_model_alias(MODEL_NAME, CHAMPION, number)


def _named(champion: str | None) -> str:
    return "none" if champion is None else f"version {champion}"


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
