"""The BentoML service: a front that decodes and cuts windows, and an inner one that infers them in batches.

It stands on the library's runtime and features alone: neither torch nor transformers is needed on a CPU.
Which model it answers with is settled in `serving.recipe`.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import aiohttp
import bentoml
import numpy as np
from bentoml.exceptions import BentoMLException
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from genreflow import doubt, runtime
from genreflow.audio import decode, resample
from genreflow.errors import AudioError, GenreflowError, RequestError, SettingsError
from serving import patience, recipe
from serving.answers import Answer, BatchAnswer, Curve, ModelCard, Problem
from serving.batching import Batching
from serving.champion import Described, Models
from serving.door import Door, quiet_refusals, refuse
from serving.limits import (
    DECODE_SECONDS,
    LONG_LISTENING,
    LONG_WINDOWS,
    MEGABYTE,
    REQUEST_SECONDS,
    SHORT_DECODE_SECONDS,
    SHORT_SECONDS,
    Places,
    limits,
)
from serving.monitoring import MONITORING_VARIABLE, Inferring, Listening, record
from serving.openapi import specification
from serving.uploads import AudioFile, AudioFiles, BatchUpload, HopSeconds, TimelineUpload, Upload

BATCH_WINDOWS = runtime.BATCH_WINDOWS
CHUNKS_ON_THE_WAY = 2
"""Of one request: one is inferred while the next is prepared, and others' windows come between."""
BENTO_SECONDS = round(REQUEST_SECONDS) + 20
"""BentoML's own patience, longer than ours: its answer would have no sentence."""
TRIES = 3
CHANGING = "The service is changing its model: try again in a few seconds."

P = ParamSpec("P")
T = TypeVar("T")
Row = tuple[str, NDArray[np.float32]]
"""A window on its way in: the model it was prepared for, what the model takes."""
Result = tuple[NDArray[np.float32] | None, float]
"""A window's logits, None where that model is no longer there, and how many seconds its batch took."""

patience.install()
logging.getLogger("bentoml._internal.server.http_app").addFilter(quiet_refusals)


@bentoml.service(
    name="inference",
    workers=1,
    traffic={"timeout": BENTO_SECONDS},
    logging={"access": {"enabled": False}},  # the front logs each request
    # BentoML's client begins a new session after so many requests, and breaks off those under way in the old.
    runner_connection={"max_requests": 1_000_000_000, "max_age": 1e9},
)
class Inference:
    """Infers windows of all requests together; each with the model that it was prepared for."""

    packaged = bentoml.models.BentoModel(recipe.recipe().model)

    def __init__(self) -> None:
        stored: Any = self.packaged
        self.models = Models(stored, recipe.recipe().runtime)
        self.figures = Inferring(BATCH_WINDOWS)
        self.batching: Batching[Row, Result] = Batching(self._infer, BATCH_WINDOWS)

    @bentoml.api
    async def infer(self, rows: list[Any]) -> list[Any]:
        """`Row`s of one request → a `Result` each."""
        return await self.batching(rows)

    def _infer(self, rows: list[Row]) -> list[Result]:
        """`Row`s of any requests → a `Result` each."""
        results: list[Result] = [(None, 0.0)] * len(rows)
        for tag in {tag for tag, _ in rows}:  # more than one only while models change
            places = [place for place, row in enumerate(rows) if row[0] == tag]
            classifier = self.models.of(tag)
            if classifier is None:
                continue
            began = time.perf_counter()
            logits = classifier.logits(np.stack([rows[place][1] for place in places]))
            took = time.perf_counter() - began
            self.figures.inference.observe(took)
            self.figures.windows.observe(len(places))
            for place, row in zip(places, logits, strict=True):
                results[place] = (row, took)
        return results

    @bentoml.api
    async def described(self) -> dict[str, Any]:
        """The model that answers now, as `Answering`."""
        described = self.models.describe()
        classifier = self.models.of(described.tag) or self.models.current.classifier
        return described.model_dump(mode="json") | {"pace": classifier.pace}


class Answering(Described):
    """A model as the front needs it, with its pace."""

    pace: float
    """Seconds that a window takes it, at best."""


@dataclass(frozen=True)
class Heard:
    """What became of one file."""

    model: Answering
    probabilities: NDArray[np.float32]
    """(windows, genres)."""
    starts: NDArray[np.float64]
    """(windows,) seconds."""
    samples: NDArray[np.float32]
    """(n,) mono at the model's rate."""
    seconds: float


