"""The web page: a song in, its genre, the ten probabilities and the curve of genre over the song out.

Gradio draws the page. Nothing on it comes from outside: no analytics, no fonts, no share link.
"""

import asyncio
import base64
import io
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio
import numpy as np
from fastapi import FastAPI
from gradio import route_utils
from gradio.utils import get_upload_folder
from starlette.formparsers import MultiPartException

from genreflow import drawing
from genreflow.errors import GenreflowError
from genreflow.runtime import Timeline

if TYPE_CHECKING:
    from serving.answers import Answer, Curve, ModelCard

TITLE = "genreflow"
PATH = "/ui"
FIELD = "files"
"""In which the page's script sends uploads."""
EVENT_MARK = "<gradio-sep>"
"""In the names of Gradio's tasks, between session and function on the one side and event on the other."""
STYLE_FILE = Path(__file__).with_name("page.css")
OWN_HOP = 0.0
HOPS = [("the model's own", OWN_HOP), ("1 s", 1.0), ("2 s", 2.0), ("5 s", 5.0), ("10 s", 10.0)]
SONGS_AT_ONCE = 2
SONGS_WAITING = 16
DELETE_EVERY_SECONDS = 300
DELETE_AFTER_SECONDS = 1800
"""An upload is deleted after half an hour: until then the player may play it."""
DIGEST_CHARACTERS = 12
SCREEN_DOTS_PER_INCH = 110
EMPTY_HTML = '<p class="empty">Here comes the curve of genre over the song.</p>'
WAITING_HTML = '<p class="empty">Following the song …</p>'

log = logging.getLogger("genreflow")
_drawing = threading.Lock()
"""Matplotlib's fonts are not for two threads at once."""


def uploads_alone(blocks: gradio.Blocks) -> None:
    """Have a page take its own uploads alone, whichever input a request names a file in, and however.

    Gradio takes any path of the host as long as `launch()` was not called, which mounting never does, and
    fetches addresses. On the page itself: for a subclass Gradio writes a stub file into its own package.
    """
    preprocess = blocks.preprocess_data

    async def checked(function: Any, inputs: list[Any], *others: Any, **named: Any) -> list[Any]:
        if not all(uploaded(path, Path(blocks.GRADIO_CACHE)) for path in paths(inputs)):
            raise gradio.Error(
                "Upload the song itself: neither paths nor addresses are taken.", print_exception=False
            )
        return await preprocess(function, inputs, *others, **named)

    blocks.preprocess_data = checked  # type: ignore[assignment, method-assign]


def waited_for(blocks: gradio.Blocks) -> None:
    """Have a page cancel what it does for a tab that was closed: Gradio lets it run to its end."""
    clean = blocks._queue.clean_events

    async def cancelled(*, session_hash: str | None = None, event_id: str | None = None) -> None:
        for task in asyncio.all_tasks():
            whose, mark, _ = task.get_name().partition(EVENT_MARK)
            if mark and whose.rpartition("_")[0] == session_hash:
                task.cancel()
        await clean(session_hash=session_hash, event_id=event_id)

    blocks._queue.clean_events = cancelled  # type: ignore[method-assign]


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


