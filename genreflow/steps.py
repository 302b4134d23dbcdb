"""The steps of the pipeline: one function each, plain values and folders in and out.

Each can be called from a KFP component, a notebook or a test; none knows of kfp. A step tells progress and
its error as a sentence, through `genreflow.progress`, so that whoever started the pipeline can show both.
"""

import errno
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from genreflow import progress
from genreflow.artifacts import (
    CorpusDocument,
    FeaturesDocument,
    ModelDocument,
    PackagedDocument,
    PackagingSettings,
    file_digest,
    seal,
    text_digest,
)
from genreflow.errors import (
    ChampionChangedError,
    GenreflowError,
    ModelError,
    RegistryAwayError,
    SettingsError,
)
from genreflow.gate import Decision, GatePolicy, ModelFacts

if TYPE_CHECKING:
    import pandas as pd

    from genreflow.evaluation.document import EvaluationDocument
    from genreflow.registry import Registered, Version

log = logging.getLogger("genreflow")
T = TypeVar("T")

NO_ROOM = re.compile(rf"(errno|os error) ({errno.ENOSPC}|{errno.EDQUOT}|{errno.EFBIG})\b", re.IGNORECASE)
"""What Python's, Arrow's and safetensors' errors say of a full disk, a quota and a limit to a file's size."""
LONGEST_REASON = 300
"""Characters of an error's own text that are shown."""

DECISIONS = 5
"""How often the gate decides where another run changes the champion each time."""

WHOLE_FILE_DIGEST_BYTES = 64 << 20
"""Files of a backbone up to this size are digested; of larger ones size and modification time stand in."""


@contextmanager
def told(step: str, out: Path | None = None) -> Iterator[None]:
    """Tell the beginning, the end and a failure of a step, the failure as a sentence, and let it pass on.

    Args:
        step: its name in the pipeline.
        out: the artifact that it makes; sealed at the end.
    """
    began = time.monotonic()
    progress.report(step, "started", event="started")
    try:
        yield
        if out is not None:
            seal(out)
    except KeyboardInterrupt:
        progress.report(step, "interrupted", event="interrupted")
        raise
    except GenreflowError as error:
        progress.report(step, str(error), event="failed", expected=True)
        raise
    except Exception as error:
        if not NO_ROOM.search(str(error)):
            progress.report(step, f"{type(error).__name__}: {error}", event="failed", expected=False)
            raise
        words = " ".join(str(error).split())[:LONGEST_REASON]
        sentence = f"There is no room left to write into ({words}): make room, and run again."
        progress.report(step, sentence, event="failed", expected=True)
        raise GenreflowError(sentence) from error
    except BaseException as error:
        progress.report(step, f"{type(error).__name__}: {error}", event="failed", expected=False)
        raise
    progress.report(step, "finished", event="finished", seconds=round(time.monotonic() - began, 3))


def resolve(source: str, corpus: Mapping[str, Any], model: Mapping[str, Any]) -> tuple[str, str]:
    """Fingerprint what lies behind the source's and the backbone's names: KFP's cache sees only the names.

    Args:
        source: as `genreflow.corpus.sources.open_source` takes it.
        corpus: of `CorpusSettings`.
        model: the family's own settings.

    Returns:
        The source's fingerprint, and the backbone's: a digest of a local folder's files, a hub id with its
        commit, "" for a model trained from scratch.

    Raises:
        CorpusError: there is no such source, or nothing in it that can be trained on.
    """
    from genreflow.corpus import ingest as corpus_ingest
    from genreflow.corpus.settings import CorpusSettings

    with told("resolve"):
        genres = CorpusSettings.model_validate(dict(corpus)).genres
        backbone = model.get("backbone") if model.get("from_scratch") is None else None
        return corpus_ingest.resolve(source, genres), backbone_fingerprint(backbone)


def backbone_fingerprint(backbone: str | None) -> str:
    """What identifies a backbone's content, as far as it can be told without loading it."""
    if not backbone:
        return ""
    folder = Path(backbone)
    if not folder.exists():
        from genreflow.families.encoder.backbone import at_commit, hub_commit

        return at_commit(backbone, hub_commit(backbone))
    parts = []
    for path in sorted(folder.rglob("*") if folder.is_dir() else [folder]):
        if path.is_file():
            stat = path.stat()
            small = stat.st_size <= WHOLE_FILE_DIGEST_BYTES
            content = file_digest(path) if small else f"{stat.st_size} {stat.st_mtime_ns}"
            parts.append(f"{path.relative_to(folder).as_posix()} {content}")
    return text_digest(parts)


