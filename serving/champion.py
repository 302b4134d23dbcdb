"""Which model is served: the pinned one, or, under `genreflow serve`, whichever is champion.

`genreflow serve` reads the registry and writes to a file what is to be served; the inner service reads the
file, loads a new model beside the old one, checks its reference windows and switches. So the service itself
needs no MLflow, and continues with its current model when the registry is unavailable.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import bentoml
from pydantic import BaseModel

from genreflow.core.documents import Frozen, InputSpec, PackagedDocument, PublishedDocument
from genreflow.core.errors import ModelError, RegistryUnavailableError
from genreflow.inference.backends import AUTO
from genreflow.inference.classifier import Classifier
from genreflow.inference.loading import load_checked_classifier
from serving.limits import REQUEST_SECONDS
from serving.recipe import DIGEST_CHARACTERS, NAME, RUNTIME_LABEL
from serving.schemas import Lineage, ModelCard

FILE_VARIABLE = "GENREFLOW_CHAMPION_FILE"
CONNECTED = "connected"
PINNED = "not followed: this service is pinned to its model"
UNKNOWN = "unknown"
"""The version of a packaged model in a folder without the record of its publishing."""
POLL_SECONDS = 0.5
"""How often the inner service reads the file."""
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0
"""Seconds until what failed is tried again: doubled each time, up to the longest."""

Content = tuple[str, str | None]
"""A version's number and digest."""

log = logging.getLogger("genreflow")


class RequestedModel(Frozen):
    """What `genreflow serve` writes for the service that it started."""

    tag: str
    """BentoML tag of the model to be served."""
    reason: str | None
    """Why it is champion."""
    registry: str
    """`connected`, or a sentence on what is wrong with it."""


def write(path: Path, wanted: RequestedModel) -> None:
    """Write atomically which model is to be served."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(wanted.model_dump_json())
    fresh.replace(path)


@dataclass(frozen=True)
class Failure:
    """What could not be loaded, and when it is retried: with exponential backoff."""

    of: object
    sentence: str
    pause: float
    """Seconds."""
    again: float
    """`time.monotonic()`; infinite where it is not tried again."""

    @classmethod
    def after(cls, before: "Failure | None", of: object, sentence: str, again: bool = True) -> "Failure":
        """Of one more attempt; where the one before was of something else, the pauses begin anew."""
        pause = min(2 * before.pause, LONGEST_PAUSE) if before and before.of == of else FIRST_PAUSE
        return cls(of, sentence, pause, time.monotonic() + pause if again else math.inf)

    def is_over(self) -> bool:
        """Whether the pause is over."""
        return time.monotonic() >= self.again


def is_transient(error: Exception) -> bool:
    """Whether a retry may succeed: an invalid model stays invalid; a disk or memory may recover."""
    return not isinstance(error, ModelError) or isinstance(error.__cause__, OSError | RuntimeError)


def follow(
    path: Path, alias: str, runtime: str, wanted: RequestedModel, interval: float, stop: threading.Event
) -> None:
    """Read the registry every `interval` seconds until `stop`, and write to `path` what is to be served.

    Args:
        runtime: what the models are imported for, see `loading.choose_runtime`.
        wanted: what is noted at first.
    """
    follower = Follower(alias, runtime)
    write(path, wanted)
    while not stop.wait(interval):
        found = follower.look(wanted)
        if found == wanted:
            continue
        try:
            write(path, found)
        except OSError as error:
            log.warning("What is to be served cannot be noted: %s", error)
        else:
            wanted = found


class Follower:
    """Reads the alias from the registry and imports its model."""

    def __init__(self, alias: str, runtime: str) -> None:
        self._alias, self._runtime = alias, runtime
        self._imported: dict[Content, str] = {}
        """Tags: to import a model again reads all of it."""
        self._failure: Failure | None = None
        self._wrong, self._since, self._logged = "", "", ""

    def look(self, before: RequestedModel) -> RequestedModel:
        """What is to be served now; as before, with a sentence, where registry or model cannot be reached."""
        from genreflow import registry

        try:
            version = registry.version(self._alias)
        except Exception as error:  # whatever it is: the service goes on
            wrong = f"The registry has not resolved the alias {self._alias}"
            return before.model_copy(update={"registry": self._sentence(wrong, error)})
        content = (version.version, version.digest)
        if content not in self._imported:
            self._bring(content)
        if content not in self._imported and self._failure is not None:
            return before.model_copy(update={"registry": self._failure.sentence})
        self._wrong = self._logged = ""
        reason = version.tags.get("decision_reason")
        return RequestedModel(tag=self._imported[content], reason=reason, registry=CONNECTED)

    def _bring(self, content: Content) -> None:
        """Import a version, unless that failed a moment ago: it is not fetched at every poll."""
        from serving.build import import_model

        if self._failure is not None and self._failure.of == content and not self._failure.is_over():
            return
        try:
            self._imported[content] = str(import_model(content[0], self._runtime).tag)
        except Exception as error:  # the same
            sentence = self._sentence(
                f"Version {content[0]} is {self._alias} but could not be fetched", error
            )
            self._failure = Failure.after(self._failure, content, sentence)

    def _sentence(self, wrong: str, error: Exception) -> str:
        """A public sentence, without the error's hosts and folders, which are logged once."""
        if isinstance(error, RegistryUnavailableError):
            wrong = "The registry has not responded"
        if wrong != self._wrong:
            self._wrong = wrong
            self._since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        if str(error) != self._logged:
            self._logged = str(error)
            log.warning("%s: %s", wrong, error)
        return f"{wrong} since {self._since}: the current model stays in service; the log has the cause."