def page(
    listen: "Callable[[Path, float | None], AsyncIterator[tuple[Answer, Curve | None]]]",
    timeline: "Callable[[Path, float | None], Awaitable[Curve]]",
    card: "Callable[[], Awaitable[ModelCard]]",
) -> gradio.Blocks:
    """The page over three functions of a service.

    Args:
        listen: the genre of an audio file and, at once or after it, its genres over time, at a hop in seconds
            (the model's own where None); both of one model.
        timeline: its genres over time alone.
        card: the model that answers just now.

    What these raise as `GenreflowError` is shown as the sentence it is; of anything else the log has the
    traceback, and the page says only that it was not the file's fault.
    """

    async def hear(file: str | None, hop: float) -> AsyncIterator[tuple[str, str, str]]:
        if file is None:
            yield "", EMPTY_HTML, ""
            return
        try:
            async for answer, curve in listen(Path(file), hop or None):
                drawn = WAITING_HTML if curve is None else await asyncio.to_thread(curve_html, curve)
                yield answer_html(answer), drawn, answer.lineage.digest
        except Exception as error:
            yield problem_html(error, Path(file)), EMPTY_HTML, ""

    async def follow(file: str | None, hop: float, shown: str) -> AsyncIterator[tuple[Any, str, str]]:
        if file is None:
            yield gradio.skip(), EMPTY_HTML, ""
            return
        try:
            curve = await timeline(Path(file), hop or None)
            if curve.lineage.digest == shown:
                yield gradio.skip(), await asyncio.to_thread(curve_html, curve), shown
                return
        except Exception as error:
            yield gradio.skip(), problem_html(error, Path(file)), shown
            return
        async for parts in hear(file, hop):  # the answer beside it is another model's
            yield parts

    async def about() -> tuple[str, str]:
        model = await card()
        return warnings_html(model), card_html(model)

    own_folder()
    with gradio.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gradio.HTML(
            "<header><h1>What genre is this song?</h1>"
            "<p>Drop a song or record one: its genre, how sure the model is, and where the song changes.</p>"
            "</header>"
        )
        warnings = gradio.HTML()
        with gradio.Row():
            with gradio.Column(scale=2, min_width=320):
                song = gradio.Audio(
                    label="Song",
                    type="filepath",
                    sources=["upload", "microphone"],
                    editable=False,
                    buttons=[],
                    elem_id="song",
                )
                answer = gradio.HTML(elem_id="answer")
            with gradio.Column(scale=3, min_width=320):
                hop = gradio.Radio(
                    HOPS, value=OWN_HOP, label="One point of the curve every", elem_id="hop", type="value"
                )
                curve = gradio.HTML(EMPTY_HTML, elem_id="curve")
        shown = gradio.State("")  # digest of the model whose answer is shown
        with gradio.Accordion("The model that answers", open=False):
            model = gradio.HTML(elem_id="model")
        song.change(
            hear,
            [song, hop],
            [answer, curve, shown],
            concurrency_limit=SONGS_AT_ONCE,
            concurrency_id="song",
            api_visibility="private",
        )
        hop.change(
            follow,
            [song, hop, shown],
            [answer, curve, shown],
            trigger_mode="always_last",
            concurrency_id="song",
            api_visibility="private",
        )
        blocks.load(about, None, [warnings, model], api_visibility="private", show_progress="hidden")
    uploads_alone(blocks)
    blocks.queue(max_size=SONGS_WAITING)
    waited_for(blocks)
    return blocks


def mount(application: FastAPI, blocks: gradio.Blocks, max_upload_bytes: int) -> None:
    """Put the page under `/ui` of a FastAPI application, before the application starts.

    In a BentoML service: in the class's `__init__`, which BentoML calls before it starts the application.
    """
    gradio.mount_gradio_app(
        application,
        blocks,
        path=PATH,
        theme=_theme(),
        css_paths=[STYLE_FILE],
        head='<link rel="icon" href="data:,">',  # browsers ask for one that is not there
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=max_upload_bytes,
    )
    route_utils.GradioMultiPartParser = SongsAlone  # type: ignore[misc]
    mounted = application.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        folder = Path(blocks.GRADIO_CACHE)
        async with mounted(app) as state:
            deleting = asyncio.create_task(delete_by_and_by(folder))
            try:
                yield state
            finally:
                deleting.cancel()
                shutil.rmtree(folder, ignore_errors=True)

    application.router.lifespan_context = lifespan


class SongsAlone(route_utils.GradioMultiPartParser):
    """Gradio's reader of uploads: it would hold text in memory, and never delete files of other fields."""

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        part = self._current_part
        if part.file is None or part.field_name != FIELD:
            raise MultiPartException(f"Only files are taken here, in the field {FIELD!r}.")


def own_folder() -> None:
    """Have Gradio keep uploads in a folder of this page's own: all in it is deleted in time."""
    parent = Path(get_upload_folder())
    parent.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="genreflow-page-", dir=parent)


async def delete_by_and_by(folder: Path) -> None:
    """Delete what is old, whether it was ever heard or broke off as it came: Gradio knows only the former."""
    while True:
        await asyncio.sleep(DELETE_EVERY_SECONDS)
        await asyncio.to_thread(delete_old, folder, time.time() - DELETE_AFTER_SECONDS)


def delete_old(folder: Path, before: float) -> None:
    """Delete what nobody has written since then (seconds since 1970)."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what lies in a folder before the folder
        with suppress(OSError):  # deleted meanwhile, or not empty
            if path.lstat().st_mtime < before:
                path.rmdir() if path.is_dir() else path.unlink()


def _theme() -> gradio.themes.Base:
    """Fonts of the reader's own machine, and greys dark enough to read."""
    theme = gradio.themes.Base(
        primary_hue="blue",
        neutral_hue="gray",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_600",
        block_title_text_color="*neutral_600",
    )


