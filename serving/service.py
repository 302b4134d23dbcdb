"""The BentoML service: a front service with the endpoints, and an inner one that infers windows in batches.

It uses the library's inference and features only: neither torch nor transformers is needed on a CPU.
`serving.recipe` says which model is served.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import bentoml
import numpy as np
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from genreflow.core.errors import GenreflowError, RequestError
from genreflow.core.processors import available_processors
from genreflow.features import BATCH_WINDOWS
from genreflow.inference.answers import build_timeline, check_hop, classify_windows
from genreflow.inference.reliability import UNSURE_BELOW
from serving import recipe, request_timeout
from serving.batching import Batching
from serving.champion import Models, StoredModel
from serving.inner_calls import call_inner
from serving.limits import (
    LONG_AT_ONCE,
    MEGABYTE,
    REQUEST_SECONDS,
    limits,
)
from serving.monitoring import InferenceMetrics, RequestMetrics, monitoring, record
from serving.openapi import specification
from serving.prediction import FilePredictor, Result, Row, WindowPredictions
from serving.request_guard import RequestGuardMiddleware, hide_refusals, refuse
from serving.schemas import Answer, BatchAnswer, ErrorResponse, ModelCard, Timeline
from serving.uploads import AudioFile, AudioFiles, BatchUpload, HopSeconds, TimelineUpload, Upload

BENTO_SECONDS = round(REQUEST_SECONDS) + 20
"""BentoML's own time limit, longer than ours: its response has no error sentence."""

P = ParamSpec("P")
T = TypeVar("T")
request_timeout.install()
# BentoML (1.4.39) logs a refusal with its traceback and has no setting against it.
logging.getLogger("bentoml._internal.server.http_app").addFilter(hide_refusals)


@bentoml.service(
    name="inference",
    workers=1,
    traffic={"timeout": BENTO_SECONDS},
    logging={"access": {"enabled": False}},  # the front logs each request
    # BentoML's client begins a new session after so many requests, and aborts those under way in the old.
    runner_connection={"max_requests": 1_000_000_000, "max_age": 1e9},
)
class Inference:
    """Infers windows of all requests in common batches, each by the model that it was prepared for."""

    folder = recipe.recipe().folder
    packaged = None if folder else bentoml.models.BentoModel(recipe.recipe().model)

    def __init__(self) -> None:
        stored: Any = self.packaged
        pinned = StoredModel.in_folder(self.folder) if self.folder else StoredModel.of(stored)
        self.models = Models(pinned, recipe.recipe().runtime)
        self.metrics = InferenceMetrics(BATCH_WINDOWS)
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
            self.metrics.inference.observe(took)
            self.metrics.windows.observe(len(places))
            for place, row in zip(places, logits, strict=True):
                results[place] = (row, took)
        return results

    @bentoml.api
    async def described(self) -> dict[str, Any]:
        """The model that is served now, as `InferenceModel`."""
        described = self.models.describe()
        classifier = self.models.of(described.tag) or self.models.current.classifier
        return described.model_dump(mode="json") | {
            "best_seconds_per_window": classifier.best_seconds_per_window
        }


web = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


