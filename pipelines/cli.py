"""The command line: every command is a few lines over other packages, imported where they are needed."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import traceback
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from genreflow.core.errors import GenreflowError, one_line
from genreflow.core.version import VERSION
from pipelines import cluster_commands, evaluate_command
from pipelines.compare_command import compare
from pipelines.comparison_options import (
    AlsoTest,
    Families,
    Folds,
    Pipeline,
    Robustness,
    Runner,
    check_runner,
    check_summary,
    chosen_settings,
)
from pipelines.options import (
    Alias,
    AsJson,
    Assignments,
    Backbone,
    CheckpointUri,
    Components,
    Family,
    Model,
    Page,
    Profile,
    Protocol,
    Reason,
    Runtime,
    Source,
)
from pipelines.study import describe, study
from pipelines.terminal import interruptible, write_error, write_note, write_result, write_summary

app = typer.Typer(
    name="genreflow",
    help="From labelled music to a served genre classifier, with its evaluation and lineage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data = typer.Typer(help="Corpora on this machine.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")
weights = typer.Typer(help="Pretrained weights on this machine.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(weights, name="weights")
app.command()(compare)
app.command()(study)
data.command()(describe)


def main() -> None:
    """Run the command line: errors as one sentence on stderr, never a traceback."""
    try:
        app()
    except GenreflowError as error:
        write_error(str(error))
        log_file = getattr(error, "log_file", None)
        if log_file is not None:
            write_note(f"The log of this run: {log_file}")
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        write_error(f"something unexpected went wrong: {type(error).__name__}: {one_line(error)}")
        write_note(f"The traceback: {_write_traceback()}")
        sys.exit(1)


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        write_result(f"genreflow {VERSION}")
        raise typer.Exit


@app.command()
def run(
    profile: Profile = None,
    source: Source = None,
    family: Family = None,
    backbone: Backbone = None,
    protocol: Protocol = None,
    checkpoint_uri: CheckpointUri = None,
    assignments: Assignments = None,
    summary: Annotated[Path | None, typer.Option(help="JSON file for the run's figures.")] = None,
    runner: Runner = "subprocess",
) -> None:
    """Run the training pipeline on this machine."""
    from pipelines import checks, settings

    check_runner(runner)
    chosen = settings.settings(profile, source, family, backbone, protocol, assignments or (), checkpoint_uri)
    check_summary(summary)
    checks.before_run(chosen)
    from pipelines import display, local

    with interruptible(), display.following() as show:
        finished = local.run(chosen, show, runner)
    write_summary(summary, finished.summary())
    write_result(display.finished(finished))


@app.command("compile")
def compile_pipeline(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The YAML file to write.")] = None,
    components: Components = None,
    profile: Profile = None,
    source: Source = None,
    family: Family = None,
    backbone: Backbone = None,
    protocol: Protocol = None,
    checkpoint_uri: CheckpointUri = None,
    assignments: Assignments = None,
    pipeline: Pipeline = "training",
    families: Families = None,
    folds: Folds = 0,
    also_test: AlsoTest = None,
    robustness: Robustness = False,
) -> None:
    """Write a pipeline as YAML for Kubeflow, or its components for pipelines of your own."""
    if components is not None:
        from pipelines.components_command import write_components

        written = write_components(components)
        write_result(f"Wrote {len(written)} components into {components}")
    if output is None:
        if components is None:
            raise typer.BadParameter("name the file to write with --output, or a folder with --components")
        return
    chosen = chosen_settings(
        pipeline,
        profile,
        source,
        family,
        backbone,
        protocol,
        assignments,
        checkpoint_uri,
        families,
        folds,
        also_test,
        robustness,
    )
    if output.suffix not in (".yaml", ".yml"):
        raise GenreflowError(f"A compiled pipeline is a .yaml file, not {output.name}.")
    from pipelines import compiling

    compiling.compile_pipeline(output, chosen)
    write_result(f"Wrote {output}")


for command in cluster_commands.COMMANDS:
    app.command()(command)


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the registered versions: aliases, figures, lineage."""
    from genreflow import registry

    versions = registry.versions()
    if as_json:
        write_result(json.dumps([version.to_dict() for version in versions], indent=2))
        return
    if not versions:
        write_result("There are no versions yet; genreflow run makes the first.")
        return
    from pipelines import display

    write_result(display.versions(versions))


