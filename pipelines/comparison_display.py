"""Display of a finished comparison."""

from typing import TYPE_CHECKING

from rich.table import Table

from pipelines.display import as_text, ending, program

if TYPE_CHECKING:
    from genreflow.comparison.candidate import Score
    from pipelines.local_comparison import FinishedComparison


def finished(done: "FinishedComparison") -> str:
    """The report of a comparison, as text: the leaderboard, the gate, paths, next commands."""
    from genreflow.comparison.report import protocol_words

    board = done.leaderboard
    counts = ", ".join(f"{number} {name}" for name, number in board.counts.items() if number)
    lines = ["", leaderboard(done), ""]
    if board.synthetic:
        lines.append("Trained on synthetic music: these figures say nothing about real music.")
    if board.leaky:
        lines.append(f"Leaky split, the figures are optimistic: {board.leak_reason}")
    if board.folds_leak_reason:
        lines.append(f"Leaky folds, their figures are optimistic: {board.folds_leak_reason}")
    lines += [
        f"Corpus {board.source}: {counts}; split {protocol_words(board)}",
        f"Chosen by {board.chosen_by}, never by test clips: {board.headline}",
        f"Gate: {done.decision['reason']}",
    ]
    lines += [sentence for each in board.further for sentence in each.sentences()]
    commands = [(f"{program()} ui", "runs, leaderboard and reports in the browser")]
    if "champion" in done.aliases:
        commands.append((f"{program()} serve", "the champion over HTTP"))
    trained = [f"trained in run {done.run_id}", f"MLflow run of the comparison {board.parent_run_id}"]
    return "\n".join([*lines, *ending(done, trained, commands)])


def leaderboard(done: "FinishedComparison") -> str:
    """The leaderboard as a table for terminals."""
    from genreflow.comparison.report import count, interval, megabytes, seconds, warning

    board = done.leaderboard
    label = warning(board)
    table = Table(
        box=None,
        pad_edge=False,
        header_style="",
        title=f"Leaderboard ({label})" if label else "Leaderboard",
        title_justify="left",
        title_style="",
    )
    table.add_column("family")
    names = ["train", "validation", *(["folds"] if board.folds else []), "test", "95 %", "macro F1", "ECE"]
    for name in (*names, "parameters", "MB", "training", "ms / 30 s", "RTF"):
        table.add_column(name, justify="right")
    table.add_column("from")
    for row in board.rows:
        table.add_row(
            f"* {row.name}" if row.chosen else f"  {row.name}",
            _share(row.train),
            _share(row.validation),
            *([_share(row.out_of_fold)] if board.folds else []),
            _share(row.test),
            interval(row.test),
            f"{row.macro_f1:.2f}",
            f"{row.ece:.2f}",
            count(row.parameters),
            megabytes(row.served_bytes),
            seconds(row.training_seconds),
            f"{row.latency_30s_ms:.0f}",
            f"{row.real_time_factor:.4f}",
            "pretrained" if row.pretrained else "scratch",
        )
    if board.ensemble is not None:
        mean = board.ensemble
        selection = [_share(mean.selection)]
        table.add_row(
            f"  mean of {len(mean.names)}",
            "–",
            *(["–", *selection] if board.folds else selection),
            _share(mean.test),
            interval(mean.test),
            f"{mean.macro_f1:.2f}",
            *["–"] * 6,
            "orientation",
        )
    return as_text(table)


def _share(score: "Score | None") -> str:
    return "–" if score is None else f"{score.accuracy:.1%}"