class ModelGone(Exception):
    """The model that a request was prepared for is no longer there: it begins again with the present one."""


web = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


@bentoml.service(
    name="genreflow",
    image=recipe.image(),
    labels=recipe.labels(),
    envs=recipe.ENVIRONMENT,
    workers=1,
    traffic={"timeout": BENTO_SECONDS},
    monitoring={
        "enabled": True,
        "type": "default",
        "options": {"log_path": os.environ.get(MONITORING_VARIABLE, "monitoring")},
    },
)
@bentoml.asgi_app(web, path="/")
class GenreClassifier:
    """Classifies music by genre with the promoted model."""

    inference = bentoml.depends(Inference)

    def __init__(self) -> None:
        self.limits = limits()
        self.places = Places()
        self.figures = Listening()
        self.threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="listen")
        self.long_thread = ThreadPoolExecutor(1, thread_name_prefix="decode")
        if recipe.recipe().page:
            self._show_page()

    def _show_page(self) -> None:
        from serving import page  # Gradio takes seconds: only the process that shows the page waits for it

        page.mount(
            web,
            page.page(self.song, in_time(self.curve), in_time(self.model)),
            self.limits.upload_megabytes * MEGABYTE,
        )

    @bentoml.api(input_spec=Upload)
    async def classify(self, file: AudioFile) -> Answer:
        """The genre of an audio file, all probabilities, and the lineage of the model that answered."""
        async with answering():
            return await in_time(self.answer)(file)

    @bentoml.api(input_spec=TimelineUpload)
    async def timeline(self, file: AudioFile, hop_seconds: HopSeconds = None) -> Curve:
        """Probabilities over the song, and the stretches of one genre."""
        async with answering():
            return await in_time(self.curve)(file, hop_seconds)

    @bentoml.api(input_spec=BatchUpload)
    async def classify_batch(self, files: AudioFiles) -> list[BatchAnswer]:
        """The genres of many audio files, in their order; a file that is no good has its own error."""
        async with answering():
            return await self._all_of_many(files)

    async def model(self) -> ModelCard:
        """The card of the model that answers now."""
        return (await self._model()).card

    async def answer(self, file: Path) -> Answer:
        """The answer for one file.

        Raises:
            GenreflowError: with a sentence for whoever sent it.
        """
        began = time.perf_counter()
        return await self._answered(await self._hear(file, None), began)

    async def _answered(self, heard: Heard, began: float) -> Answer:
        found = runtime.classification(heard.probabilities, heard.model.genres, heard.seconds)
        reason = await self._in_thread(doubt.reason, heard.samples, found.confidence)
        lineage = heard.model.card.lineage
        latency = time.perf_counter() - began
        self.figures.whole.observe(latency)
        record(found.genre, found.confidence, reason is not None, found.seconds, latency, lineage)
        return Answer(
            **found.to_dict(),
            unsure=reason is not None,
            threshold=doubt.UNSURE_BELOW,
            reason=reason,
            lineage=lineage,
        )

    async def curve(self, file: Path, hop_seconds: float | None) -> Curve:
        """The timeline of one file.

        Raises:
            GenreflowError: with a sentence for whoever sent it.
        """
        runtime.check_hop(hop_seconds)
        return self._followed(await self._hear(file, hop_seconds))

    def _followed(self, heard: Heard) -> Curve:
        window = heard.model.hearing.window_seconds
        song = runtime.timeline(heard.probabilities, heard.starts, window, heard.model.genres, heard.seconds)
        return Curve(**song.to_dict(), lineage=heard.model.card.lineage)

    async def song(self, file: Path, hop_seconds: float | None) -> AsyncIterator[tuple[Answer, Curve | None]]:
        """The answer for one file and, as soon as it is there, the timeline beside it: both of one model.

        Decoded once and, at the model's own hop, heard once.

        Raises:
            GenreflowError: with a sentence for whoever sent it.
        """
        runtime.check_hop(hop_seconds)
        began = time.perf_counter()
        heard = await in_time(self._hear)(file, None)
        answer = await in_time(self._answered)(heard, began)
        if hop_seconds is not None:
            yield answer, None
            heard = await in_time(self._hear_again)(heard, file.name, hop_seconds)
        yield answer, self._followed(heard)

    async def _all_of_many(self, files: list[Path]) -> list[BatchAnswer]:
        few = asyncio.Semaphore(LONG_LISTENING)  # or long songs of one request crowd each other out
        until = asyncio.get_running_loop().time() + LONG_LISTENING * self.limits.answer_seconds
        return list(await asyncio.gather(*(self._one_of_many(file, few, until) for file in files)))

    async def _one_of_many(self, file: Path, few: asyncio.Semaphore, until: float) -> BatchAnswer:
        try:
            async with asyncio.timeout_at(until), few:
                return BatchAnswer(file=file.name, answer=await self.answer(file), error=None)
        except GenreflowError as error:
            sentence = str(error)
        except TimeoutError:
            sentence = f"{file.name} was not reached in time: send it again, with fewer others."
        return BatchAnswer(file=file.name, answer=None, error=sentence)

    async def _hear(self, file: Path, hop_seconds: float | None) -> Heard:
        """Decode, cut, infer: all windows of a file by one and the same model."""
        for _ in range(TRIES):
            try:
                return await self._hear_with(await self._model(), file, hop_seconds)
            except ModelGone:
                continue
        raise RequestError(CHANGING, 503)

    async def _hear_with(self, model: Answering, file: Path, hop_seconds: float | None) -> Heard:
        """All windows of a file by this model; refused where they would never be answered in time."""
        windows, hop = self._most_windows(model, hop_seconds), hop_seconds or model.hearing.hop_seconds
        try:
            return await self._listen(model, file, hop_seconds, min(self.limits.seconds, windows * hop))
        except AudioError as error:
            if error.reason == "too-long" and windows * hop < self.limits.seconds:
                raise too_much(file.name, windows, hop, hop_seconds is None) from error
            raise

    async def _hear_again(self, heard: Heard, name: str, hop_seconds: float) -> Heard:
        """The same at another hop, by the same model."""
        windows = self._most_windows(heard.model, hop_seconds)
        if heard.seconds > windows * hop_seconds:
            raise too_much(name, windows, hop_seconds, False)
        long = heard.seconds / hop_seconds > LONG_WINDOWS
        try:
            async with self.places.long(heard.seconds) if long else self.places.short():
                return await self._infer(heard.model, heard.samples, heard.seconds, hop_seconds)
        except ModelGone:
            raise RequestError(CHANGING, 503) from None

    def _most_windows(self, model: Answering, hop_seconds: float | None) -> float:
        """How many are answered in time were the request alone; no more than are allowed of a timeline."""
        windows = self.limits.answer_seconds / model.pace
        return windows if hop_seconds is None else min(windows, self.limits.windows)

    async def _listen(self, model: Answering, file: Path, hop_seconds: float | None, most: float) -> Heard:
        """Decode, cut and infer a file of at most so many seconds, among short clips or apart from them."""
        rate = model.hearing.sample_rate
        try:
            async with self.places.short():
                samples, seconds = await self._decode(
                    self.threads, file, rate, min(most, SHORT_SECONDS), SHORT_DECODE_SECONDS
                )
                if seconds / (hop_seconds or model.hearing.hop_seconds) <= LONG_WINDOWS:
                    return await self._infer(model, samples, seconds, hop_seconds)
            decoded = True
        except AudioError as error:
            if error.reason != "too-slow" and (error.reason != "too-long" or most <= SHORT_SECONDS):
                raise
            decoded = False
        if not decoded:  # out here, where the error no longer holds what it had decoded
            async with self.places.decoding():
                samples, seconds = await self._decode(self.long_thread, file, rate, most, DECODE_SECONDS)
        async with self.places.long(seconds):
            return await self._infer(model, samples, seconds, hop_seconds)

    async def _decode(
        self, threads: Executor, file: Path, rate: int, most: float, patience: float
    ) -> tuple[NDArray[np.float32], float]:
        """Mono samples (n,) at `rate` Hz, and the seconds of the file: at most `most`."""

        def decoded() -> tuple[NDArray[np.float32], float]:
            audio = decode(file, file.name, most, patience)
            return resample(audio.samples, audio.sample_rate, rate), audio.seconds

        began = time.perf_counter()
        samples, seconds = await asyncio.get_running_loop().run_in_executor(threads, decoded)
        self.figures.decode.observe(time.perf_counter() - began)
        if seconds < self.limits.min_seconds:
            raise AudioError(
                f"{file.name} is too short: {seconds:.2f} s; at least {self.limits.min_seconds:g} s.",
                "too-short",
            )
        return samples, seconds

    async def _infer(
        self, model: Answering, samples: NDArray[np.float32], seconds: float, hop_seconds: float | None
    ) -> Heard:
        """Chunk by chunk, no more than a batch each and two on the way: others' windows come between."""
        chunks = runtime.hear_in_batches(model.hearing, samples, model.hearing.sample_rate, hop_seconds)
        starts: list[NDArray[np.float64]] = []
        logits: list[NDArray[np.float32]] = []
        sent: list[asyncio.Task[NDArray[np.float32]]] = []
        try:
            while (chunk := await self._in_thread(_next, chunks)) is not None:
                if len(sent) == CHUNKS_ON_THE_WAY:
                    logits.append(await sent.pop(0))
                sent.append(asyncio.create_task(self._send(model.tag, chunk[0])))
                starts.append(chunk[1])
            while sent:
                logits.append(await sent.pop(0))
        finally:
            for task in sent:
                task.cancel()
        probabilities = runtime.softmax(np.concatenate(logits) / model.temperature)
        return Heard(model, probabilities, np.concatenate(starts), samples, seconds)

    async def _send(self, tag: str, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, *input shape) → (n, genres) logits."""
        began = time.perf_counter()
        rows: list[Row] = [(tag, window) for window in inputs]
        results: list[Result] = await self._ask("infer", rows)
        taken = max(seconds for _, seconds in results)
        self.figures.queue.observe(max(0.0, time.perf_counter() - began - taken))
        if any(logits is None for logits, _ in results):
            raise ModelGone
        return np.stack([logits for logits, _ in results if logits is not None])

    async def _model(self) -> Answering:
        return Answering.model_validate(await self._ask("described"))

    async def _ask(self, what: str, *arguments: Any) -> Any:
        """Call the inner service; again where the connection broke, for inferring twice does no harm.

        It breaks where the inner service died, or closed an idle connection just as it was taken again
        (bentoml/BentoML#4971).
        """
        inner: Any = self.inference
        for attempt in range(TRIES):
            try:
                return await getattr(inner.to_async, what)(*arguments)
            except (aiohttp.ClientError, BentoMLException, OSError, RuntimeError) as error:
                if attempt + 1 == TRIES:
                    raise RequestError(
                        "The service cannot infer at the moment: try again in a few seconds.", 503
                    ) from error
        raise AssertionError

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *arguments)


def too_much(name: str, windows: float, hop_seconds: float, own: bool) -> GenreflowError:
    """Why a file that has more than so many windows is not begun: it would not be answered in time."""
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


def in_time(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """The function with the patience that a request has."""

    async def limited(*arguments: P.args, **others: P.kwargs) -> T:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await function(*arguments, **others)
        except TimeoutError:
            raise RequestError("The service is busy: try again in a few minutes.", 503) from None

    return limited


@asynccontextmanager
async def answering() -> AsyncIterator[None]:
    """Turn what goes wrong while a request is answered into a refusal with a sentence and a status."""
    try:
        yield
    except GenreflowError as error:
        refuse(error)


@web.get("/model", response_model=ModelCard, tags=["Service APIs"])
async def model_card() -> Any:
    """What the model that answers is, how good it was found to be, and whether the registry is followed."""
    service: Any = bentoml.get_current_service()
    async with answering():
        return await in_time(service.model)()


if not recipe.recipe().page:

    @web.get("/ui", include_in_schema=False)
    @web.get("/ui/", include_in_schema=False)
    async def no_page() -> JSONResponse:
        problem = Problem(error="This service was built without its page, by genreflow build --no-page.")
        return JSONResponse(problem.model_dump(), 404)


@web.get("/docs.json", include_in_schema=False)
async def openapi() -> JSONResponse:
    return JSONResponse(specification(GenreClassifier))


# BentoML's decorator makes it a `bentoml.Service`
served: Any = GenreClassifier
served.add_asgi_middleware(Door, limits=limits())


def _next(
    chunks: Iterator[tuple[NDArray[np.float32], NDArray[np.float64]]],
) -> tuple[NDArray[np.float32], NDArray[np.float64]] | None:
    return next(chunks, None)
