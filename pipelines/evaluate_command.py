"""`genreflow evaluate`: a model's scores on other labelled clips, and under distortions."""

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genreflow.core.errors import GenreflowError, SettingsError
from pipelines.terminal import write_note, write_result

if TYPE_CHECKING:
    from genreflow.comparison.generalisation import GeneralisationDocument, TestSet
    from genreflow.comparison.robustness import RobustnessDocument
    from genreflow.inference.classifier import Classifier


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A registry alias or version, a packaged model's folder, hf:// or s3://."
        ),
    ] = "champion",
    on: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Labelled clips: any source of genreflow run. Clips that the model was trained on are "
            "left out. With --robustness, by default the model's own test split.",
        ),
    ] = None,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness", help="Also score under mp3, noise, telephone band, speed, gain, clipping, cuts."
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.html", help="HTML file for a report.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
) -> None:
    """Score a model on labelled clips that it was not trained on, and under distortions."""
    if on is None and not robustness:
        raise SettingsError("Name labelled clips with --on SOURCE, or add --robustness, or both.")
    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise GenreflowError(f"A report is written as an .html file, not {output.name}.")
    from pipelines import checks

    checks.state_folder()
    import genreflow
    from genreflow.comparison.robustness import robustness as measure

    classifier = genreflow.load(model)
    general: GeneralisationDocument | None = None
    robust: RobustnessDocument | None = None
    with ExitStack() as stack:
        if on is not None:
            test = _test_set(classifier, on, stack)
            corpus, rows = test.corpus, test.rows
            from genreflow.comparison.generalisation import generalisation

            write_note(f"Predicting {len(rows)} clips of {on}")
            general = generalisation(classifier, test)
        else:
            from genreflow.comparison.training_data import held_out_clips
            from genreflow.core import home

            corpus, rows = held_out_clips(classifier.document, home.pipeline_root())
        if robustness:
            write_note(f"Predicting clips of {corpus.document.source} under distortions")
            robust = measure(classifier, corpus, rows, leaky=on is None and corpus.split.leaky)
    if output is not None:
        _write_page(model, general, robust, output)
        write_note(f"Wrote {output}")
    if as_json:
        found: dict[str, Any] = {"model": model}
        found |= {"generalisation": general.model_dump(mode="json")} if general else {}
        found |= {"robustness": robust.model_dump(mode="json")} if robust else {}
        write_result(json.dumps(found, indent=2))
        return
    write_result(_as_text(general, robust))


def _test_set(classifier: "Classifier", source: str, stack: ExitStack) -> "TestSet":
    """The clips of a source that the model was not trained on, decoded until `stack` is closed."""
    from genreflow.comparison.generalisation import ingest_source, unseen
    from genreflow.comparison.training_data import training_corpus
    from genreflow.core import home
    from genreflow.corpus.store import Corpus

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evaluate-", dir=home.home())))
    write_note(f"Decoding the clips of {source}")
    _, notes = ingest_source(source, classifier.document.genres, folder / "corpus")
    trained_on = training_corpus(classifier.document, home.pipeline_root())
    return unseen(Corpus.open(folder / "corpus"), classifier.document, notes, trained_on)


def _write_page(
    model: str,
    general: "GeneralisationDocument | None",
    robust: "RobustnessDocument | None",
    output: Path,
) -> None:
    from genreflow.comparison.evaluation_page import generalisation_section, robustness_section, write_page

    sections = [generalisation_section(general, model)] if general else []
    sections += [robustness_section(robust, model)] if robust else []
    found = general or robust
    assert found is not None
    try:
        write_page(f"{model} ({found.family}) on {found.source}", sections, output)
    except OSError as error:
        raise GenreflowError(f"{output} cannot be written: {error.strerror or error}.") from error


def _as_text(general: "GeneralisationDocument | None", robust: "RobustnessDocument | None") -> str:
    from rich.table import Table

    from pipelines.display import as_text

    lines: list[str] = []
    if general is not None:
        lines += [general.headline, *general.sentences(), ""]
        table = Table(box=None, pad_edge=False, header_style="")
        for name in ("genre", "clips", "recall", "95 % interval"):
            table.add_column(name, justify="left" if name == "genre" else "right")
        for genre, scores in general.per_genre.items():
            low, high = scores.recall_ci95 or (0.0, 1.0)
            table.add_row(genre, str(scores.support), f"{scores.recall or 0:.1%}", f"{low:.1%} to {high:.1%}")
        lines.append(as_text(table))
    if robust is not None:
        lines += [""] if lines else []
        table = Table(box=None, pad_edge=False, header_style="")
        for name in ("clips", "accuracy", "change", "95 % interval of the change", "confidence"):
            table.add_column(name, justify="left" if name == "clips" else "right")
        for row in (robust.clean, *robust.conditions):
            low, high = row.change_ci95
            change = (
                ("–", "–")
                if row is robust.clean
                else (f"{100 * row.change:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}")
            )
            table.add_row(row.name, f"{row.accuracy:.1%}", *change, f"{row.mean_confidence:.1%}")
        clips = f"{robust.clips} of {robust.of_clips} clips of {robust.source}"
        leaky = " Leaky split, the accuracies are optimistic." if robust.leaky else ""
        lines.append(f"{clips}, distorted; changes in points.{leaky}")
        lines.append(as_text(table))
    return "\n".join(lines)
