"""The limits of a service: sizes, times and how many requests run at once."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Self

from pydantic import Field, ValidationError

from genreflow.core.documents import Frozen
from genreflow.core.errors import RequestError, SettingsError

DECODE_SECONDS = 60.0
WAIT_SECONDS = 280.0
"""How long a request may wait for its turn."""
ANSWER_SECONDS = 450.0
"""Of the model's own time, were the request alone: what would take longer is refused at once. With a model of
DistilHuBERT's size on two cores, an hour of windows every two seconds takes 350."""
LONG_AT_ONCE = 2
"""Long songs inferred at once: each may take that many times as long as alone."""
REQUEST_SECONDS = WAIT_SECONDS + DECODE_SECONDS + LONG_AT_ONCE * ANSWER_SECONDS
"""A request that takes longer is cancelled; an admitted one takes that long only in a busy service."""
REQUESTS_AT_ONCE = 8
"""Requests decoded and inferred at once; the others wait as files on disk."""
SHORT_SECONDS = 600.0
"""Of music: a file that is longer, or takes longer to decode, does so behind others of its kind alone."""
SHORT_DECODE_SECONDS = 2.0
LONG_WINDOWS = 24
"""A song of more windows than that is long: it waits for one of few places and does not delay short clips."""
WAITING_SECONDS = 4 * 3_660.0
"""Of music that waits, decoded, for such a place: 0.9 GB at 16 kHz."""
MEGABYTE = 1_000_000


class Limits(Frozen):
    """The limits of one service."""

    upload_megabytes: int = Field(default=800, gt=0)
    """Of one request: an hour of CD audio has 635."""
    uploads_megabytes: int = Field(default=2_000, gt=0)
    """Of all requests that are being answered."""
    seconds: float = Field(default=3_660.0, gt=0)
    """Of one song: an hour, and a little."""
    min_seconds: float = Field(default=1.0, ge=0)
    windows: int = Field(default=2_000, gt=0)
    """Of a timeline whose hop the request gives."""
    answer_seconds: float = Field(default=ANSWER_SECONDS, gt=0, le=ANSWER_SECONDS)
    """Of the model's own time for one song, were it alone."""
    files: int = Field(default=64, gt=0)
    """Of one batch."""
    requests: int = Field(default=64, gt=0)
    """Answered or waiting at once."""
    stall_seconds: float = Field(default=30.0, gt=0)
    """Of an upload that makes no progress."""
    api_key: str | None = Field(default=None, min_length=8)

    @classmethod
    def from_environment(cls) -> Self:
        """The defaults, changed by `GENREFLOW_MAX_…` and `GENREFLOW_API_KEY`.

        Raises:
            SettingsError: a variable has a value that is none.
        """
        names = {
            "upload_megabytes": "GENREFLOW_MAX_UPLOAD_MB",
            "uploads_megabytes": "GENREFLOW_MAX_UPLOADS_MB",
            "seconds": "GENREFLOW_MAX_SECONDS",
            "windows": "GENREFLOW_MAX_WINDOWS",
            "answer_seconds": "GENREFLOW_MAX_ANSWER_SECONDS",
            "files": "GENREFLOW_MAX_FILES",
            "requests": "GENREFLOW_MAX_REQUESTS",
            "stall_seconds": "GENREFLOW_MAX_STALL_SECONDS",
            "api_key": "GENREFLOW_API_KEY",
        }
        given = {field: os.environ[name] for field, name in names.items() if os.environ.get(name)}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            wrong = error.errors()[0]
            name = names[str(wrong["loc"][0])]
            raise SettingsError(f"{name} does not fit: {wrong['msg']}. Correct it or leave it out.") from None


@cache
def limits() -> Limits:
    """The limits of this process."""
    return Limits.from_environment()


class ConcurrencyLimits:
    """How many requests run at once; fewer long songs, so that short clips are never starved."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._decoding = asyncio.Semaphore(1)
        self._long = asyncio.Semaphore(LONG_AT_ONCE)
        self._waiting_seconds = 0.0

    @asynccontextmanager
    async def short(self) -> AsyncIterator[None]:
        """Hold one of the places for decoding and inferring a short clip.

        Raises:
            RequestError: none became free in time; so do the others.
        """
        await _acquired(self._all)
        try:
            yield
        finally:
            self._all.release()

    @asynccontextmanager
    async def decoding(self) -> AsyncIterator[None]:
        """Hold the one place for decoding a long file, acquired after that of a short one was released."""
        await _acquired(self._decoding)
        try:
            yield
        finally:
            self._decoding.release()

    @asynccontextmanager
    async def long(self, seconds: float) -> AsyncIterator[None]:
        """Hold one of the places for inferring a long song, acquired after that of a short one was released.

        Args:
            seconds: of the song.

        Raises:
            RequestError: too much music waits already.
        """
        if self._waiting_seconds and self._waiting_seconds + seconds > WAITING_SECONDS:
            raise RequestError("The service is busy with long songs: try again later.", 503)
        self._waiting_seconds += seconds
        try:
            await _acquired(self._long)
        finally:
            self._waiting_seconds -= seconds
        try:
            yield
        finally:
            self._long.release()


async def _acquired(places: asyncio.Semaphore) -> None:
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await places.acquire()
    except TimeoutError:
        raise RequestError("The service is busy: try again in a few minutes.", 503) from None
