"""The web page: a song in, its genre, the ten probabilities and the curve of genre over the song out.

Gradio draws the page. Nothing on it comes from outside: no analytics, no fonts, no share link.
"""

import asyncio
import base64
import io
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio
import numpy as np
from fastapi import FastAPI

from genreflow.core.errors import GenreflowError
from genreflow.inference import answers
from genreflow.inference.timeline_plot import NARROW, PAGE, clock, colours, draw_timeline
from serving import gradio_hardening

if TYPE_CHECKING:
    from serving.schemas import Answer, ModelCard, Timeline

TITLE = "genreflow"
PATH = "/ui"
STYLE_FILE = Path(__file__).with_name("page.css")
SCRIPT_FILE = Path(__file__).with_name("page.js")
OWN_HOP = 0.0
HOPS = [("the model's own", OWN_HOP), ("1 s", 1.0), ("2 s", 2.0), ("5 s", 5.0), ("10 s", 10.0)]
SONGS_AT_ONCE = 2
SONGS_WAITING = 16
DIGEST_CHARACTERS = 12
SCREEN_DOTS_PER_INCH = 110
EMPTY_HTML = '<p class="empty">The genre over the song appears here.</p>'
WAITING_HTML = '<p class="empty">Following the song …</p>'

log = logging.getLogger("genreflow")
_drawing = threading.Lock()
"""Matplotlib's fonts are not for two threads at once."""


def page(
    classify: "Callable[[Path, float | None], AsyncIterator[tuple[Answer, Timeline | None]]]",
    timeline: "Callable[[Path, float | None], Awaitable[Timeline]]",
    card: "Callable[[], Awaitable[ModelCard]]",
) -> gradio.Blocks:
    """The page over three functions of a service.

    Args:
        classify: the genre of an audio file and, at once or after it, its genres over time, at a hop in
            seconds (the model's own where None); both of one model.
        timeline: its genres over time alone.
        card: the model that is served now.

    What these raise as `GenreflowError` is shown as the sentence it is; of any other error the log has the
    traceback, and the page says only that the file was not its cause.
    """

    async def classified(file: str | None, hop: float) -> AsyncIterator[tuple[str, str, str]]:
        if file is None:
            yield "", EMPTY_HTML, ""
            return
        try:
            async for answer, curve in classify(Path(file), hop or None):
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
        async for parts in classified(file, hop):  # the answer that is shown is of another model
            yield parts

    async def about() -> tuple[str, str]:
        model = await card()
        return warnings_html(model), card_html(model)

    gradio_hardening.own_folder()
    with gradio.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gradio.HTML(
            "<header><h1>What genre is this song?</h1>"
            "<p>Drop a song or record one: its genre, its confidence, and where the genre changes.</p>"
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
        with gradio.Accordion("The model", open=False):
            model = gradio.HTML(elem_id="model")
        song.change(
            classified,
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
    blocks.queue(max_size=SONGS_WAITING)
    gradio_hardening.restrict_uploads(blocks)
    gradio_hardening.cancel_on_closed_tab(blocks)
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
        # browsers request an icon, and there is none
        head=f'<link rel="icon" href="data:,"><script>{SCRIPT_FILE.read_text()}</script>',
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=max_upload_bytes,
    )
    gradio_hardening.keep_no_uploads(application, blocks)
    gradio_hardening.end_streams_of_unknown_sessions(application, blocks)


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
            f"<p>Not reliable: {escape(why)}. "
            f"Most probable is {escape(answer.genre)}, at {answer.confidence:.0%}.</p>"
        )
    else:
        words = f"<h2>{escape(answer.genre)} <small>{answer.confidence:.0%}</small></h2>"
    colour = colours(tuple(answer.probabilities))
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
        f'<p class="small">{clock(answer.seconds)} of music in {windows}, '
        f"predicted by version {escape(answer.lineage.version)}.</p></section>"
    )


def curve_html(curve: "Timeline") -> str:
    """The curve as a figure, one for wide and one for narrow screens, and as a table."""
    song = answers.Timeline(
        np.array(curve.starts),
        np.array(curve.ends),
        np.array(curve.probabilities, dtype=np.float32),
        tuple(curve.genres),
    )
    wide, narrow = (_picture(song, inches) for inches in (PAGE, NARROW))
    segments = [
        (clock(one.start), clock(one.end), escape(one.genre), f"{one.probability:.0%}")
        for one in curve.segments
    ]
    spoken = "; ".join(f"{start} to {end} {genre} {share}" for start, end, genre, share in segments)
    rows = "".join(
        f"<tr><td>{start} – {end}</td><td>{genre}</td><td>{share}</td></tr>"
        for start, end, genre, share in segments
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
        sentence = "Something is wrong with the service, not with your file. Its log has the error."
    return (
        f'<section role="alert" class="problem"><h2>This did not work</h2><p>{escape(sentence)}</p></section>'
    )


def warnings_html(card: "ModelCard") -> str:
    """What a reader has to know before believing an answer; empty where there is nothing."""
    sentences = []
    if card.synthetic:
        sentences.append(
            "This model was trained on synthetic music: a demonstration, not a classifier of real music."
        )
    if card.leaky:
        sentences.append("Its accuracy is optimistic: test clips resemble training clips.")
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


def _picture(song: answers.Timeline, inches: tuple[float, float]) -> str:
    """The curve as a data URI."""
    buffer = io.BytesIO()
    with _drawing:
        figure = draw_timeline(song, inches=inches)
        figure.savefig(buffer, format="svg", dpi=SCREEN_DOTS_PER_INCH, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
