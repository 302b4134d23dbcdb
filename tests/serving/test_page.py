"""The web page in a real Chromium, over a real model."""

import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import soundfile
import uvicorn
from candidates import SAMPLES, write_packaged
from fastapi import FastAPI
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, expect
from servers import free_port
from services import Service
from sounds import write

from genreflow.core.errors import AudioError
from genreflow.core.genres import GENRES
from genreflow.inference.loading import load_classifier
from serving import gradio_hardening, page
from serving.schemas import Answer, Lineage, ModelCard, Timeline

SAMPLE_RATE = 8_000
THRESHOLD = 0.5
MAX_UPLOAD_BYTES = 2_000_000
TIMEOUT_MILLISECONDS = 20_000
"""Milliseconds; a machine that is busy takes its time."""
LINEAGE = Lineage(
    model="genreflow:v3-ab12", version="3", run_id="r", digest="ab12" * 16, corpus_fingerprint="c0" * 32,
    protocol="random", synthetic=False, runtime="openvino", precision="f32",
)  # fmt: skip
CARD = ModelCard(
    lineage=LINEAGE, accuracy=0.812, accuracy_ci95=(0.77, 0.851), corpus="GTZAN, 290 test clips",
    protocol="random", leaky=True,
    synthetic=True, reason="It is the first.", registry="connected", runtime="openvino",
    precision="f32", notes=["Served in f32, as bf16 differs on this processor."],
)  # fmt: skip


@dataclass
class Shown:
    """A page that is served, and the songs to drop on it."""

    address: str
    folder: Path
    uploads: Path
    version: str = LINEAGE.version
    """Of the model that answers."""
    reached: list[str] = field(default_factory=list)
    """Hosts that the server's process asked for while it served."""

    @property
    def song(self) -> Path:
        return self.folder / "song.wav"


def write_song(path: Path, weights: NDArray[np.float32], genres: list[str], windows: int = 4) -> None:
    """What the linear model hears as those genres in turn, `windows` windows each, at about 0.9."""
    parts = [np.tile(weights[:, GENRES.index(genre)] * 4, windows) for genre in genres]
    soundfile.write(path, np.concatenate(parts), SAMPLE_RATE, subtype="FLOAT")


