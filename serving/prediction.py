"""Window probabilities of uploaded files: decoded and cut here, inferred by the inner service."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genreflow.audio import decode
from genreflow.core.errors import AudioError, GenreflowError, RequestError, SettingsError
from genreflow.features import iter_window_batches
from genreflow.inference.answers import softmax
from serving.champion import Described
from serving.limits import (
    DECODE_SECONDS,
    LONG_WINDOWS,
    SHORT_DECODE_SECONDS,
    SHORT_SECONDS,
    ConcurrencyLimits,
    Limits,
)
from serving.monitoring import RequestMetrics

CHUNKS_IN_FLIGHT = 2
"""Of one request: one is inferred while the next is prepared; chunks of other requests come between."""
ATTEMPTS = 3
MODEL_CHANGING = "The service is changing its model: try again in a few seconds."

Row = tuple[str, NDArray[np.float32]]
"""A window to infer: the tag of the model that it was prepared for, the model's input."""
Result = tuple[NDArray[np.float32] | None, float]
"""A window's logits, None where that model is no longer loaded, and the seconds that its batch took."""
CallInner = Callable[..., Awaitable[Any]]
"""Calls an endpoint of the inner service: its name, then its arguments."""


class InferenceModel(Described):
    """A model as the front service needs it, with its speed."""

    best_seconds_per_window: float
    """Seconds that one window takes in the fastest batch size."""


@dataclass(frozen=True)
class WindowPredictions:
    """The probabilities of every window of one file, and the audio that they are of."""

    model: InferenceModel
    probabilities: NDArray[np.float32]
    """(windows, genres)."""
    starts: NDArray[np.float64]
    """(windows,) seconds."""
    samples: NDArray[np.float32]
    """(n,) mono at the model's rate."""
    seconds: float


class ModelReplacedError(Exception):
    """The model that a request was prepared for is no longer loaded: it starts again with the new one."""