class Described(BaseModel):
    """A model as the front service needs it, without weights: input specification, genres, card."""

    tag: str
    input_spec: InputSpec
    genres: tuple[str, ...]
    temperature: float
    card: ModelCard


@dataclass(frozen=True)
class Loaded:
    """A loaded model."""

    classifier: Classifier
    described: Described


@dataclass(frozen=True)
class StoredModel:
    """A packaged model, and what is known of it beside its files."""

    tag: str
    folder: Path
    labels: Mapping[str, str]
    """`version`, `digest` and, where it was imported for one, `runtime`."""
    facts: Mapping[str, Any]
    """`accuracy`, `accuracy_ci95` and `reason`, where known."""

    @classmethod
    def of(cls, stored: bentoml.Model) -> "StoredModel":
        """A model of BentoML's store."""
        return cls(str(stored.tag), Path(stored.path), stored.info.labels, stored.info.metadata)

    @classmethod
    def in_folder(cls, folder: Path) -> "StoredModel":
        """A packaged model in a folder: one that `serving.fetch` brought, or any other.

        Raises:
            GenreflowError: its documents cannot be read.
        """
        digest, version, facts = PackagedDocument.read(folder).digest, UNKNOWN, {}
        if (folder / PublishedDocument.file_name).is_file():
            record = PublishedDocument.read(folder)
            version = record.version
            facts = {"accuracy": record.accuracy, "accuracy_ci95": record.accuracy_ci95}
        tag = f"{NAME}:v{version}-{digest[:DIGEST_CHARACTERS]}"
        return cls(tag, folder, {"version": version, "digest": digest}, facts)


def load(stored: StoredModel, wanted: str = AUTO) -> Loaded:
    """Load a packaged model; its reference windows are predicted again on this processor.

    Args:
        wanted: the runtime; `auto` is the one that the model was imported for.

    Raises:
        ModelError: it cannot be loaded, or does not give its packaged answers here.
    """
    folder = stored.folder
    runtime = stored.labels.get(RUNTIME_LABEL, AUTO) if wanted == AUTO else wanted
    if runtime == PackagedDocument.read(folder).served.runtime:
        runtime = AUTO  # as declared, with the declared fallback
    classifier = load_checked_classifier(folder, runtime)
    document, labels, facts = classifier.document, stored.labels, stored.facts
    lineage = Lineage(
        model=stored.tag,
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
            tag=stored.tag,
            input_spec=document.input_spec,
            genres=document.genres,
            temperature=document.temperature,
            card=card,
        ),
    )


