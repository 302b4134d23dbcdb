"""Processes that see another time than this one (libfaketime)."""

from pathlib import Path

from tests.conftest import need


def clock(offset: str) -> dict[str, str]:
    """The environment in which the clock is off by `-1h`, `+1d` …; the one that is never set stays right."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    need(bool(found), "faketime")
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME": offset,
        "DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",  # the times of files are the kernel's
    }
