"""The command `compare`: several families on one corpus and split, and a leaderboard."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.comparison_options import (
    AlsoTest,
    Families,
    Folds,
    Robustness,
    Runner,
    SkipUnavailable,
    check_runner,
    check_summary,
)
from pipelines.options import Assignments, Backbone, CheckpointUri, Profile, Protocol, Source
from pipelines.terminal import interruptible, write_error, write_result, write_summary


def compare(
    families: Families = None,
    folds: Folds = 0,
    profile: Profile = None,
    source: Source = None,
    backbone: Backbone = None,
    protocol: Protocol = None,
    checkpoint_uri: CheckpointUri = None,
    assignments: Assignments = None,
    also_test: AlsoTest = None,
    robustness: Robustness = False,
    skip_unavailable: SkipUnavailable = False,
    summary: Annotated[
        Path | None, typer.Option(help="JSON file for the leaderboard and the candidate's figures.")
    ] = None,
    runner: Runner = "subprocess",
) -> None:
    """Train several model families on one corpus and split, and rank them."""
    from pipelines import checks
    from pipelines.comparison_settings import comparison_settings

    check_runner(runner)
    chosen = comparison_settings(
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
    check_summary(summary)
    # families that nobody named are compared where they can be trained
    chosen, left_out = checks.before_comparison(chosen, skip=skip_unavailable or families is None)
    for sentence in left_out:
        write_error(f"left out: {sentence}")
    from pipelines import comparison_display, display, local_comparison

    with interruptible(), display.following() as show:
        finished = local_comparison.run(chosen, show, runner)
    write_summary(summary, finished.summary())
    write_result(comparison_display.finished(finished))
