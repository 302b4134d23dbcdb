"""Windows of concurrent requests inferred together: what waits when the model is free, up to a batch.

Not BentoML's own batching, which holds requests back to let batches fill: a lone one waits there for about as
long as others waited under the load before it, and two of the first dozen for several inferences (1.4.39).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

R = TypeVar("R")
A = TypeVar("A")


class Batching(Generic[R, A]):
    """Calls `infer` in a thread of its own with rows of any callers, one batch at a time, in their order."""

    def __init__(self, infer: Callable[[list[R]], list[A]], most: int) -> None:
        """
        Args:
            infer: rows to an answer each.
            most: rows in one batch.
        """
        self._infer = infer
        self._most = most
        self._waiting: deque[tuple[R, asyncio.Future[A]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="infer")
        self._work: asyncio.Task[None] | None = None

    async def __call__(self, rows: Sequence[R]) -> list[A]:
        """Rows to an answer each; those not yet begun are left out where the caller is cancelled.

        Raises:
            Exception: what `infer` raised on a batch with a row of these.
        """
        loop = asyncio.get_running_loop()
        answers = [loop.create_future() for _ in rows]
        self._waiting.extend(zip(rows, answers, strict=True))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._until_none_waits())
        return await asyncio.gather(*answers)

    async def _until_none_waits(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next_batch():
            try:
                results = await loop.run_in_executor(self._thread, self._infer, [row for row, _ in batch])
            except Exception as error:  # theirs to handle, and the next batch goes on
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), result in zip(batch, results, strict=True):
                if not answer.done():
                    answer.set_result(result)

    def _next_batch(self) -> list[tuple[R, asyncio.Future[A]]]:
        batch: list[tuple[R, asyncio.Future[A]]] = []
        while self._waiting and len(batch) < self._most:
            row, answer = self._waiting.popleft()
            if not answer.done():
                batch.append((row, answer))
        return batch