def answer_html(answer: "Answer") -> str:
    """The genre in words, and the ten probabilities as bars, the likeliest first."""
    if answer.unsure:
        why = (answer.reason or f"confidence {answer.confidence:.2f} below {answer.threshold:g}").rstrip(".")
        words = (
            "<h2>Unsure</h2>"
            f"<p>The model does not know: {escape(why)}. "
            f"Nearest is {escape(answer.genre)}, at {answer.confidence:.0%}.</p>"
        )
    else:
        words = f"<h2>{escape(answer.genre)} <small>{answer.confidence:.0%}</small></h2>"
    colour = drawing.colours(tuple(answer.probabilities))
    rows = "".join(
        f'<tr><th scope="row">{escape(genre)}</th>'
        f'<td aria-hidden="true"><i style="width:{share:.1%};background:{colour[genre]}"></i></td>'
        f"<td>{share:.0%}</td></tr>"
        for genre, share in sorted(answer.probabilities.items(), key=lambda item: -item[1])
    )
    windows = "1 window" if answer.windows == 1 else f"{answer.windows} windows"
    return (
        f'<section role="status">{words}'
        f'<table class="bars"><caption>Probability of each genre</caption><tbody>{rows}</tbody></table>'
        f'<p class="small">{drawing.clock(answer.seconds)} of music in {windows}, '
        f"heard by version {escape(answer.lineage.version)}.</p></section>"
    )


def curve_html(curve: "Curve") -> str:
    """The curve as a picture, one for wide and one for narrow screens, and as a table."""
    song = Timeline(
        np.array(curve.starts),
        np.array(curve.ends),
        np.array(curve.probabilities, dtype=np.float32),
        tuple(curve.genres),
    )
    wide, narrow = (_picture(song, inches) for inches in (drawing.PAGE, drawing.NARROW))
    stretches = [
        (drawing.clock(one.start), drawing.clock(one.end), escape(one.genre), f"{one.probability:.0%}")
        for one in curve.segments
    ]
    spoken = "; ".join(f"{start} to {end} {genre} {share}" for start, end, genre, share in stretches)
    rows = "".join(
        f"<tr><td>{start} – {end}</td><td>{genre}</td><td>{share}</td></tr>"
        for start, end, genre, share in stretches
    )
    return (
        f'<figure><picture><source media="(max-width: 700px)" srcset="{narrow}">'
        f'<img src="{wide}" alt="Genre over the song: {spoken}"></picture></figure>'
        "<details><summary>The same as a table</summary><table><thead><tr>"
        '<th scope="col">Time</th><th scope="col">Genre</th><th scope="col">Probability</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></details>"
    )


def problem_html(error: Exception, file: Path) -> str:
    """Why there is no answer, in a sentence that names the file but not where it lies."""
    if isinstance(error, GenreflowError):
        sentence = str(error).replace(str(file), file.name)
    else:
        log.error("the page could not answer for an upload", exc_info=error)
        sentence = "Something is wrong with the service, not with your file. Its log says what."
    return (
        f'<section role="alert" class="problem"><h2>This did not work</h2><p>{escape(sentence)}</p></section>'
    )


def warnings_html(card: "ModelCard") -> str:
    """What a reader has to know before believing an answer; empty where there is nothing."""
    sentences = []
    if card.synthetic:
        sentences.append(
            "This model was trained on synthetic music: it shows how this works; it does not know real music."
        )
    if card.leaky:
        sentences.append("Its accuracy flatters: test clips resemble training clips.")
    if not sentences:
        return ""
    return '<aside class="warning">' + "".join(f"<p>{escape(one)}</p>" for one in sentences) + "</aside>"


def card_html(card: "ModelCard") -> str:
    """The model's card."""
    accuracy = "not measured" if card.accuracy is None else f"{card.accuracy:.1%}"
    if card.accuracy_ci95 is not None:
        accuracy += f" (95% interval {card.accuracy_ci95[0]:.1%} to {card.accuracy_ci95[1]:.1%})"
    facts = {
        "Version": card.lineage.version,
        "Accuracy": accuracy,
        "Data": card.corpus,
        "Split": card.protocol + (" (leaky)" if card.leaky else ""),
        "Champion because": card.reason,
        "Runs on": f"{card.runtime}, {card.precision}",
        "Registry": card.registry,
        "Digest": card.lineage.digest[:DIGEST_CHARACTERS],
        "Notes": " ".join(card.notes) or None,
    }
    rows = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value)
    return f"<dl>{rows}</dl>"


def _picture(song: Timeline, inches: tuple[float, float]) -> str:
    """The curve as a data URI."""
    buffer = io.BytesIO()
    with _drawing:
        figure = drawing.draw(song, inches=inches)
        figure.savefig(buffer, format="svg", dpi=SCREEN_DOTS_PER_INCH, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
