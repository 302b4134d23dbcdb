"""Security of a mounted Gradio page: host files, uploads that are never deleted, work for closed tabs.

Each changes a part of Gradio (6.31) that has no setting; the tests over HTTP fail where that part changes.
"""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Container, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import gradio
from fastapi import FastAPI
from gradio import route_utils
from gradio.server_messages import UnexpectedErrorMessage
from gradio.utils import get_upload_folder
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

FIELD = "files"
"""In which the page's script sends uploads."""
ANSWERS = "/gradio_api/queue/data"
"""From which it reads the results of its session."""
EVENT_MARK = "<gradio-sep>"
"""In the names of Gradio's tasks, between session and function on the one side and event on the other."""
DELETE_EVERY_SECONDS = 300
DELETE_AFTER_SECONDS = 1800
"""An upload is deleted after half an hour: until then the player may play it."""


def restrict_uploads(blocks: gradio.Blocks) -> None:
    """Make a page accept only its own uploads as inputs.

    Without `launch()`, which mounting never calls, Gradio accepts any path of the host, and fetches URLs. The
    method of the instance is replaced: for a subclass Gradio writes a stub file into its own package.
    """
    preprocess = blocks.preprocess_data

    async def checked(function: Any, inputs: list[Any], *others: Any, **named: Any) -> list[Any]:
        if not all(uploaded(path, Path(blocks.GRADIO_CACHE)) for path in paths(inputs)):
            raise gradio.Error(
                "Upload the song itself: neither paths nor addresses are accepted.", print_exception=False
            )
        return await preprocess(function, inputs, *others, **named)

    blocks.preprocess_data = checked  # type: ignore[assignment, method-assign]


def cancel_on_closed_tab(blocks: gradio.Blocks) -> None:
    """Make a page cancel the work for a closed tab, which Gradio lets run to its end."""
    clean = blocks._queue.clean_events

    async def cancelled(*, session_hash: str | None = None, event_id: str | None = None) -> None:
        for task in asyncio.all_tasks():
            whose, mark, _ = task.get_name().partition(EVENT_MARK)
            if mark and whose.rpartition("_")[0] == session_hash:
                task.cancel()
        await clean(session_hash=session_hash, event_id=event_id)

    blocks._queue.clean_events = cancelled  # type: ignore[method-assign]


def end_streams_of_unknown_sessions(application: FastAPI, blocks: gradio.Blocks) -> None:
    """Answer requests for an unknown session with the message that the page's script understands.

    Gradio sends it, too, but then aborts the stream and logs a traceback.
    """
    application.add_middleware(_KnownSessions, sessions=blocks._queue.pending_messages_per_session)


class _KnownSessions:
    def __init__(self, app: ASGIApp, sessions: Container[str]) -> None:
        self.app, self.sessions = app, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith(ANSWERS):
            await self.app(scope, receive, send)
            return
        session = Request(scope).query_params.get("session_hash")
        if session is None or session in self.sessions:
            await self.app(scope, receive, send)
            return
        gone = UnexpectedErrorMessage(message="This session has ended.", session_not_found=True)
        message = f"data: {gone.model_dump_json()}\n\n"
        await Response(message, media_type="text/event-stream")(scope, receive, send)


def paths(value: Any) -> Iterator[Any]:
    """Every path that a request's inputs name."""
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from paths(one)


def uploaded(path: Any, folder: Path) -> bool:
    """Whether that is a file in the folder of uploads."""
    try:
        file = Path(path).resolve()
        return file.is_relative_to(folder.resolve()) and file.is_file()
    except (OSError, TypeError, ValueError):
        return False


def keep_no_uploads(application: FastAPI, blocks: gradio.Blocks) -> None:
    """Have the uploads of a mounted page deleted by age, and all of them where the application ends."""
    route_utils.GradioMultiPartParser = UploadParser  # type: ignore[misc]
    mounted = application.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        folder = Path(blocks.GRADIO_CACHE)
        async with mounted(app) as state:
            deleting = asyncio.create_task(purge_expired_uploads(folder))
            try:
                yield state
            finally:
                deleting.cancel()
                shutil.rmtree(folder, ignore_errors=True)

    application.router.lifespan_context = lifespan


class UploadParser(route_utils.GradioMultiPartParser):
    """Gradio's reader of uploads: it would hold text in memory, and never delete files of other fields."""

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        part = self._current_part
        if part.file is None or part.field_name != FIELD:
            raise MultiPartException(f"Only files are accepted here, in the field {FIELD!r}.")


def own_folder() -> None:
    """Have Gradio keep uploads in a folder of this page's own: all in it is deleted in time."""
    parent = Path(get_upload_folder())
    parent.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="genreflow-page-", dir=parent)


async def purge_expired_uploads(folder: Path) -> None:
    """Delete old uploads, also those that were never completed, which Gradio does not know of."""
    while True:
        await asyncio.sleep(DELETE_EVERY_SECONDS)
        await asyncio.to_thread(delete_old, folder, time.time() - DELETE_AFTER_SECONDS)


def delete_old(folder: Path, before: float) -> None:
    """Delete what was last written before then (seconds since 1970)."""
    # what lies in a folder before the folder; passes over one that is deleted meanwhile, as rglob does not
    for parent, folders, files in os.walk(folder, topdown=False):
        for path in (Path(parent, name) for name in (*files, *folders)):
            with suppress(OSError):  # deleted meanwhile, or not empty
                if path.lstat().st_mtime < before:
                    path.rmdir() if path.is_dir() else path.unlink()
