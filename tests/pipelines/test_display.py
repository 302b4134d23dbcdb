"""What a finished run says of itself."""

import pytest

from pipelines.display import nothing_new


@pytest.mark.parametrize(
    ("created", "verdict", "expected"),
    [
        (True, "promoted", False),
        (True, "kept", False),
        (False, "identical", True),
        (False, "kept", True),
        (False, "promoted", False),  # registered before, and champion only now: the gate's policy has changed
    ],
)
def test_nothing_is_new_only_where_neither_model_nor_champion_is(
    created: bool, verdict: str, expected: bool
) -> None:
    assert nothing_new(created, verdict) is expected
