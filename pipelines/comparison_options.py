"""Options of the commands that compare families, and what is checked of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genreflow.core.errors import GenreflowError, SettingsError
from genreflow.families import built_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.comparison_settings import ComparisonSettings
    from pipelines.settings import RunSettings

RUNNERS = ("subprocess", "docker")
TRAINING, COMPARISON = "training", "comparison"

Families = Annotated[
    str | None,
    typer.Option(
        help=f"Model families, separated by commas: {', '.join(built_in())}; with a backbone of its own as "
        "linear@musicnn. Without it, all that this machine can train."
    ),
]
Folds = Annotated[
    int,
    typer.Option(
        min=0,
        help="Cross-validate over so many folds of the clips outside the test split, artists and recordings "
        "apart, and choose by it. The registered model is fitted on the protocol's split.",
    ),
]
AlsoTest = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="Other labelled clips that the best two are scored on, those they were trained on left out.",
    ),
]
Robustness = Annotated[
    bool,
    typer.Option(
        "--robustness", help="Score the best two on test clips as mp3, with noise, clipped, shortened …"
    ),
]
SkipUnavailable = Annotated[
    bool,
    typer.Option("--skip-unavailable", help="Leave out named families whose weights cannot be had here."),
]
Pipeline = Annotated[str, typer.Option(help=f"{TRAINING} or {COMPARISON}.")]
Runner = Annotated[str, typer.Option(help="subprocess or docker.")]


def check_runner(runner: str) -> None:
    """Refuse what is no runner."""
    if runner not in RUNNERS:
        raise typer.BadParameter(f"there is no runner {runner!r}; there are {' and '.join(RUNNERS)}")


def check_summary(summary: Path | None) -> None:
    """Refuse a summary that could not be written once all is done.

    Raises:
        GenreflowError: its folder is not there.
    """
    if summary is not None and not summary.resolve().parent.is_dir():
        raise GenreflowError(f"There is no folder {summary.resolve().parent} to write the summary into.")


def chosen_settings(
    pipeline: str,
    profile: str | None,
    source: str | None,
    family: str | None,
    backbone: str | None,
    protocol: str | None,
    assignments: "Sequence[str] | None",
    checkpoint_uri: str | None,
    families: str | None,
    folds: int,
    also_test: str | None,
    robustness: bool,
) -> "RunSettings | ComparisonSettings":
    """The settings of the pipeline that is named.

    Raises:
        SettingsError: there is no such pipeline, or an option is another one's.
    """
    if pipeline == TRAINING:
        if families is not None or folds or also_test is not None or robustness:
            raise SettingsError(
                f"--families, --folds, --also-test and --robustness are of --pipeline {COMPARISON}."
            )
        from pipelines.settings import settings

        return settings(profile, source, family, backbone, protocol, assignments or (), checkpoint_uri)
    if pipeline != COMPARISON:
        raise SettingsError(f"There is no pipeline {pipeline!r}; there are {TRAINING} and {COMPARISON}.")
    if family is not None:
        raise SettingsError("--family is of one model; a comparison names --families.")
    from pipelines.comparison_settings import comparison_settings

    return comparison_settings(
        families,
        folds,
        profile,
        source,
        backbone,
        protocol,
        assignments or (),
        checkpoint_uri,
        also_test,
        robustness,
    )
