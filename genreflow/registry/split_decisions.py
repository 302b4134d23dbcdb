"""Uses of a test split, counted: every decision of the gate on its clips selects with them.

The count is a tag of the registered model, the number of a version's decision a tag of the version.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from genreflow.core.digests import text_digest
from genreflow.evaluation.gate import Decision
from genreflow.registry.store import MODEL_NAME

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

COUNT_TAG = "decisions_on_test_split."
"""Of the registered model, before a test split's key: the decisions on it so far."""
NUMBER_TAG = "decision_on_test_split."
"""Of a version, before the key: which of the decisions on it was that on this version."""
KEY_CHARACTERS = 12


def split_key(sha256: Iterable[str]) -> str:
    """What identifies a test split: a digest over the sha256 of its clips' files, in whatever order."""
    return text_digest(sorted(sha256))[:KEY_CHARACTERS]


def count_decision(client: "MlflowClient", entry: "ModelVersion", key: str) -> int:
    """Count a decision on a test split, once a version, and return its number; under `registry_lock`."""
    number = f"{NUMBER_TAG}{key}"
    before = int(client.get_registered_model(MODEL_NAME).tags.get(f"{COUNT_TAG}{key}", 0))
    mine = int(entry.tags.get(number, before + 1))
    # the version's number first: after a crash between the two it is found, and the count caught up
    client.set_model_version_tag(MODEL_NAME, str(entry.version), number, str(mine))
    if mine > before:
        client.set_registered_model_tag(MODEL_NAME, f"{COUNT_TAG}{key}", str(mine))
    return mine


def numbered(decision: Decision, number: int) -> Decision:
    """The decision with its number among those on its test split, in its reason and its numbers."""
    reason = f"{decision.reason.rstrip('.')}. The {ordinal(number)} decision on this test split"
    return decision.model_copy(
        update={"reason": reason, "numbers": decision.numbers | {"decision_on_test_split": number}}
    )


def decision_numbers(tags: Mapping[str, str]) -> dict[str, int]:
    """By test split's key, the numbers of the decisions on a version, from its tags."""
    return {
        name.removeprefix(NUMBER_TAG): int(number)
        for name, number in tags.items()
        if name.startswith(NUMBER_TAG)
    }


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `11th`."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