class FilePredictor:
    """Predicts the windows of files, a file by one and the same model, within the concurrency limits."""

    def __init__(
        self,
        call_inner: CallInner,
        limits: Limits,
        metrics: RequestMetrics,
        threads: Executor,
        long_thread: Executor,
    ) -> None:
        """
        Args:
            call_inner: calls `infer` and `described` of the inner service.
            threads: for decoding short files and for cutting windows.
            long_thread: one thread, for decoding long files.
        """
        self._call_inner, self._limits, self._metrics = call_inner, limits, metrics
        self._threads, self._long_thread = threads, long_thread
        self._concurrency = ConcurrencyLimits()

    async def model(self) -> InferenceModel:
        """The model that is served now."""
        return InferenceModel.model_validate(await self._call_inner("described"))

    async def predict(self, file: Path, hop_seconds: float | None) -> WindowPredictions:
        """Decode a file, cut its windows and infer them, all by one model.

        Args:
            hop_seconds: from window to window; the model's own where None.

        Raises:
            GenreflowError: the file cannot be decoded, is too long, or the service is busy.
        """
        for _ in range(ATTEMPTS):
            try:
                return await self._predict_with(await self.model(), file, hop_seconds)
            except ModelReplacedError:
                continue
        raise RequestError(MODEL_CHANGING, 503)

    async def _predict_with(
        self, model: InferenceModel, file: Path, hop_seconds: float | None
    ) -> WindowPredictions:
        """All windows of a file by this model; refused where they would take longer than a request may."""
        windows, hop = self._most_windows(model, hop_seconds), hop_seconds or model.input_spec.hop_seconds
        try:
            return await self._decode_and_infer(
                model, file, hop_seconds, min(self._limits.seconds, windows * hop)
            )
        except AudioError as error:
            if error.reason == "too-long" and windows * hop < self._limits.seconds:
                raise too_long(file.name, windows, hop, hop_seconds is None) from error
            raise

    async def predict_again(
        self, previous: WindowPredictions, name: str, hop_seconds: float
    ) -> WindowPredictions:
        """The same file at another hop, by the same model, without decoding it again.

        Args:
            name: the file's name, for errors.

        Raises:
            GenreflowError: there are too many windows, the model was replaced, or the service is busy.
        """
        windows = self._most_windows(previous.model, hop_seconds)
        if previous.seconds > windows * hop_seconds:
            raise too_long(name, windows, hop_seconds, False)
        long = previous.seconds / hop_seconds > LONG_WINDOWS
        try:
            async with self._concurrency.long(previous.seconds) if long else self._concurrency.short():
                return await self._infer(previous.model, previous.samples, previous.seconds, hop_seconds)
        except ModelReplacedError:
            raise RequestError(MODEL_CHANGING, 503) from None

    def _most_windows(self, model: InferenceModel, hop_seconds: float | None) -> float:
        """How many windows one request alone may take; at most as many as a timeline may have."""
        windows = self._limits.answer_seconds / model.best_seconds_per_window
        return windows if hop_seconds is None else min(windows, self._limits.windows)

    async def _decode_and_infer(
        self, model: InferenceModel, file: Path, hop_seconds: float | None, most: float
    ) -> WindowPredictions:
        """Decode, cut and infer a file of at most `most` seconds, within the limits of short or long ones."""
        rate = model.input_spec.sample_rate
        try:
            async with self._concurrency.short():
                samples, seconds = await self._decode(
                    self._threads, file, rate, min(most, SHORT_SECONDS), SHORT_DECODE_SECONDS
                )
                if seconds / (hop_seconds or model.input_spec.hop_seconds) <= LONG_WINDOWS:
                    return await self._infer(model, samples, seconds, hop_seconds)
            decoded = True
        except AudioError as error:
            if error.reason != "too-slow" and (error.reason != "too-long" or most <= SHORT_SECONDS):
                raise
            decoded = False
        if not decoded:  # outside of `except`: the error keeps the samples decoded so far in memory
            async with self._concurrency.decoding():
                samples, seconds = await self._decode(self._long_thread, file, rate, most, DECODE_SECONDS)
        async with self._concurrency.long(seconds):
            return await self._infer(model, samples, seconds, hop_seconds)

    async def _decode(
        self, threads: Executor, file: Path, rate: int, most: float, timeout: float
    ) -> tuple[NDArray[np.float32], float]:
        """Mono samples (n,) at `rate` Hz, and the seconds of the file: at most `most`."""

        def decoded() -> tuple[NDArray[np.float32], float]:
            audio = decode(file, file.name, most, timeout, rate)
            return audio.samples, audio.seconds

        began = time.perf_counter()
        samples, seconds = await asyncio.get_running_loop().run_in_executor(threads, decoded)
        self._metrics.decode.observe(time.perf_counter() - began)
        if seconds < self._limits.min_seconds:
            raise AudioError(
                f"{file.name} is too short: {seconds:.2f} s; at least {self._limits.min_seconds:g} s.",
                "too-short",
            )
        return samples, seconds

    async def _infer(
        self, model: InferenceModel, samples: NDArray[np.float32], seconds: float, hop_seconds: float | None
    ) -> WindowPredictions:
        """Chunks of at most one batch, two in flight: windows of other requests come between."""
        chunks = iter_window_batches(model.input_spec, samples, model.input_spec.sample_rate, hop_seconds)
        starts: list[NDArray[np.float64]] = []
        logits: list[NDArray[np.float32]] = []
        sent: list[asyncio.Task[NDArray[np.float32]]] = []
        try:
            while (chunk := await self._in_thread(_next, chunks)) is not None:
                if len(sent) == CHUNKS_IN_FLIGHT:
                    logits.append(await sent.pop(0))
                sent.append(asyncio.create_task(self._send(model.tag, chunk[0])))
                starts.append(chunk[1])
            while sent:
                logits.append(await sent.pop(0))
        finally:
            for task in sent:
                task.cancel()
        probabilities = softmax(np.concatenate(logits) / model.temperature)
        return WindowPredictions(model, probabilities, np.concatenate(starts), samples, seconds)

    async def _send(self, tag: str, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, *input shape) → (n, genres) logits."""
        began = time.perf_counter()
        rows: list[Row] = [(tag, window) for window in inputs]
        results: list[Result] = await self._call_inner("infer", rows)
        taken = max(seconds for _, seconds in results)
        self._metrics.queue.observe(max(0.0, time.perf_counter() - began - taken))
        if any(logits is None for logits, _ in results):
            raise ModelReplacedError
        return np.stack([logits for logits, _ in results if logits is not None])

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def too_long(name: str, windows: float, hop_seconds: float, own: bool) -> GenreflowError:
    """The error for a file of more than `windows` windows, which would take longer than a request may.

    Args:
        own: whether the hop is the model's own.
    """
    if own:
        return AudioError(
            f"{name} is too long: more than {windows * hop_seconds:.0f} s of music are not answered in time "
            "here; cut it first.",
            "too-long",
        )
    return SettingsError(
        f"A hop of {hop_seconds:g} s cuts {name} into more than {windows:.0f} windows: more are not answered "
        "in time here. Take a longer one, or a part of the song."
    )


def _next(
    chunks: Iterator[tuple[NDArray[np.float32], NDArray[np.float64]]],
) -> tuple[NDArray[np.float32], NDArray[np.float64]] | None:
    return next(chunks, None)
