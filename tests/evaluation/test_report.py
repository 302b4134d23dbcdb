"""The page: complete in itself, safe from names, readable on a phone, every clip playable."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page

from genreflow.audio import decode
from genreflow.core.documents import ModelDocument
from genreflow.corpus.store import Corpus
from genreflow.evaluation import figures
from genreflow.evaluation.artifact import judge
from genreflow.evaluation.document import Confusion, EvaluationDocument
from genreflow.evaluation.exploration import DuplicateMember, Exploration, NearDuplicates, explore
from genreflow.evaluation.predictions import predict
from genreflow.evaluation.report import PairConfusion, banners, named_pairs, verdict, write_report
from genreflow.evaluation.worst_clips import EXCERPT_SECONDS, WorstClip, collect_worst_clips, mp3
from genreflow.inference.classifier import Classifier
from tests.corpora import tones, write_corpus


@pytest.fixture(scope="session")
def worst(classifier: Classifier, corpus: Corpus) -> list[WorstClip]:
    return collect_worst_clips(classifier, corpus, predict(classifier, corpus, corpus.rows()))


@pytest.fixture(scope="session")
def evaluated(classifier: Classifier, corpus: Corpus) -> EvaluationDocument:
    table = predict(classifier, corpus, corpus.rows())
    return judge(table, classifier.document, corpus.document, corpus.split, "digest", 1.0)


@pytest.fixture(scope="session")
def explored(corpus: Corpus) -> Exploration:
    return explore(corpus)


@pytest.fixture(scope="session")
def page(
    evaluated: EvaluationDocument,
    document: ModelDocument,
    corpus: Corpus,
    explored: Exploration,
    worst: list[WorstClip],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(evaluated, document, corpus, explored, worst, path)
    return path


class _Outline(HTMLParser):
    """Headings, links to elsewhere, and tables without a caption."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.addresses: list[str] = []
        self.tables = self.captions = 0
        self.unlabelled = 0
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.tags.add(tag)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        self.addresses += [found[name] or "" for name in ("src", "href", "srcset", "action") if name in found]
        self.tables += tag == "table"
        self.captions += tag == "caption"
        self.unlabelled += tag == "img" and not found.get("alt")


def test_the_page_requests_nothing_from_outside(page: Path) -> None:
    text = page.read_text()
    outline = _Outline()
    outline.feed(text)
    assert [address[:40] for address in outline.addresses if not address.startswith(("data:", "#"))] == []
    styles = re.sub(r"data:[^\"')]+", "", text)
    assert "url(" not in styles
    assert "@import" not in styles
    assert not outline.tags & {"iframe", "object", "embed", "form"}


def test_names_are_never_rendered_as_markup(page: Path) -> None:
    text = page.read_text()
    outline = _Outline()
    outline.feed(text)
    assert "b" not in outline.tags
    assert "&lt;b&gt;low" in text
    assert "r&amp;b $x$" in text


def test_headings_descend_by_one_and_tables_and_figures_have_words(page: Path) -> None:
    outline = _Outline()
    outline.feed(page.read_text())
    assert outline.levels[0] == 1
    assert all(after <= before + 1 for before, after in zip(outline.levels, outline.levels[1:], strict=False))
    assert outline.levels.count(1) == 1
    assert outline.tables == outline.captions > 5
    assert outline.unlabelled == 0


def test_the_worst_clips_come_wrong_first_and_then_by_loss(worst: list[WorstClip]) -> None:
    assert len(worst) == 10
    order = [(clip.right, -clip.loss) for clip in worst]
    assert order == sorted(order)
    assert worst[0].loss == pytest.approx(-np.log(worst[0].probabilities[worst[0].genre]), rel=1e-5)


def test_a_worst_clip_is_predicted_with_a_finer_hop_and_plays_as_mp3(
    worst: list[WorstClip], corpus: Corpus
) -> None:
    for clip in worst:
        row = corpus.manifest["clip_id"].tolist().index(clip.clip_id)
        assert len(clip.starts) >= 12
        assert clip.curve.shape == (len(clip.starts), 3)
        audio = decode(clip.audio)
        assert audio.seconds == pytest.approx(clip.excerpt_seconds, abs=0.15)
        actual, kept = audio.samples, corpus.samples(row)
        assert np.std(actual) == pytest.approx(np.std(kept), rel=0.1)


