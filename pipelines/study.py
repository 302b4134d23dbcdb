"""The commands on descriptors: `genreflow study` and `genreflow data describe`."""

import math
from pathlib import Path
from typing import Annotated

import typer

from genreflow.core.errors import GenreflowError
from pipelines.terminal import write_note, write_result

Lengths = Annotated[str, typer.Option(help="Seconds of a row, as 3,30; a table has whole clips.")]
Genres = Annotated[str | None, typer.Option(help="The genres, as blues,jazz; by default GTZAN's.")]


def study(
    source: Annotated[
        str,
        typer.Option(
            help="A source of audio as run takes it, or a table of descriptors without audio, such as the "
            "published features_30_sec.csv."
        ),
    ],
    classifiers: Annotated[
        str, typer.Option(help="svm, logistic_regression, random_forest, decision_tree, xgboost, knn or all.")
    ] = "all",
    lengths: Lengths = "3,30",
    searches: Annotated[str, typer.Option(help="none, grid, bayesian.")] = "grid,bayesian",
    protocols: Annotated[
        str, typer.Option(help="chunk-random, random-ten-fold, random, artist, fault-filtered or all.")
    ] = "all",
    genres: Genres = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of a search's cross-validation.")] = 3,
    trials: Annotated[int, typer.Option(min=1, help="Trials of a Bayesian search.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Of folds and searches.")] = 42,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON file for the figures.")] = None,
) -> None:
    """Measure how much accuracy on descriptors is leakage: the same classifiers under several protocols.

    Interrupted, the same command goes on from what was measured. Nothing is trained for serving.
    """
    from typing import get_args

    from genreflow.comparison import study as studies
    from genreflow.core import home
    from genreflow.families.shallow import estimators
    from genreflow.families.shallow.search import Search

    if output is not None and not output.resolve().parent.is_dir():
        raise GenreflowError(f"There is no folder {output.resolve().parent} to write the figures into.")
    chosen = {
        "classifier": _chosen("classifier", classifiers, estimators.NAMES),
        "search": _chosen("search", searches, get_args(Search)),
        "protocol": _chosen("protocol", protocols, studies.PROTOCOLS),
    }
    tables = studies.open_tables(source, _genres(genres), _seconds(lengths), home.home() / "studies")

    def show(result: studies.Result) -> None:
        low, high = result.interval
        write_note(
            f"{result.classifier}, rows of {result.length}, {result.search}, {result.protocol}: "
            f"{result.accuracy:.1%} of {result.clips} clips (95 % {low:.1%} to {high:.1%}), "
            f"{result.seconds:.0f} s"
        )

    results, notes = studies.study(
        tables,
        chosen["classifier"],
        chosen["search"],  # type: ignore[arg-type]
        chosen["protocol"],
        folds=folds,
        trials=trials,
        seed=seed,
        on_result=show,
    )
    for missing in notes:
        write_note(f"Not measured: {missing}")
    if output is not None:
        studies.write_json(results, notes, output)
    write_result(studies.markdown(results))


def describe(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="As for study: audio, or a table of descriptors.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")],
    lengths: Lengths = "30,3",
    genres: Genres = None,
) -> None:
    """Describe a corpus by its 57 descriptors: distributions, correlation, principal components."""
    if output.suffix.lower() not in (".html", ".htm"):
        raise GenreflowError(f"A corpus report is an .html file, not {output.name}.")
    from genreflow.comparison import corpus_report
    from genreflow.comparison import study as studies
    from genreflow.core import home

    tables = studies.open_tables(source, _genres(genres), _seconds(lengths), home.home() / "studies")
    corpus_report.write_corpus_report(tables, source, output)
    write_result(f"Wrote {output}")


def _seconds(lengths: str) -> list[float]:
    try:
        seconds = [float(one) for one in lengths.split(",")]
    except ValueError:
        seconds = [0.0]
    if not all(0 < one < math.inf for one in seconds):  # NaN is not
        raise GenreflowError(f"--lengths is numbers of seconds above 0, as 3,30, not {lengths!r}.")
    return seconds


def _genres(genres: str | None) -> tuple[str, ...]:
    from genreflow.core.genres import GENRES

    return GENRES if genres is None else tuple(one.strip() for one in genres.split(","))


def _chosen(what: str, text: str, known: tuple[str, ...]) -> list[str]:
    names = list(known) if text == "all" else [one.strip() for one in text.split(",")]
    for name in names:
        if name not in known:
            raise GenreflowError(f"There is no {what} {name!r}; there are {', '.join(known)}.")
    return names
