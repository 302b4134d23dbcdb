"""A model so slow that not all can be answered in time: what never would is refused, the rest is answered."""

import io
import re
import time
from collections.abc import Iterator

import numpy as np
import pytest
import requests
import soundfile
from services import SAMPLE_RATE, Champion, Service, running

from genreflow import registry

WORK = 100
"""About a hundredth of a second a window."""
ANSWER_SECONDS = 5
WINDOW_SECONDS = 0.25
"""From window to window, too."""


@pytest.fixture(scope="module")
def slow(champion: Champion, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    copy = champion.copy(tmp_path_factory.mktemp("slow"))
    version = copy.register("slow", 3, WORK)
    with copy.registry():
        registry.set_champion(version, "it is slow")
    with running(copy, GENREFLOW_MAX_ANSWER_SECONDS=str(ANSWER_SECONDS)) as service:
        yield service


def song(seconds: float, rate: int = SAMPLE_RATE) -> bytes:
    buffer = io.BytesIO()
    samples = np.random.default_rng(0).normal(size=round(seconds * rate)) * 0.1
    soundfile.write(buffer, samples, rate, format="FLAC")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def most_seconds(slow: Service) -> int:
    """Of music that this machine's service answers in time, as it says on refusing an hour."""
    hour = song(3_600, 2_000)
    began = time.perf_counter()
    refused = slow.post("classify", hour, "hour.flac")
    took = time.perf_counter() - began
    assert refused.status_code == 413, refused.text
    most = re.fullmatch(
        r"hour\.flac is too long: more than (\d+) s of music are not answered in time here; cut it first\.",
        refused.json()["error"],
    )
    assert most
    print(f"refused after {took:.1f} s; at most {most[1]} s")
    assert took < ANSWER_SECONDS * 2
    return int(most[1])


def test_what_would_never_be_answered_in_time_is_refused_at_once_and_the_rest_is_answered(
    slow: Service, most_seconds: int
) -> None:
    assert slow.post("classify", song(0.9 * most_seconds)).status_code == 200


def test_a_hop_that_would_never_be_answered_in_time_is_refused_and_a_longer_one_is_not(slow: Service) -> None:
    minutes = song(120)
    refused = slow.post("timeline", minutes, hop_seconds="0.065")
    assert refused.status_code == 400, refused.text
    assert "Take a longer one" in refused.json()["error"]
    assert slow.post("timeline", minutes, hop_seconds="30").status_code == 200


def test_a_batch_that_takes_too_long_returns_the_finished_files_and_errors_for_the_others(
    slow: Service, most_seconds: int
) -> None:
    content = song(most_seconds / 6)  # 64 take five times as long as a batch may, the first two a sixth
    files = [("files", (f"{one}.flac", content)) for one in range(64)]
    batch = requests.post(f"{slow.address}/classify_batch", files=files, timeout=120)
    assert batch.status_code == 200, batch.text
    answers = batch.json()
    assert [one["file"] for one in answers] == [f"{one}.flac" for one in range(64)]
    reached = [one for one in answers if one["answer"] is not None]
    assert 0 < len(reached) < 64
    for one in answers:
        if one["answer"] is None:
            assert one["error"] == f"{one['file']} was not reached in time: send it again, with fewer others."