def test_of_a_long_clip_half_a_minute_around_its_worst_window_can_be_played(
    document: ModelDocument, tmp_path: Path
) -> None:
    rate, quiet_at = 8_000, 70
    (genre, split, samples, _), *_ = tones(("high",), 1, seconds=90, rate=rate)
    samples[quiet_at * rate : (quiet_at + 1) * rate] *= 0.01
    corpus = Corpus.open(write_corpus(tmp_path / "corpus", [(genre, split, samples, rate)], document.genres))

    def by_level(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        level = inputs.std(-1) * 20
        return np.stack([0 * level, 0 * level, level], 1)

    loud = Classifier(document, by_level, "pytorch", "f32")
    (clip,) = collect_worst_clips(loud, corpus, predict(loud, corpus, [0]))
    assert clip.excerpt_seconds == EXCERPT_SECONDS
    assert clip.excerpt_start < quiet_at < clip.excerpt_start + EXCERPT_SECONDS
    assert len(clip.audio) < 400_000


@pytest.mark.parametrize("rate", [2_000, 8_000, 22_050, 44_100, 96_000, 192_000])
def test_clips_of_any_rate_become_mp3_of_the_same_length(rate: int) -> None:
    samples = (0.3 * np.sin(np.arange(2 * rate) * 2 * np.pi * 300 / rate)).astype(np.float32)
    audio = decode(mp3(samples, rate))
    assert audio.seconds == pytest.approx(2, abs=0.2)
    assert np.std(audio.samples) == pytest.approx(np.std(samples), rel=0.1)


def test_the_verdict_says_how_good_how_sure_on_how_many_clips_and_by_which_protocol(
    evaluated: EvaluationDocument,
) -> None:
    said = verdict(evaluated).replace("\u00a0", " ")
    low, high = evaluated.accuracy_ci95
    assert f"{evaluated.accuracy * 100:.1f} % on {evaluated.clips} test clips" in said
    assert f"95 % interval {low * 100:.1f} % to {high * 100:.1f} %" in said
    assert "grouped" in said
    assert "33.3 %" in said


def test_warnings_about_optimistic_figures_stand_above_them(
    evaluated: EvaluationDocument, document: ModelDocument
) -> None:
    def titles(**changes: object) -> str:
        return " / ".join(b.title for b in banners(evaluated.model_copy(update=changes), document))

    without_warnings = {"clips": 500, "pretrained": "hubert", "seen_clips": 0}
    assert titles(**without_warnings) == ""
    assert "Synthetic music" in titles(synthetic=True)
    assert "Leaky split" in titles(leaky=True, leak_reason="Same artists.")
    assert "Trained from scratch" in titles(pretrained=None)
    assert "Only 12 test clips" in titles(clips=12, seen_clips=0)
    assert "3 of 500 test clips were seen in training or selection" in titles(clips=500, seen_clips=3)
    assert titles(**without_warnings | {"seen_clips": 500}, leaky=True, leak_reason="All.") == "Not measured"


@pytest.mark.parametrize("calibration", [None, "4-fold cross-validation of 60 training clips"])
def test_a_model_calibrated_by_cross_validation_is_not_called_uncalibrated(
    evaluated: EvaluationDocument, document: ModelDocument, calibration: str | None
) -> None:
    fitted = document.model_copy(
        update={"validation_clips": {}, "temperature": 1.0, "calibration": calibration}
    )
    found = [banner.text for banner in banners(evaluated, fitted) if "not calibrated" in banner.text]
    assert bool(found) == (calibration is None)


def test_a_dark_figure_differs_in_page_colours_only() -> None:
    light = figures.svg(figures.confusion(Confusion(genres=("a", "b$"), matrix=((3, 1), (0, 4)))))
    dark = figures.dark(light)
    assert figures.TEXT in light
    assert figures.TEXT not in dark
    assert len(dark) == len(light)


def test_drawing_does_not_change_matplotlibs_global_state(explored: Exploration, tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    figures.write_png(figures.genres_overview(explored), tmp_path / "overview.png")
    assert dict(mpl.rcParams) == before
    assert "matplotlib.pyplot" not in figures.__dict__


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1200, "light")])
def test_a_browser_shows_the_whole_page_and_plays_it(
    browser: Browser, page: Path, width: int, scheme: str
) -> None:
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    view: Page = context.new_page()
    view.on("console", lambda message: complaints.append(message.text))
    view.on("pageerror", lambda error: complaints.append(str(error)))
    view.on(
        "request",
        lambda request: request.url.startswith(("file:", "data:")) or complaints.append(request.url),
    )
    view.goto(page.as_uri())
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    images = view.evaluate("[...document.images].map(image => [image.naturalWidth, image.currentSrc])")
    assert len(images) >= 8
    assert all(size > 0 for size, _ in images)
    drawing = base64.b64decode(images[0][1].split(",")[1]).decode()
    assert (figures.DARK[figures.TEXT] in drawing) == (scheme == "dark")
    view.wait_for_function("[...document.querySelectorAll('audio')].every(audio => audio.readyState > 0)")
    lengths = view.evaluate("[...document.querySelectorAll('audio')].map(audio => audio.duration)")
    assert len(lengths) == 10
    assert all(0 < seconds <= EXCERPT_SECONDS + 0.5 for seconds in lengths)
    view.evaluate("(audio => { audio.muted = true; return audio.play() })(document.querySelector('audio'))")
    view.wait_for_function("document.querySelector('.playhead').style.visibility === 'visible'")
    assert complaints == []
    context.close()