def ingest(source: str, source_fingerprint: str, settings: Mapping[str, Any], out: Path) -> CorpusDocument:
    """Decode, check, quarantine, find duplicates, split.

    Args:
        source: as `genreflow.corpus.sources.open_source` takes it.
        source_fingerprint: from `resolve`.
        settings: of `CorpusSettings`.
        out: the corpus artifact's folder.

    Raises:
        CorpusError: no honest corpus can be made of the source.
    """
    from genreflow.corpus import ingest as corpus_ingest
    from genreflow.corpus.settings import CorpusSettings

    with told("ingest", out):
        return corpus_ingest.ingest(
            source, source_fingerprint, CorpusSettings.model_validate(dict(settings)), out
        )


def extract_features(
    corpus: Path,
    family: str,
    settings: Mapping[str, Any],
    out: Path,
    device: str = "auto",
    batch: int = 8,
) -> FeaturesDocument:
    """Compute once what one family trains on: the representation, and the frozen part where there is one.

    Args:
        corpus: the corpus artifact's folder.
        family: a name in `genreflow.families.FAMILIES`.
        settings: the family's own.
        out: the features artifact's folder.
        device: `auto`, `cpu` or `cuda`.
        batch: windows computed at once.
    """
    from genreflow import extraction

    with told("extract_features", out):
        return extraction.extract(corpus, family, dict(settings), out, device=device, batch=batch)


def fine_tune(
    features: Path, out: Path, training: Mapping[str, Any], experiment: str = "genreflow"
) -> ModelDocument:
    """Train, with live curves in an MLflow run that is opened here, or joined where the platform has one.

    Args:
        features: the features artifact's folder.
        out: the model artifact's folder.
        training: of `TrainingSettings`.
        experiment: the MLflow experiment of a run that is opened here.

    Returns:
        The model's document; its `run_id` is the MLflow run, which is closed, as FAILED where training was.
    """
    from genreflow import registry
    from genreflow import training as engine
    from genreflow.families import family

    with told("fine_tune", out):
        document = FeaturesDocument.read(features)
        kind = family(document.family)
        settings = engine.training_settings(
            kind, kind.settings_type.model_validate(document.settings), dict(training)
        )
        parameters = {
            "family": document.family,
            "protocol": document.protocol,
            "fold": document.fold,
            "model": document.settings,
            "training": settings.model_dump(mode="json"),
        }
        tags = {
            "genreflow.family": document.family,
            "genreflow.synthetic": str(document.synthetic).lower(),
            "genreflow.protocol": document.protocol,
            "genreflow.leaky": str(document.leaky).lower(),
            "genreflow.corpus_fingerprint": document.corpus_fingerprint,
            "genreflow.features_fingerprint": document.fingerprint,
        }
        run_id = registry.patiently(
            lambda: registry.open_run(experiment, parameters, tags),
            lambda sentence: progress.report("fine_tune", sentence),
        )
        status: Literal["FINISHED", "FAILED", "KILLED"] = "FAILED"
        try:
            with registry.log_curves(run_id) as curves:
                model = engine.fine_tune(features, out, dict(training), on_log=curves, run_id=run_id)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            registry.close_run(run_id, status)
        if curves.trouble:
            progress.report("fine_tune", curves.trouble)
        return model


def evaluate(corpus: Path, model: Path, out: Path) -> "EvaluationDocument":
    """The whole model on the audio of the test split: metrics with intervals, predictions, plots, report."""
    from genreflow import evaluation

    with told("evaluate", out):
        return evaluation.evaluate(corpus, model, out)


def package(model: Path, corpus: Path, out: Path, settings: Mapping[str, Any]) -> PackagedDocument:
    """The model in the form that is served; parity and latency of every runtime on real windows.

    Args:
        settings: of `PackagingSettings`.
    """
    from genreflow import packaging

    with told("package", out):
        return packaging.package(model, corpus, out, PackagingSettings.model_validate(dict(settings)))


def register(packaged: Path, evaluation: Path, corpus: Path, run_id: str) -> "Registered":
    """One registered version per model content; a second registration of the same content finds the first."""
    from genreflow import registry

    with told("register"):
        return outlasting_mlflow("register", lambda: registry.register(packaged, evaluation, corpus, run_id))


def promote(
    version: str, packaged: Path, evaluation: Path, corpus: Path, policy: Mapping[str, Any]
) -> tuple[Decision, tuple[str, ...], bool]:
    """Decide whether a registered version becomes champion, write the decision down, and move the alias last.

    Args:
        version: the candidate's version in the registry.
        packaged: the candidate's packaged model.
        evaluation: the candidate's evaluation, on the test split of `corpus`.
        corpus: the corpus artifact's folder.
        policy: of `GatePolicy`.

    Returns:
        The decision, the aliases that the version has after it, and whether its bento is to be built: it was
        promoted now, or it is champion and no bento of it is on record (an earlier build failed).
    """
    from genreflow import registry

    with told("promote"):
        chosen = GatePolicy.model_validate(dict(policy))

        def decide() -> tuple[Decision, tuple[str, ...], bool]:
            decision = _decide_until_it_holds(version, packaged, evaluation, corpus, chosen)
            now = registry.version(version)
            unbuilt = registry.CHAMPION in now.aliases and registry.BENTO_TAG not in now.tags
            return decision, now.aliases, decision.promote or unbuilt

        return outlasting_mlflow("promote", decide)