@bentoml.service(
    name="genreflow",
    image=recipe.image(),
    labels=recipe.labels(),
    envs=recipe.ENVIRONMENT,
    workers=1,
    traffic={"timeout": BENTO_SECONDS},
    monitoring=monitoring(),
)
@bentoml.asgi_app(web, path="/")
class GenreClassifier:
    """Classifies music by genre with the promoted model."""

    inference = bentoml.depends(Inference)

    def __init__(self) -> None:
        self.limits = limits()
        self.metrics = RequestMetrics()
        self.threads = ThreadPoolExecutor(available_processors(), thread_name_prefix="predict")
        long_thread = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self.predictor = FilePredictor(self._call_inner, self.limits, self.metrics, self.threads, long_thread)
        if recipe.recipe().page:
            self._show_page()

    def _show_page(self) -> None:
        from serving import page  # Gradio takes seconds to import: only the process with the page does it

        page.mount(
            web,
            page.page(self.song, with_time_limit(self.curve), with_time_limit(self.model)),
            self.limits.upload_megabytes * MEGABYTE,
        )

    @bentoml.api(input_spec=Upload)
    async def classify(self, file: AudioFile) -> Answer:
        """The genre of an audio file, all probabilities, and the lineage of the model."""
        async with refusing_errors():
            return await with_time_limit(self.answer)(file)

    @bentoml.api(input_spec=TimelineUpload)
    async def timeline(self, file: AudioFile, hop_seconds: HopSeconds = None) -> Timeline:
        """Probabilities over the song, and segments of one genre."""
        async with refusing_errors():
            return await with_time_limit(self.curve)(file, hop_seconds)

    @bentoml.api(input_spec=BatchUpload)
    async def classify_batch(self, files: AudioFiles) -> list[BatchAnswer]:
        """The genres of many audio files, in their order; a file that cannot be used has its own error."""
        async with refusing_errors():
            return await self._all_of_many(files)

    async def model(self) -> ModelCard:
        """The card of the model that is served now."""
        return (await self.predictor.model()).card

    async def answer(self, file: Path) -> Answer:
        """The answer for one file.

        Raises:
            GenreflowError: with a sentence for the sender.
        """
        began = time.perf_counter()
        return await self._classified(await self.predictor.predict(file, None), began)

    async def _classified(self, predicted: WindowPredictions, began: float) -> Answer:
        genres, card = predicted.model.genres, predicted.model.card
        found = await asyncio.get_running_loop().run_in_executor(
            self.threads,
            classify_windows,
            predicted.probabilities,
            genres,
            predicted.samples,
            predicted.seconds,
        )
        latency = time.perf_counter() - began
        self.metrics.whole.observe(latency)
        record(found.genre, found.confidence, found.unsure, found.seconds, latency, card.lineage)
        return Answer(**found.to_dict(), threshold=UNSURE_BELOW, lineage=card.lineage)

    async def curve(self, file: Path, hop_seconds: float | None) -> Timeline:
        """The timeline of one file.

        Raises:
            GenreflowError: with a sentence for the sender.
        """
        check_hop(hop_seconds)
        return self._timeline(await self.predictor.predict(file, hop_seconds))

    def _timeline(self, predicted: WindowPredictions) -> Timeline:
        model = predicted.model
        window = model.input_spec.window_seconds
        song = build_timeline(
            predicted.probabilities, predicted.starts, window, model.genres, predicted.seconds
        )
        return Timeline(**song.to_dict(), lineage=model.card.lineage)

    async def song(
        self, file: Path, hop_seconds: float | None
    ) -> AsyncIterator[tuple[Answer, Timeline | None]]:
        """The answer for one file and, when it is ready, its timeline: both of one model.

        The file is decoded once and, at the model's own hop, inferred once.

        Raises:
            GenreflowError: with a sentence for the sender.
        """
        check_hop(hop_seconds)
        began = time.perf_counter()
        predicted = await with_time_limit(self.predictor.predict)(file, None)
        answer = await with_time_limit(self._classified)(predicted, began)
        if hop_seconds is not None:
            yield answer, None
            again = with_time_limit(self.predictor.predict_again)
            predicted = await again(predicted, file.name, hop_seconds)
        yield answer, self._timeline(predicted)

    async def _all_of_many(self, files: list[Path]) -> list[BatchAnswer]:
        few = asyncio.Semaphore(LONG_AT_ONCE)  # otherwise long songs of one request starve each other
        until = asyncio.get_running_loop().time() + LONG_AT_ONCE * self.limits.answer_seconds
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

    async def _call_inner(self, endpoint: str, *arguments: Any) -> Any:
        inner: Any = self.inference
        return await call_inner(lambda: getattr(inner.to_async, endpoint)(*arguments))


def with_time_limit(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """The function with the time limit of a request."""

    async def limited(*arguments: P.args, **others: P.kwargs) -> T:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await function(*arguments, **others)
        except TimeoutError:
            raise RequestError("The service is busy: try again in a few minutes.", 503) from None

    return limited


@asynccontextmanager
async def refusing_errors() -> AsyncIterator[None]:
    """Turn the errors of a request into a refusal with a sentence and a status."""
    try:
        yield
    except GenreflowError as error:
        refuse(error)


@web.get("/model", response_model=ModelCard, tags=["Service APIs"])
async def model_card() -> Any:
    """What model is served, how accurate it was in evaluation, and whether the registry is followed."""
    service: Any = bentoml.get_current_service()
    async with refusing_errors():
        return await with_time_limit(service.model)()


if not recipe.recipe().page:

    @web.get("/ui", include_in_schema=False)
    @web.get("/ui/", include_in_schema=False)
    async def no_page() -> JSONResponse:
        problem = ErrorResponse(
            error="This service was built without its page, by genreflow build --no-page."
        )
        return JSONResponse(problem.model_dump(), 404)


@web.get("/docs.json", include_in_schema=False)
async def openapi() -> JSONResponse:
    return JSONResponse(specification(GenreClassifier))


# BentoML's decorator makes it a `bentoml.Service`
served: Any = GenreClassifier
served.add_asgi_middleware(RequestGuardMiddleware, limits=limits())