async def card() -> ModelCard:
    return CARD


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("page")
    write_packaged(folder / "model", 0, {})
    weights = np.load(folder / "model" / "model" / "weights.npy")
    classifier = load_classifier(folder / "model")
    assert len(weights) == SAMPLES
    write_song(folder / "song.wav", weights, ["jazz", "metal", "jazz"])
    soundfile.write(folder / "silence.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    soundfile.write(folder / "long.wav", np.zeros(3 * MAX_UPLOAD_BYTES // 4), SAMPLE_RATE)
    (folder / "letter.wav").write_text("<html>not audio</html>")
    (folder / "breaks.wav").write_bytes(folder.joinpath("song.wav").read_bytes())

    port = free_port()
    one = Shown(f"http://127.0.0.1:{port}/ui/", folder, folder / "uploads")

    def lineage() -> Lineage:
        return LINEAGE.model_copy(update={"version": one.version, "digest": one.version * 64})

    async def listen(file: Path, hop: float | None) -> AsyncIterator[tuple[Answer, Timeline | None]]:
        if file.name == "breaks.wav":
            raise RuntimeError("a secret in /etc/passwd")
        actual = classifier.classify(file).to_dict()
        answer = Answer(**actual, threshold=THRESHOLD, lineage=lineage())
        if hop is not None:
            yield answer, None
        yield answer, await timeline(file, hop)

    async def timeline(file: Path, hop: float | None) -> Timeline:
        return Timeline(**classifier.timeline(file, hop).to_dict(), lineage=lineage())

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
        application = FastAPI()
        page.mount(application, page.page(listen, timeline, card), MAX_UPLOAD_BYTES)
        with running(application, port):
            sys.addaudithook(lambda event, given: note(one.reached, event, given))
            yield one


class running:
    """A server in a thread, for the length of a block."""

    def __init__(self, application: FastAPI, port: int) -> None:
        self.server = uvicorn.Server(uvicorn.Config(application, port=port, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=20)


def note(reached: list[str], event: str, given: tuple[object, ...]) -> None:
    """Notes every host that is looked up or connected to."""
    if event == "socket.getaddrinfo":
        reached.append(str(given[0]))
    elif event == "socket.connect" and isinstance(given[1], tuple):
        reached.append(str(given[1][0]))


@pytest.fixture
def opened(shown: Shown, browser: Browser) -> Iterator[Page]:
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    tab.set_default_timeout(TIMEOUT_MILLISECONDS)
    tab.goto(shown.address)
    yield tab
    tab.close()


def drop(tab: Page, file: Path) -> None:
    tab.locator("#song input[type=file]").first.set_input_files(file)


def test_a_dropped_song_is_named_with_bars_a_curve_and_a_player_and_nothing_leaves_this_machine(
    shown: Shown, browser: Browser
) -> None:
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    shown.reached.clear()
    tab.goto(shown.address)
    drop(tab, shown.song)
    expect(tab.locator("#answer h2")).to_contain_text("jazz")
    rows = tab.locator("#answer tbody tr")
    expect(rows).to_have_count(len(GENRES))
    assert re.match(r"jazz\s*\d\d%", rows.first.inner_text())
    bars = [row.locator("i").bounding_box() for row in rows.all()]
    widths = [bar["width"] if bar else 0 for bar in bars]
    assert widths == sorted(widths, reverse=True)
    curve = tab.locator("#curve img")
    expect(curve).to_have_attribute(
        "alt", re.compile(r"0:00 to 0:01 jazz \d+%; 0:01 to 0:02 metal \d+%; .*jazz")
    )
    assert curve.evaluate("image => image.naturalWidth") > 300
    expect(tab.get_by_role("button", name="Play", exact=True)).to_be_visible()
    tab.get_by_text("The same as a table").click()
    expect(tab.locator("#curve tbody tr")).to_have_count(3)
    tab.close()
    outside = [url for url in asked if not url.startswith((shown.address[:-3], "data:", "blob:"))]
    assert len(asked) > 10
    assert outside == []
    assert set(shown.reached) <= {"127.0.0.1", "localhost", "None"}


def test_another_hop_draws_the_curve_anew(opened: Page, shown: Shown) -> None:
    drop(opened, shown.song)
    curve = opened.locator("#curve img")
    expect(curve).to_be_visible()
    before = curve.get_attribute("src")
    assert before
    opened.get_by_label("1 s", exact=True).check()
    expect(curve).not_to_have_attribute("src", before)


def test_a_curve_of_a_new_model_is_shown_with_that_models_prediction(opened: Page, shown: Shown) -> None:
    drop(opened, shown.song)
    expect(opened.locator("#answer")).to_contain_text("predicted by version 3")
    expect(opened.locator("#curve img")).to_be_visible()
    shown.version = "4"
    try:
        opened.get_by_label("2 s", exact=True).check()
        expect(opened.locator("#answer")).to_contain_text("predicted by version 4")
    finally:
        shown.version = LINEAGE.version


def test_a_song_is_decoded_once_and_at_the_models_own_hop_predicted_once(
    service: Service, browser: Browser
) -> None:
    tab = browser.new_page()
    tab.goto(f"{service.address}/ui/")
    before = service.figures()
    drop(tab, service.song)
    expect(tab.locator("#answer h2")).to_be_visible()
    expect(tab.locator("#curve img")).to_be_visible()
    after = service.figures()
    tab.close()
    spent = {name: after[name] - before.get(name, 0) for name in after}
    assert (spent["decode_seconds_count"], spent["batch_windows_sum"]) == (1, service.expected.windows)


def test_unsure_is_shown_with_the_reason(opened: Page, shown: Shown) -> None:
    drop(opened, shown.folder / "silence.wav")
    expect(opened.locator("#answer h2")).to_have_text("Unsure")
    expect(opened.locator("#answer")).to_contain_text("Not reliable: silence.")
    expect(opened.locator("#answer")).to_contain_text("Most probable is blues, at 10%")


def test_a_file_that_is_no_audio_is_refused_with_an_error_message(opened: Page, shown: Shown) -> None:
    drop(opened, shown.folder / "letter.wav")
    alert = opened.get_by_role("alert")
    expect(alert).to_contain_text("letter.wav is text, not audio")
    assert str(shown.uploads) not in alert.inner_text()
    opened.get_by_role("button", name="Clear").click()
    expect(alert).to_have_count(0)


def test_an_internal_error_of_the_service_shows_no_internals(opened: Page, shown: Shown) -> None:
    drop(opened, shown.folder / "breaks.wav")
    expect(opened.get_by_role("alert")).to_contain_text("wrong with the service, not with your file")
    assert "secret" not in opened.content()


def test_a_file_over_the_limit_is_rejected_with_a_message(opened: Page, shown: Shown) -> None:
    drop(opened, shown.folder / "long.wav")
    expect(opened.get_by_text("exceed the maximum allowed size of 1.9 Mb")).to_be_visible()
    expect(opened.locator("#answer h2")).to_have_count(0)


def test_the_card_and_its_warnings_are_there(opened: Page) -> None:
    warning = opened.locator(".warning")
    expect(warning).to_contain_text("trained on synthetic music")
    expect(warning).to_contain_text("test clips resemble training clips")
    opened.get_by_role("button", name="The model").click()
    card = opened.locator("#model")
    for said in (
        "81.2% (95% interval 77.0% to 85.1%)",
        "GTZAN, 290",
        "random (leaky)",
        "ab12ab12ab12",
        "f32, as",
    ):
        expect(card).to_contain_text(said)


def test_on_a_phone_nothing_is_wider_than_the_screen(shown: Shown, browser: Browser) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, device_scale_factor=2, is_mobile=True, has_touch=True
    )
    tab = context.new_page()
    tab.goto(shown.address)
    drop(tab, shown.song)
    curve = tab.locator("#curve img")
    expect(curve).to_be_visible()
    tab.get_by_role("button", name="The model").tap()
    expect(tab.locator("#model dl")).to_be_visible()
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert tab.evaluate("innerWidth") == 390
    assert curve.evaluate("image => image.currentSrc != image.src")  # the picture for narrow screens
    context.close()


def test_the_keyboard_is_enough(opened: Page, shown: Shown) -> None:
    expect(opened.locator("#song")).to_be_visible()
    with opened.expect_file_chooser() as chosen:
        tab_to(opened, "Drop Audio Here")
        opened.keyboard.press("Enter")
    chosen.value.set_files(shown.song)
    curve = opened.locator("#curve img")
    expect(curve).to_be_visible()
    before = curve.get_attribute("src")
    assert before
    tab_to(opened, "1 s")
    opened.keyboard.press("Space")
    expect(curve).not_to_have_attribute("src", before)
    tab_to(opened, "The same as a table")
    opened.keyboard.press("Enter")
    expect(opened.locator("#curve tbody")).to_be_visible()
    tab_to(opened, "The model")
    opened.keyboard.press("Enter")
    expect(opened.locator("#model dl")).to_be_visible()


def tab_to(tab: Page, words: str) -> None:
    """Presses Tab until what has the focus says `words`."""
    for _ in range(40):
        tab.keyboard.press("Tab")
        said = tab.evaluate(
            """() => {
                const focused = document.activeElement
                return focused === document.body ? '' : (focused.closest('label') ?? focused).innerText
            }"""
        )
        if words in said:
            return
    pytest.fail(f"Tab never reached {words!r}")


def test_every_control_has_a_name(opened: Page, shown: Shown) -> None:
    drop(opened, shown.song)
    expect(opened.locator("#curve img")).to_be_visible()
    nameless = opened.evaluate(
        """() => [...document.querySelectorAll('button, input, select, img, [role=button]')]
        .filter(e => e.checkVisibility({visibilityProperty: true}))
        .filter(e => !(e.ariaLabel || e.innerText || e.alt || e.title || e.labels?.length
                       || e.getAttribute('aria-labelledby')))
        .map(e => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []


def test_an_upload_is_deleted_after_its_time_and_when_the_service_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(gradio_hardening, "DELETE_EVERY_SECONDS", 1)
    monkeypatch.setattr(gradio_hardening, "DELETE_AFTER_SECONDS", 2)
    application, port = FastAPI(), free_port()
    page.mount(application, page.page(refuse, refuse, card), MAX_UPLOAD_BYTES)

    def upload() -> Path:
        files = {"files": ("song.wav", b"RIFF" * 100)}
        answer = requests.post(f"http://127.0.0.1:{port}/ui/gradio_api/upload", files=files, timeout=20)
        return Path(answer.json()[0])

    with running(application, port):
        file = upload()
        assert file.is_relative_to(tmp_path)
        assert file.is_file()
        broken_off = file.parent.parent / "tmpx1y2"
        broken_off.write_bytes(b"RIFF")  # Gradio never deletes what it did not receive as a whole
        deadline = time.monotonic() + 20
        while file.is_file() or broken_off.is_file():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        file = upload()
        assert file.is_file()
    assert not file.is_file()


async def refuse(*_: object) -> Any:
    raise AudioError("Nothing is actual here.")


def any_container(shown: Shown, name: str) -> Path:
    """The song under that name, in the container that its extension says; where it says none, a wav."""
    path = shown.folder / name
    if path.suffix in ("", ".2019"):
        path.write_bytes(shown.song.read_bytes())
        return path
    samples, rate = soundfile.read(shown.song, dtype="float32")
    return write(path, samples, rate)


CONTAINERS = ("song.webm", "song.mp4", "song.mkv", "song.caf", "song", "song.2019")


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_page_accepts_every_file_that_the_service_accepts_whatever_its_name(
    name: str, opened: Page, shown: Shown
) -> None:
    drop(opened, any_container(shown, name))
    expect(opened.locator("#answer h2")).to_be_visible()
    expect(opened.locator("#curve img")).to_be_visible()
    expect(opened.get_by_text("Invalid file type")).to_have_count(0)
    expect(opened.get_by_test_id("toast-body")).to_have_count(0)
    opened.get_by_role("button", name="Clear").click()
    drop(opened, shown.song)  # into an input that was made anew
    expect(opened.locator("#answer h2")).to_contain_text("jazz")


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_file_dropped_from_a_folder_is_accepted_too(name: str, opened: Page, shown: Shown) -> None:
    """By drag events of Chromium, which reads the file and gives it a type, as where a person drops it."""
    file = any_container(shown, name)
    box = opened.get_by_text("Drop Audio Here").bounding_box()
    assert box is not None
    data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    session = opened.context.new_cdp_session(opened)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "data": data, **place})
    expect(opened.locator("#answer h2")).to_be_visible()
    expect(opened.get_by_text("Invalid file type")).to_have_count(0)


def test_the_file_dialogue_hides_no_file(opened: Page) -> None:
    with opened.expect_file_chooser() as chosen:
        opened.get_by_text("Drop Audio Here").click()
    assert not chosen.value.element.get_attribute("accept")


def test_a_file_that_says_it_is_no_audio_is_refused_at_once(opened: Page, shown: Shown) -> None:
    (shown.folder / "letter.txt").write_text("a letter")
    drop(opened, shown.folder / "letter.txt")
    expect(opened.get_by_role("alert")).to_contain_text("letter.txt is text, not audio")
    expect(opened.get_by_text("Invalid file type")).to_have_count(0)


FAINT = """() => {
    const numbers = colour => {
        const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true})
        canvas.fillStyle = colour
        canvas.fillRect(0, 0, 1, 1)
        return [...canvas.getImageData(0, 0, 1, 1).data]
    }
    const luminance = ([red, green, blue]) => [red, green, blue]
        .map(part => part / 255)
        .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0)
    const behind = element => {
        for (; element; element = element.parentElement) {
            const colour = numbers(getComputedStyle(element).backgroundColor)
            if (colour[3] === 255) return colour
        }
        return [255, 255, 255]
    }
    const contrast = (one, other) => {
        const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b)
        return (light + 0.05) / (dark + 0.05)
    }
    const said = element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())
    const drawn = element => element.tagName === 'svg' || element.matches('.bars i')
    const seen = [...document.querySelectorAll('.gradio-container *')]
        .filter(element => element.checkVisibility({visibilityProperty: true, opacityProperty: true}))
        .filter(element => said(element) || drawn(element))
    return seen
        .map(element => {
            const style = getComputedStyle(element)
            const bar = element.matches('.bars i')
            const edge = style.outlineStyle === 'none' ? style.backgroundColor : style.outlineColor
            const ground = behind(bar ? element.parentElement : element)
            const ratio = contrast(numbers(bar ? edge : style.color), ground)
            return [ratio, drawn(element) ? 3 : 4.5, element.parentElement.outerHTML.slice(0, 300)]
        })
        .filter(([ratio, least]) => ratio < least)
}"""
"""What on the page has less contrast than WCAG 2.2 AA wants: 4.5 for words, 3 for drawings."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("file", ["song.wav", "letter.wav"])
def test_text_has_enough_contrast_in_light_and_dark_mode(
    shown: Shown, browser: Browser, scheme: Any, file: str
) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    tab.goto(shown.address)
    expect(tab.locator(".warning")).to_be_visible()
    faint = tab.evaluate(FAINT)
    drop(tab, shown.folder / file)
    expect(tab.locator("#curve img, .problem").first).to_be_visible()
    tab.get_by_role("button", name="The model").click()
    expect(tab.locator("#model dl")).to_be_visible()
    assert faint + tab.evaluate(FAINT) == []
    schemes = tab.locator("#song").evaluate("song => getComputedStyle(song).colorScheme")
    assert ("dark" in schemes) == (scheme == "dark")  # of the browser's own player, which is there at times
    context.close()


def test_what_a_file_is_called_is_text_on_the_page() -> None:
    file = Path("/somewhere/<img src=x onerror=alert(1)>.wav")
    shown = page.problem_html(AudioError(f"{file} is text, not audio."), file)
    assert "<img" not in shown
    assert "/somewhere" not in shown
    assert "&lt;img src=x" in shown