def outlasting_mlflow(step: str, ask: Callable[[], T]) -> T:
    """Ask MLflow several times where it is away, and say at last how to go on without training again."""
    from genreflow import registry

    try:
        return registry.patiently(ask, lambda sentence: progress.report(step, sentence))
    except RegistryAwayError as error:
        raise RegistryAwayError(
            f"{error} The trained model, its evaluation and its package are kept: once MLflow answers, "
            "genreflow run with the same arguments takes them from the cache and goes on from here, without "
            "training again."
        ) from error


def _decide_until_it_holds(
    version: str, packaged: Path, evaluation: Path, corpus: Path, policy: GatePolicy
) -> Decision:
    """Decide anew where the champion changes while the candidate is compared with it."""
    for _ in range(DECISIONS):
        try:
            return _promote(version, packaged, evaluation, corpus, policy)
        except ChampionChangedError as error:
            changed = error
            progress.report("promote", f"{changed} Deciding again.")
    raise ChampionChangedError(
        f"{changed} So it did {DECISIONS} times in a row: genreflow run with the same arguments tries again."
    )


def _promote(version: str, packaged: Path, evaluation: Path, corpus: Path, policy: GatePolicy) -> Decision:
    from genreflow import gate, registry

    candidate = gate.facts(PackagedDocument.read(packaged), f"version {version}")
    earlier = registry.version(version).tags
    if earlier.get("decision") == "rolled back":
        # a person's judgement stands until a person changes it
        why = f"kept: {earlier['decision_reason']}. To take it all the same: genreflow promote {version}"
        return Decision(promote=False, verdict="kept", reason=why, numbers={})
    champion = registry.champion()
    if champion is None:
        decision = gate.decide(_clips(evaluation), None, candidate, None, policy)
    else:
        decision = _decide_against(champion, candidate, evaluation, corpus, policy)
    registry.conclude(version, decision, champion.version if champion else None)
    return decision


def _decide_against(
    champion: "Version", candidate: ModelFacts, evaluation: Path, corpus: Path, policy: GatePolicy
) -> Decision:
    from genreflow import gate, registry

    clips, name = _clips(evaluation), f"version {champion.version}"
    digest, synthetic = champion.digest or "", champion.tags.get("synthetic") == "true"
    if digest == candidate.digest or synthetic != candidate.synthetic:
        # its tags are enough: no files, which cost time and which this code may not be able to read
        facts = ModelFacts(
            name=name,
            digest=digest,
            genres=candidate.genres,
            synthetic=synthetic,
            train_clips={},
            validation_clips={},
            runtimes={},
        )
        return gate.decide(clips, None, candidate, facts, policy)
    try:
        folder = registry.fetch(champion.version)
        facts = gate.facts(PackagedDocument.read(folder), name)
        comparable = set(candidate.genres) == set(facts.genres)
        scored = _score(folder, corpus, clips) if comparable else None
    except (ModelError, SettingsError) as error:
        return gate.not_comparable(
            name, f"it cannot be loaded by this genreflow: {error}", len(clips), policy
        )
    return gate.decide(clips, scored, candidate, facts, policy)


def _clips(evaluation: Path) -> "pd.DataFrame":
    import pandas as pd

    predictions = pd.read_parquet(evaluation / "predictions.parquet")
    return predictions[predictions["level"] == "clip"].reset_index(drop=True)


def _score(champion: Path, corpus: Path, clips: "pd.DataFrame") -> "pd.DataFrame":
    """The champion's clip-level predictions on the clips that the candidate was scored on."""
    from genreflow import runtime
    from genreflow.corpus.store import Corpus
    from genreflow.evaluation import predict

    # As the candidate was evaluated: a difference of precision must not decide between models.
    classifier = runtime.load(champion, runtime="pytorch", precision="f32")
    store = Corpus.open(corpus)
    wanted = set(clips["clip_id"])
    rows = [row for row, clip_id in enumerate(store.manifest["clip_id"]) if clip_id in wanted]
    progress.report("promote", f"scoring the champion on {len(rows)} clips")
    predictions = predict(classifier, store, rows)
    return predictions[predictions["level"] == "clip"].reset_index(drop=True)
