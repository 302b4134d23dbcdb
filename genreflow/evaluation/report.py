"""The report: one self-contained page with what a model can do, where it fails, and what it came from."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from genreflow.core.documents import CorpusDocument, ModelDocument, SplitDocument
from genreflow.core.genres import genre_named
from genreflow.corpus.store import Corpus
from genreflow.evaluation import card, figures
from genreflow.evaluation.document import Confusion, EvaluationDocument
from genreflow.evaluation.exploration import Exploration
from genreflow.evaluation.worst_clips import WorstClip

TEMPLATE = "report.html.j2"
FEW_CLIPS = 100
"""Under so many test clips the report warns: at an accuracy of 0.8 the interval is over 15 points wide."""
ROWS_SHOWN = 200
"""Of quarantine and duplicates; the artifact has them all."""
NAMED_PAIRS = (("hiphop", "reggae"), ("disco", "pop"), ("classical", "jazz"), ("metal", "rock"))
"""Genres that the authors of the five-channel MFCC network (family `mfcc_cnn`) report as confused."""
BARS = 5
CURVE_WIDTH, CURVE_HEIGHT = 640, 250
CURVE_LEFT, CURVE_RIGHT, CURVE_TOP, CURVE_BOTTOM = 66, 18, 12, 54


@dataclass(frozen=True)
class Banner:
    """A warning above the figures."""

    title: str
    text: str


@dataclass(frozen=True)
class PairConfusion:
    """How often a model confuses two genres, in either direction, in test clips."""

    first: str
    second: str
    first_as_second: int
    second_as_first: int
    clips: int
    """Of both genres."""

    @property
    def confused(self) -> int:
        return self.first_as_second + self.second_as_first


@dataclass(frozen=True)
class Line:
    """One genre's probability over a clip, in the coordinates of the curve's SVG."""

    genre: str
    role: str
    """`true`, `predicted` or `other`."""
    points: str
    dots: tuple[tuple[float, float], ...]


def write_report(
    document: EvaluationDocument,
    model: ModelDocument,
    corpus: Corpus,
    explored: Exploration,
    worst: list[WorstClip],
    path: Path,
) -> None:
    """Write the page; everything in it is inline, so that it can be mailed, or shown in a sandboxed frame."""
    environment = page_environment()
    page = environment.get_template(TEMPLATE).render(
        document=document,
        model=model,
        corpus=corpus.document,
        split=corpus.split,
        explored=explored,
        worst=worst,
        title=f"{model.family} on {corpus.document.source}",
        verdict=verdict(document),
        banners=banners(document, model),
        figure_confusion=pictured(figures.confusion(document.confusion)),
        figure_calibration=pictured(figures.calibration(document.calibration)),
        figure_per_genre=pictured(figures.per_genre(document.per_genre)),
        figure_loudness=pictured(figures.loudness(explored)),
        figure_descriptors=pictured(figures.descriptors(explored)) if explored.separation else None,
        figures_typical={genre: pictured(figures.typical(clip)) for genre, clip in explored.typical.items()},
        calibration=card.calibration(model),
        named_pairs=named_pairs(document.confusion),
        lines=lines,
        bars=bars,
        curve_box=(CURVE_WIDTH, CURVE_HEIGHT, CURVE_LEFT, CURVE_RIGHT, CURVE_TOP, CURVE_BOTTOM),
        time_marks=time_marks,
        time_x=time_x,
        rows_shown=ROWS_SHOWN,
        guess_nll=float(np.log(len(document.genres))),
        lineage=lineage(document, model, corpus.document, corpus.split),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)


def page_environment(*folders: Path) -> Environment:
    """Templates of these folders and of this one, whose style sheet and macros are shared."""
    environment = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,  # genre and file names are other people's words
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "share": lambda value: "–" if value is None else f"{value:.2f}",
        "data_uri": data_uri,
    }
    return environment


def verdict(document: EvaluationDocument) -> str:
    """The result in a sentence."""
    if not document.measured:
        return document.headline
    low, high = document.accuracy_ci95
    guess = 1 / len(document.genres)
    return (
        f"Accuracy {percent(document.accuracy)} on {document.clips} test clips "
        f"(95 % interval {percent(low)} to {percent(high)}), under the {protocol_words(document)} protocol, "
        f"with {document.scored_with}. "
        f"Guessing among {len(document.genres)} genres would reach {percent(guess)}."
    )


def protocol_words(document: EvaluationDocument) -> str:
    """The protocol with its fold."""
    return document.protocol if document.fold is None else f"{document.protocol}, fold {document.fold}"


def banners(document: EvaluationDocument, model: ModelDocument) -> list[Banner]:
    """What a reader has to know before believing the figures."""
    found = []
    if document.synthetic:
        found.append(
            Banner(
                "Synthetic music",
                "The clips are made by a program. The figures say nothing about real music.",
            )
        )
    if document.leaky and document.measured:
        reason = document.leak_reason or "Training and test share more than they should."
        found.append(Banner("Leaky split: these figures are optimistic", reason))
    if not document.measured:
        found.append(
            Banner(
                "Not measured",
                "Below are the model's predictions on the clips that it was trained on: they show that it "
                "learned, not how good it is.",
            )
        )
    elif document.seen_clips and not document.leaky:
        found.append(
            Banner(
                f"{document.seen_clips} of {document.clips} test clips were seen in training or selection",
                "The same file or audio lies in the training or validation split this model came from.",
            )
        )
    if document.pretraining is not None:
        found.append(Banner("Pretrained backbone", f"{document.pretrained}: {document.pretraining}."))
    if document.pretrained is None:
        found.append(
            Banner(
                "Trained from scratch", "No pretrained backbone: the model knows only these training clips."
            )
        )
    if document.measured and document.clips < FEW_CLIPS:
        low, high = document.accuracy_ci95
        found.append(
            Banner(
                f"Only {document.clips} test clips",
                f"The interval is {(high - low) * 100:.0f} points wide: small differences mean nothing here.",
            )
        )
    if model.calibration is None and not model.validation_clips:
        found.append(
            Banner(
                "No validation clips",
                "Nothing was selected on held-out clips, and the probabilities were not calibrated.",
            )
        )
    return found


def named_pairs(confusion: Confusion) -> list[PairConfusion]:
    """The confusion between the genres of `NAMED_PAIRS`, for those pairs of which there are test clips."""
    found = []
    for pair in NAMED_PAIRS:
        first, second = (genre_named(genre, confusion.genres) for genre in pair)
        if first is None or second is None:
            continue
        one, other = confusion.genres.index(first), confusion.genres.index(second)
        matrix = confusion.matrix
        clips = sum(matrix[one]) + sum(matrix[other])
        if clips:
            found.append(PairConfusion(first, second, matrix[one][other], matrix[other][one], clips))
    return found


def lineage(
    document: EvaluationDocument, model: ModelDocument, corpus: CorpusDocument, split: SplitDocument
) -> list[tuple[str, object]]:
    """What the figures were made from, as names and values."""
    spec = model.input_spec
    entries: list[tuple[str, object | None]] = [
        ("corpus", corpus.source),
        ("corpus fingerprint", document.corpus_fingerprint),
        ("split fingerprint", document.split_fingerprint),
        ("protocol", f"{protocol_words(document)}, seed {split.seed}"),
        ("trained on corpus", document.model.corpus_fingerprint),
        ("features fingerprint", document.model.features_fingerprint),
        ("clips trained on", len(model.train_clips)),
        ("clips for selection", len(model.validation_clips)),
        ("model family", model.family),
        ("began from", model.pretrained or "no pretrained weights"),
        ("backbone", model.pretraining),
        ("calibration", model.calibration or ("validation clips" if model.validation_clips else "none")),
        ("weights sha256", document.model.weights_digest),
        (
            "input",
            f"{spec.representation}, {spec.sample_rate} Hz, windows of {spec.window_seconds:g} s "
            f"every {spec.hop_seconds:g} s",
        ),
        ("scored with", document.scored_with),
        ("instruction set", document.instruction_set),
        ("packaged model sha256", document.model.packaged_digest),
        ("MLflow run", model.run_id),
        ("code, training", model.code_version),
        ("code, evaluation", document.code_version),
    ]
    return [(name, value) for name, value in entries if value is not None]


def pictured(figure: Figure) -> dict[str, str]:
    """A figure for light and for dark pages, each as a data URI."""
    drawing = figures.svg(figure)
    return {
        "light": data_uri(drawing.encode(), "image/svg+xml"),
        "dark": data_uri(figures.dark(drawing).encode(), "image/svg+xml"),
    }


def data_uri(data: bytes, kind: str) -> Markup:
    """Bytes as a data URI of that media type."""
    return Markup(f"data:{kind};base64,{base64.b64encode(data).decode()}")


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal, a dash where it is undefined."""
    return "–" if share is None else f"{share * 100:.1f}\u00a0%"


