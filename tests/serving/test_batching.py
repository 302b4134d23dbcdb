"""Windows of concurrent requests are inferred together, at once where the model is free."""

import asyncio
import threading
import time

import pytest

from serving.batching import Batching


class Doubling:
    """A model that doubles numbers, slowly enough to be asked by many meanwhile."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()

    def __call__(self, rows: list[int]) -> list[int]:
        time.sleep(self.seconds)
        self.batches.append(rows)
        self.threads.add(threading.current_thread().name)
        if -1 in rows:
            raise ValueError("no such row")
        return [2 * row for row in rows]


def test_what_waits_while_the_model_works_is_inferred_together_and_in_order() -> None:
    model = Doubling(0.05)
    batching = Batching(model, 4)

    async def ask() -> list[list[int]]:
        first = asyncio.create_task(batching([1]))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(batching([ten, ten + 1])) for ten in (10, 20, 30)]
        return await asyncio.gather(first, *others)

    assert asyncio.run(ask()) == [[2], [20, 22], [40, 42], [60, 62]]
    assert model.batches == [[1], [10, 11, 20, 21], [30, 31]]
    assert len(model.threads) == 1


def test_more_rows_than_a_batch_go_in_several() -> None:
    model = Doubling()
    assert asyncio.run(Batching(model, 8)(range(20))) == list(range(0, 40, 2))
    assert [len(batch) for batch in model.batches] == [8, 8, 4]


def test_a_lone_request_does_not_wait_after_the_load_has_gone() -> None:
    """With BentoML's batching it waited for as long as the many had waited."""
    model = Doubling(0.02)
    batching = Batching(model, 2)

    async def ask() -> float:
        await asyncio.gather(*(batching([one, one]) for one in range(20)))
        began = time.perf_counter()
        await batching([1])
        return time.perf_counter() - began

    assert asyncio.run(ask()) < 0.1


def test_a_failing_batch_fails_its_callers_and_no_others() -> None:
    batching = Batching(Doubling(0.02), 2)

    async def ask() -> list[object]:
        calls = [batching([1, 2]), batching([-1, 3]), batching([4, 5])]
        return await asyncio.gather(*calls, return_exceptions=True)

    good, bad, after = asyncio.run(ask())
    assert (good, after) == ([2, 4], [8, 10])
    assert isinstance(bad, ValueError)


def test_rows_of_cancelled_callers_are_not_inferred() -> None:
    model = Doubling(0.05)
    batching = Batching(model, 1)

    async def ask() -> None:
        first = asyncio.create_task(batching([1]))
        await asyncio.sleep(0.01)
        gone = asyncio.create_task(batching([2]))
        last = asyncio.create_task(batching([3]))
        await asyncio.sleep(0.01)
        gone.cancel()
        assert await first == [2]
        assert await last == [6]
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(ask())
    assert model.batches == [[1], [3]]