def test_the_page_of_a_perfect_model_says_that_nothing_is_confused(
    evaluated: EvaluationDocument,
    document: ModelDocument,
    corpus: Corpus,
    explored: Exploration,
    worst: list[WorstClip],
    tmp_path: Path,
) -> None:
    perfect = evaluated.model_copy(update={"most_confused": ()})
    write_report(perfect, document, corpus, explored, worst[-1:], tmp_path / "report.html")
    assert "nothing is confused" in (tmp_path / "report.html").read_text()


def test_pairs_that_are_reported_as_confused_are_counted_in_both_directions_where_there_are_clips() -> None:
    genres = ("Hip-Hop", "jazz", "metal", "reggae", "rock")
    matrix = ((5, 0, 0, 2, 1), (0, 4, 0, 0, 0), (0, 0, 0, 0, 0), (1, 0, 0, 3, 0), (0, 0, 0, 0, 4))
    assert named_pairs(Confusion(genres=genres, matrix=matrix)) == [
        PairConfusion("Hip-Hop", "reggae", first_as_second=2, second_as_first=1, clips=12),
        PairConfusion("metal", "rock", first_as_second=0, second_as_first=0, clips=4),
    ]
    nothing = Confusion(genres=("metal", "rock"), matrix=((0, 0), (0, 0)))
    assert named_pairs(nothing) == []


def test_the_page_has_a_line_on_such_pairs_with_the_models_own_numbers_or_none(
    page: Path,
    evaluated: EvaluationDocument,
    document: ModelDocument,
    corpus: Corpus,
    explored: Exploration,
    worst: list[WorstClip],
    tmp_path: Path,
) -> None:
    assert "reported as often confused" not in page.read_text()
    confusion = Confusion(genres=("disco", "pop", "rock"), matrix=((7, 3, 0), (1, 8, 1), (0, 0, 9)))
    known = evaluated.model_copy(update={"confusion": confusion})
    write_report(known, document, corpus, explored, worst[-1:], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert (
        "with the numbers of this model: disco and pop, 4 of 20 clips "
        "(disco predicted as pop: 3; pop as disco: 1).</p>"
    ) in text


def test_near_duplicates_are_on_the_page_with_likeness_and_offset(
    evaluated: EvaluationDocument,
    document: ModelDocument,
    corpus: Corpus,
    explored: Exploration,
    worst: list[WorstClip],
    tmp_path: Path,
) -> None:
    train, test = DuplicateMember("high.1", "high", "train"), DuplicateMember("high.2", "r&b $x$", "test")
    found = replace(explored, near_duplicates=(NearDuplicates(train, test, -0.2, 0.914),))
    write_report(evaluated, document, corpus, found, worst[-1:], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "1 pairs of clips" not in text
    assert "high.1, high.2</td><td>0.91</td><td>-0.20 s</td>" in text
    assert "1 of them straddle splits" in text
    assert "high, r&amp;b $x$" in text
