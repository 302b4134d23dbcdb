"""The report of a finished run."""

import pytest

from pipelines.display import nothing_new


@pytest.mark.parametrize(
    ("created", "verdict", "bento", "expected"),
    [
        (True, "promoted", "genreflow:v1", False),
        (True, "kept", None, False),
        (False, "identical", None, True),
        (False, "identical", "genreflow:v1", False),  # what an earlier run failed to build
        (False, "kept", None, True),
        # registered before, and champion only now: the gate's policy has changed
        (False, "promoted", "genreflow:v1", False),
    ],
)
def test_nothing_is_new_only_where_neither_model_nor_champion_is(
    created: bool, verdict: str, bento: str | None, expected: bool
) -> None:
    assert nothing_new(created, verdict, bento) is expected