class Models:
    """The model in service and, for as long as a request may last, those before it."""

    def __init__(self, pinned: StoredModel, wanted: str) -> None:
        name = os.environ.get(FILE_VARIABLE)
        self._file = Path(name) if name else None
        self._failure: Failure | None = None
        self._loaded: dict[str, Loaded] = {}
        """By tag; one that is still there is not loaded a second time."""
        self._until: dict[str, float] = {}
        """Tags of those no longer in service, and when they are unloaded."""
        self._seen = self._requested()
        self.current = self._first(pinned, wanted)
        self._loaded[self.current.described.tag] = self.current
        if self._seen is not None:
            threading.Thread(target=self._watch, name="champion", daemon=True).start()

    def of(self, tag: str) -> Classifier | None:
        """The model of that tag, where it is still there."""
        loaded = self._loaded.get(tag)
        return None if loaded is None else loaded.classifier

    def describe(self) -> Described:
        """The model in service, with the state of the registry."""
        described, wanted, failure = self.current.described, self._seen, self._failure
        if wanted is None:
            return described
        notes = list(described.card.notes)
        if failure is not None and failure.of == wanted.tag:
            notes.append(failure.sentence)
        card: dict[str, Any] = {"registry": wanted.registry, "notes": notes}
        if wanted.tag == described.tag:
            card["reason"] = wanted.reason
        return described.model_copy(update={"card": described.card.model_copy(update=card)})

    def _first(self, pinned: StoredModel, wanted: str) -> Loaded:
        """After a restart the present champion, not the one that the service was started with."""
        if self._seen is not None and self._seen.tag != pinned.tag:
            loaded = self._load(self._seen.tag)
            if loaded is not None:
                return loaded
        return load(pinned, wanted)

    def _watch(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            wanted = self._requested()
            if wanted is not None:
                self._apply(wanted)
            now = time.monotonic()
            for tag in [tag for tag, until in self._until.items() if until <= now]:
                del self._until[tag], self._loaded[tag]

    def _apply(self, wanted: RequestedModel) -> None:
        tag = wanted.tag
        if self._failure is not None and self._failure.of != tag:
            self._failure = None  # if it is wanted again, it is looked at again
        if tag != self.current.described.tag and (self._failure is None or self._failure.is_over()):
            fresh = self._loaded.get(tag) or self._load(tag)
            if fresh is not None:
                self._switch(fresh)
        self._seen = wanted

    def _switch(self, fresh: Loaded) -> None:
        before, tag = self.current.described.tag, fresh.described.tag
        self._loaded[tag] = fresh
        self._until.pop(tag, None)
        self.current = fresh
        self._until[before] = time.monotonic() + REQUEST_SECONDS
        log.info("%s is now served.", tag)

    def _load(self, tag: str) -> Loaded | None:
        try:
            loaded = load(StoredModel.of(bentoml.models.get(tag)))
        except Exception as error:  # whatever it is: the one before goes on, and so does the watch
            again = is_transient(error)
            sentence = (
                f"{tag} is champion but cannot be served here: the previous model stays in service, "
                f"{'loading is retried, ' if again else ''}and the log has the cause."
            )
            self._failure = Failure.after(self._failure, tag, sentence, again)
            log.error("%s is champion but is not served: %s: %s", tag, type(error).__name__, error)
            return None
        self._failure = None
        return loaded

    def _requested(self) -> RequestedModel | None:
        if self._file is None:
            return None
        try:
            return RequestedModel.model_validate_json(self._file.read_text())
        except (OSError, ValueError) as error:
            log.error("%s cannot be read: %s", self._file, error)
            return None