@app.command()
def promote(version: str, reason: Reason = None) -> None:
    """Make a version champion by hand, past the gate."""
    from genreflow import registry

    registry.set_champion(version, reason or "by hand, without a reason given")
    write_result(f"Version {version} is champion.")


@app.command()
def rollback(reason: Reason = None) -> None:
    """Make the champion before this one champion again."""
    from genreflow import registry

    back = registry.rollback(reason or "by hand, without a reason given")
    write_result(f"Version {back.version} is champion again.")


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port of the UI.")] = 5000) -> None:
    """Show runs, versions and reports in MLflow's web page."""
    from genreflow import registry

    address = registry.ui_address()
    if address is not None:
        page = registry.training_page(address)
        write_result(f"The store is a server of its own, by MLFLOW_TRACKING_URI: open {page}")
        return
    command, environment = registry.ui_command(port)
    page = registry.training_page(f"http://127.0.0.1:{port}")
    write_note(f"MLflow on {page} (Ctrl-C ends it)")
    try:
        code = subprocess.run(command, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return
    if code:
        raise GenreflowError(f"The MLflow server ended with status {code}; its output is above.")


@app.command()
def classify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Audio files; - is standard input.")],
    model: Model = "champion",
    as_json: AsJson = False,
) -> None:
    """Predict the genre of audio files."""
    from pipelines import checks

    files, folders = checks.audio_files(files)
    import genreflow

    classifier = genreflow.load(model)
    answers, failed = [], len(folders)
    for sentence in folders:
        write_error(sentence)
    for file in files:
        try:
            with checks.readable(file) as audio:
                answer = classifier.classify(audio)
        except GenreflowError as error:
            failed += 1
            write_error(str(error))
            continue
        answers.append({"file": str(file), **answer.to_dict()})
        if not as_json:
            others = sorted(answer.probabilities.items(), key=lambda item: -item[1])[1:3]
            rest = ", ".join(f"{genre} {share:.0%}" for genre, share in others)
            unsure = f"; unsure: {answer.reason}" if answer.unsure else ""
            write_result(f"{file}: {answer.genre} {answer.confidence:.0%} (then {rest}){unsure}")
    if as_json:
        write_result(json.dumps(answers, indent=2))
    if failed:
        raise typer.Exit(1)


@app.command()
def timeline(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An audio file; - is standard input.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG file to draw the timeline into.")
    ] = None,
    hop: Annotated[float | None, typer.Option(help="Seconds from one window to the next.")] = None,
    model: Model = "champion",
    as_json: AsJson = False,
) -> None:
    """Predict the genres over a song."""
    from pipelines import checks

    checks.audio_files([file])
    if output is not None and output.suffix.lower() != ".png":
        raise GenreflowError(f"A timeline is drawn as a .png file, not {output.name}.")
    if hop is not None and hop <= 0:
        raise GenreflowError(f"--hop is a number of seconds above 0, not {hop:g}.")
    import genreflow

    classifier = genreflow.load(model)
    with checks.readable(file) as audio:
        song = classifier.timeline(audio, hop_seconds=hop)
    if output is not None:
        from genreflow.inference.timeline_plot import DOTS_PER_INCH, draw_timeline

        output.parent.mkdir(parents=True, exist_ok=True)
        draw_timeline(song, None if file == checks.STANDARD_INPUT else file.name).savefig(
            output, dpi=DOTS_PER_INCH
        )
        write_note(f"Wrote {output}")
    if as_json:
        write_result(json.dumps({"file": str(file), **song.to_dict()}, indent=2))
        return
    for segment in song.segments():
        write_result(
            f"{_clock(segment.start)} to {_clock(segment.end)}  {segment.genre} {segment.probability:.0%}"
        )