def bars(clip: WorstClip) -> list[tuple[str, float, str]]:
    """Genre, probability and role of the most probable genres, the true one always among them."""
    ranking = sorted(clip.probabilities.items(), key=lambda pair: -pair[1])
    shown = ranking[:BARS]
    if clip.genre not in dict(shown):
        shown.append((clip.genre, clip.probabilities[clip.genre]))
    return [(genre, chance, _role(clip, genre)) for genre, chance in shown]


def lines(clip: WorstClip) -> list[Line]:
    """The curves of the true genre, the predicted one, and the strongest other."""
    wanted = [clip.genre] if clip.right else [clip.genre, clip.predicted]
    means = clip.curve.mean(0)
    others = [int(label) for label in np.argsort(-means) if clip.genres[label] not in wanted]
    drawn = [clip.genres[label] for label in others[:1]] + wanted[::-1]
    middles = np.minimum(clip.starts + min(clip.window_seconds, clip.seconds) / 2, clip.seconds)
    found = []
    for genre in drawn:
        chances = clip.curve[:, clip.genres.index(genre)]
        dots = [
            (time_x(clip, float(middle)), _chance_y(float(chance)))
            for middle, chance in zip(middles, chances, strict=True)
        ]
        # Before the first window's middle and after the last one's nothing else is known: flat to the edges.
        path = [(time_x(clip, 0.0), dots[0][1]), *dots, (time_x(clip, clip.seconds), dots[-1][1])]
        found.append(Line(genre, _role(clip, genre), _points(path), tuple(dots)))
    return found


def time_marks(clip: WorstClip) -> list[tuple[float, str]]:
    """x and label of a handful of round times over a clip."""
    steps = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
    step = next((step for step in steps if clip.seconds / step <= 7), 900)
    return [(time_x(clip, at), f"{at:g}") for at in np.arange(0, clip.seconds + step * 1e-3, step).tolist()]


def time_x(clip: WorstClip, seconds: float) -> float:
    """Seconds into the clip as x in its curve's SVG."""
    inner = CURVE_WIDTH - CURVE_LEFT - CURVE_RIGHT
    return round(CURVE_LEFT + inner * seconds / clip.seconds, 1)


def _chance_y(chance: float) -> float:
    return round(CURVE_TOP + (CURVE_HEIGHT - CURVE_TOP - CURVE_BOTTOM) * (1 - chance), 1)


def _points(path: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in path)


def _role(clip: WorstClip, genre: str) -> str:
    if genre == clip.genre:
        return "true"
    return "predicted" if genre == clip.predicted else "other"
