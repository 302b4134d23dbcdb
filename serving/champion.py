"""Which model answers: the pinned one, or, under `genreflow serve`, whichever is champion.

`genreflow serve` asks the registry and notes in a file what is to be served; the inner service reads the
file, loads a new model beside the old one, checks its reference windows and switches. So the service itself
needs no MLflow, and goes on with what it has when the registry is away.
"""

import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bentoml
from pydantic import BaseModel

from genreflow import runtime
from genreflow.artifacts import Frozen, Hearing
from serving.answers import Lineage, ModelCard
from serving.limits import REQUEST_SECONDS

FILE_VARIABLE = "GENREFLOW_CHAMPION_FILE"
CONNECTED = "connected"
PINNED = "not followed: this service is pinned to its model"
LOOK_SECONDS = 0.5
"""How often the inner service looks at the file."""
POLL_SECONDS = 10.0
"""How often `genreflow serve` asks the registry."""

log = logging.getLogger("genreflow")


class Wanted(Frozen):
    """What `genreflow serve` notes for the service that it started."""

    tag: str
    """BentoML tag of the model that is to answer."""
    reason: str | None
    """Why it is champion."""
    registry: str
    """`connected`, or a sentence on what is wrong with it."""


def write(path: Path, wanted: Wanted) -> None:
    """Note what is wanted, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(wanted.model_dump_json())
    fresh.replace(path)


def follow(path: Path, alias: str, wanted: Wanted, interval: float, stop: threading.Event) -> None:
    """Ask the registry every `interval` seconds until `stop`, and note in `path` what is to be served.

    Args:
        wanted: what is noted at first.
    """
    from genreflow import registry
    from serving.build import import_model

    since: str | None = None
    imported: dict[tuple[str, str | None], str] = {}  # tags: to import a model again reads all of it
    write(path, wanted)
    while not stop.wait(interval):
        try:
            version = registry.version(alias)
            content = (version.version, version.tags.get("digest"))
            if content not in imported:
                imported[content] = str(import_model(version.version).tag)
            tag = imported[content]
            found = Wanted(tag=tag, reason=version.tags.get("decision_reason"), registry=CONNECTED)
            since = None
        except Exception as error:  # whatever is wrong with the registry: the service goes on
            if since is None:
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                log.warning("The registry does not answer: %s", error)
            sentence = f"The registry has not answered since {since}: serving goes on with what there is."
            found = wanted.model_copy(update={"registry": sentence})
        if found != wanted:
            write(path, found)
            wanted = found


class Described(BaseModel):
    """A model as the front needs it: how it hears, what it is; its weights stay with the inner service."""

    tag: str
    hearing: Hearing
    genres: tuple[str, ...]
    temperature: float
    card: ModelCard


@dataclass(frozen=True)
class Loaded:
    """A model that can answer."""

    classifier: runtime.Classifier
    described: Described


def load(stored: bentoml.Model) -> Loaded:
    """Load a model of BentoML's store; its reference windows are answered again on this processor.

    Raises:
        ModelError: it cannot be loaded, or does not give its packaged answers here.
    """
    classifier = runtime.load_checked(Path(stored.path))
    document, labels, facts = classifier.document, stored.info.labels, stored.info.metadata
    lineage = Lineage(
        model=str(stored.tag),
        version=labels["version"],
        run_id=document.run_id,
        digest=labels["digest"],
        corpus_fingerprint=document.corpus_fingerprint,
        protocol=document.protocol,
        synthetic=document.synthetic,
        runtime=classifier.runtime,
        precision=classifier.precision,
    )
    card = ModelCard(
        lineage=lineage,
        accuracy=facts.get("accuracy"),
        accuracy_ci95=facts.get("accuracy_ci95"),
        corpus=document.corpus_fingerprint,
        protocol=document.protocol,
        leaky=document.leaky,
        synthetic=document.synthetic,
        reason=facts.get("reason"),
        registry=PINNED,
        runtime=classifier.runtime,
        precision=classifier.precision,
        notes=list(classifier.notes),
    )
    return Loaded(
        classifier,
        Described(
            tag=str(stored.tag),
            hearing=document.hearing,
            genres=document.genres,
            temperature=document.temperature,
            card=card,
        ),
    )


class Models:
    """The model that answers and, for as long as a request may last, the one before it."""

    def __init__(self, pinned: bentoml.Model) -> None:
        name = os.environ.get(FILE_VARIABLE)
        self._file = Path(name) if name else None
        self._seen: Wanted | None = None
        self._refused: dict[str, str] = {}
        self._retired: list[tuple[float, Loaded]] = []
        wanted = self._wanted()
        self.current = self._first(wanted, pinned)
        if wanted is not None:
            self._take(wanted)
            threading.Thread(target=self._watch, name="champion", daemon=True).start()

    def of(self, tag: str) -> runtime.Classifier | None:
        """The model of that tag, where it is still there."""
        there = [self.current, *(loaded for _, loaded in self._retired)]
        return next((loaded.classifier for loaded in there if loaded.described.tag == tag), None)

    def describe(self) -> Described:
        """The model that answers now, with the state of the registry."""
        described, wanted = self.current.described, self._seen
        if wanted is None:
            return described
        notes = list(described.card.notes)
        if wanted.tag in self._refused:
            notes.append(self._refused[wanted.tag])
        card: dict[str, Any] = {"registry": wanted.registry, "notes": notes}
        if wanted.tag == described.tag:
            card["reason"] = wanted.reason
        return described.model_copy(update={"card": described.card.model_copy(update=card)})

    def _first(self, wanted: Wanted | None, pinned: bentoml.Model) -> Loaded:
        """After a restart the champion of the moment, not the one that the service was started with."""
        if wanted is not None and wanted.tag != str(pinned.tag):
            try:
                return load(bentoml.models.get(wanted.tag))
            except Exception as error:  # whatever is wrong with it: the pinned one is there
                self._refuse(wanted, error)
        return load(pinned)

    def _watch(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            wanted = self._wanted()
            if wanted is not None and wanted != self._seen:
                self._take(wanted)
            now = time.monotonic()
            self._retired = [(until, loaded) for until, loaded in self._retired if until > now]

    def _take(self, wanted: Wanted) -> None:
        if wanted.tag != self.current.described.tag and wanted.tag not in self._refused:
            try:
                fresh = load(bentoml.models.get(wanted.tag))
            except Exception as error:  # whatever it is: the one before goes on, and so does the watch
                self._refuse(wanted, error)
            else:
                # The old one first among the retired: a request that names it finds it at every moment.
                self._retired.append((time.monotonic() + REQUEST_SECONDS, self.current))
                self.current = fresh
                log.info("%s answers from now on.", wanted.tag)
        self._seen = wanted

    def _refuse(self, wanted: Wanted, error: Exception) -> None:
        log.error("%s is champion but is not served: %s", wanted.tag, error)
        self._refused[wanted.tag] = (
            f"{wanted.tag} is champion but cannot be served here: the model before it answers, and the log "
            "says why."
        )

    def _wanted(self) -> Wanted | None:
        if self._file is None:
            return None
        try:
            return Wanted.model_validate_json(self._file.read_text())
        except (OSError, ValueError) as error:
            log.error("%s cannot be read: %s", self._file, error)
            return None