app.command()(evaluate_command.evaluate)


@app.command()
def publish(
    to: Annotated[str, typer.Option(help="hf://OWNER/NAME or s3://BUCKET/PREFIX.")],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A registry alias or version.")] = "champion",
    public: Annotated[bool, typer.Option("--public", help="Create a new hub repository as public.")] = False,
    licence: Annotated[
        str | None,
        typer.Option("--license", help="Licence identifier for the card: apache-2.0, cc-by-nc-4.0 …"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Publish a registered model with its card to a model hub or a bucket."""
    from genreflow import publishing

    published = publishing.publish(model, to, public, licence)
    for sentence in published.notes:
        write_note(sentence)
    if as_json:
        write_result(json.dumps(asdict(published), indent=2))
        return
    done = f"{len(published.uploaded)} files uploaded, {len(published.removed)} removed"
    if not published.uploaded and not published.removed:
        done = "nothing new to upload"
    write_result(
        f"Published version {published.version} at {published.url} ({published.visibility}): {done}."
    )
    write_result(f"Digest: {published.digest}")


@app.command()
def build(model: Alias = "champion", page: Page = True, runtime: Runtime = "auto") -> None:
    """Build the bento of a registered model."""
    from serving import build as serving_build

    write_result(str(serving_build.build(model, page, runtime).tag))


@app.command()
def serve(
    model: Alias = "champion",
    port: Annotated[int, typer.Option(help="Port of the service.")] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    poll: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two checks for a new champion.")
    ] = 10.0,
    page: Page = True,
    runtime: Runtime = "auto",
) -> None:
    """Build a registered model's bento where needed, and serve it over HTTP; follow its alias."""
    from genreflow.core import home

    home.free_port(host, port)
    from serving import run as serving_run

    serving_run.serve(model, host, port, poll, page, runtime, write_note)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Report what is installed, reachable and usable here."""
    from pipelines import doctor as examination

    findings = examination.examine()
    write_result(
        json.dumps([finding._asdict() for finding in findings], indent=2)
        if as_json
        else examination.as_text(findings)
    )
    if any(finding.status == "bad" for finding in findings):
        raise typer.Exit(1)


@data.command()
def synthesize(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    clips: Annotated[int, typer.Option(help="Clips per genre.")] = 20,
    seconds: Annotated[float, typer.Option(help="Length of a clip.")] = 8.0,
    seed: Annotated[int, typer.Option(help="Random seed of the corpus.")] = 0,
) -> None:
    """Write the built-in procedural corpus as audio into a folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise GenreflowError(f"{folder} exists and is not an empty folder; name a new one.")
    if clips < 1 or seconds < 1 or seed < 0:
        raise GenreflowError("--clips and --seconds are 1 or more, --seed 0 or more.")
    from genreflow.corpus.synthetic import synthesise

    folder.mkdir(parents=True, exist_ok=True)
    synthesise(folder, clips, seconds, seed)
    written = sum(1 for _ in folder.rglob("*.wav"))
    write_result(f"Wrote {written} clips into {folder}; train on them with: {_training_on(folder)}")


@data.command()
def fetch(
    corpus: Annotated[
        str, typer.Argument(metavar="NAME|URL", help="gtzan, gtzan-mini, or an archive's URL.")
    ],
    to: Annotated[
        Path | None, typer.Option(help="A new or empty folder; by default in the state folder.")
    ] = None,
    mirror: Annotated[
        list[str] | None, typer.Option(help="The URL of a folder that has the archive; may be repeated.")
    ] = None,
    md5: Annotated[str | None, typer.Option(help="Expected md5 of the archive at a URL.")] = None,
) -> None:
    """Fetch a corpus, check it, and unpack it into a folder."""
    from genreflow.core import home
    from genreflow.corpus.known import KNOWN, fetch_address, fetch_known
    from pipelines import checks

    if to is None:
        checks.state_folder()
    on_progress = _Counter()
    if corpus in KNOWN:
        if md5 is not None:
            raise GenreflowError(f"The md5 of {corpus} is known; --md5 is for URLs.")
        folder = to or home.corpora_folder() / corpus
        fetch_known(KNOWN[corpus], folder, mirror or (), on_progress)
    elif corpus.startswith(("http://", "https://")):
        if mirror:
            raise GenreflowError(f"--mirror is for {' and '.join(KNOWN)}; name another URL instead.")
        folder = fetch_address(corpus, to, md5, on_progress)
    else:
        raise GenreflowError(
            f"There is no corpus {corpus!r} to fetch; there are {', '.join(KNOWN)} and the URLs of archives. "
            "s3:// and hf:// are fetched by --source themselves."
        )
    write_result(f"{folder} is there; train on it with: {_training_on(folder)}")


@data.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with clips of a published corpus.")],
    index: Annotated[
        str | None, typer.Option(help="gtzan or gtzan-mini; by default the one that has every clip here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a folder with a published corpus: missing, altered, duplicated, unreadable, unknown files."""
    from genreflow.corpus import verify as verifying
    from genreflow.corpus.known import KNOWN

    if index is not None and index not in KNOWN:
        raise GenreflowError(f"There is no index {index!r}; there are {', '.join(KNOWN)}.")
    indexes = {name: corpus.clips() for name, corpus in KNOWN.items()}
    chosen = index or verifying.matching_index(folder, indexes)
    findings = verifying.verify(folder, chosen, indexes[chosen])
    write_result(json.dumps(findings.to_dict(), indent=2) if as_json else "\n".join(findings.lines()))
    if not findings.ok:
        raise typer.Exit(1)


@data.command("list")
def list_corpora() -> None:
    """List the corpora in the state folder."""
    from genreflow.core import home

    folder = home.corpora_folder()
    corpora = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not corpora:
        write_result(f"There are no corpora in {folder} yet; genreflow run makes the synthetic one.")
    for corpus in corpora:
        files = [path for path in corpus.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files) / 1e6
        write_result(f"{corpus}: {len(files)} files, {size:.0f} MB")


@weights.command("fetch")
def fetch_weights(
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder to copy elsewhere; by default the state folder's."),
    ] = None,
) -> None:
    """Fetch musicnn's pretrained weights, for machines without a package index too."""
    from genreflow.backbones.musicnn import weights as musicnn
    from pipelines import checks

    if to is None:
        checks.state_folder()
    write_result(f"musicnn's weights are in {musicnn.fetch(to)}")
    if to is not None:
        write_note(f"Elsewhere, set {musicnn.VARIABLE} to a copy of {to}, as a folder or in a bucket.")


class _Counter:
    """How far a download is, on stderr: one line that counts in a terminal, a line a tenth elsewhere."""

    def __init__(self) -> None:
        self._last_step, self._terminal = -1, sys.stderr.isatty()

    def __call__(self, done: int, total: int | None) -> None:
        step = 1 if self._terminal else 10
        share = 100 * done // total if total else done // 10_000_000
        if share // step == self._last_step:
            return
        self._last_step = share // step
        words = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB ({share} %)" if total else f"{done / 1e6:.0f} MB"
        ends = "\n" if not self._terminal or done == total else "\r"
        sys.stderr.write(f"fetched {words}{ends}")
        sys.stderr.flush()


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def _training_on(folder: Path) -> str:
    return f"genreflow run --source {shlex.quote(str(folder))}"


def _write_traceback() -> Path:
    """Into the state folder, or where that cannot be written, among the machine's temporary files."""
    from genreflow.core import home

    name = f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.traceback.txt"
    text = f"{' '.join(sys.argv)}\n{traceback.format_exc()}"
    path = home.home() / "logs" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError:
        path = Path(tempfile.mkdtemp(prefix="genreflow-")) / name
        path.write_text(text)
    return path


if __name__ == "__main__":
    main()
