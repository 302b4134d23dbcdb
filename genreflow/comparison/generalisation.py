"""How a model generalises: its scores on labelled clips of another source that it was not trained on."""

import logging
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from genreflow.core.digests import code_version
from genreflow.core.documents import CorpusDocument, Document, Frozen, ModelDocument
from genreflow.core.errors import CorpusError, GenreCountError
from genreflow.core.progress import track
from genreflow.corpus.duplicates import seen_in_training
from genreflow.corpus.fingerprints import Fingerprints, acoustic_fingerprint
from genreflow.corpus.ingest import ingest, resolve
from genreflow.corpus.settings import IngestSettings
from genreflow.corpus.sources import open_source
from genreflow.corpus.store import Corpus
from genreflow.evaluation import metrics, uncertainty
from genreflow.evaluation.document import GenreScores, Interval
from genreflow.evaluation.predictions import predict, probability_columns
from genreflow.inference.classifier import Classifier

STEP = "evaluate"
LEAST_GENRES = 2

log = logging.getLogger("genreflow")


class LeftOut(Frozen):
    """Clips that were not scored, as the model was trained or selected on them, by how that was found."""

    same_file: int
    """The same bytes, by sha256."""
    same_audio: int
    """Another file with the same samples."""
    same_recording: int | None
    """Another encoding or part of the recording, by acoustic fingerprint; None where not looked for."""

    @property
    def total(self) -> int:
        return self.same_file + self.same_audio + (self.same_recording or 0)


class GeneralisationDocument(Document):
    """How good a model is on clips of another source."""

    file_name: ClassVar[str] = "generalisation.json"
    source: str
    corpus_fingerprint: str
    synthetic: bool
    family: str
    pretrained: str | None
    trained_on: str
    """Fingerprint of the corpus that the model was trained on."""
    genres: tuple[str, ...]
    """The genres that were scored: those of the model of which the source has at least two clips."""
    model_genres: tuple[str, ...]
    """All genres of the model, among which it predicts."""
    clips: int
    """Scored."""
    left_out: LeftOut
    accuracy: float
    accuracy_ci95: Interval
    """Wilson interval; clips with the same recording count once in its width."""
    mean_recall: float
    """Mean recall over the genres scored: what accuracy would be were they equally frequent."""
    per_genre: dict[str, GenreScores]
    """Of the genres scored."""
    mean_confidence: float
    ece: float
    """Expected calibration error."""
    runtime: str
    precision: str
    notes: tuple[str, ...]
    """What else a reader has to know: genres and files that were ignored, what was not looked for."""
    code_version: str

    @property
    def headline(self) -> str:
        """How good, in a sentence."""
        low, high = self.accuracy_ci95
        return (
            f"Accuracy {self.accuracy:.1%} on {self.clips} clips of {self.source} (95 % interval "
            f"{low:.1%} to {high:.1%}), mean recall {self.mean_recall:.1%}, "
            f"mean confidence {self.mean_confidence:.1%}."
        )

    def sentences(self) -> list[str]:
        """What was scored and what was left out, a sentence each."""
        found = [self._left_out_sentence()]
        if missing := [genre for genre in self.model_genres if genre not in self.genres]:
            found.append(
                f"Scored are clips of {', '.join(self.genres)}; the model predicts among all its "
                f"{len(self.model_genres)} genres, also {', '.join(missing)}."
            )
        return [*found, *self.notes]

    def _left_out_sentence(self) -> str:
        counts = [f"{self.left_out.same_file} by sha256", f"{self.left_out.same_audio} with the same audio"]
        if self.left_out.same_recording is not None:
            counts.append(f"{self.left_out.same_recording} with the same recording")
        return (
            f"{self.left_out.total} clips that the model was trained or selected on were left out: "
            f"{', '.join(counts)}."
        )


@dataclass(frozen=True)
class TestSet:
    """Labelled clips of another source that a model was neither trained nor selected on."""

    __test__ = False  # pytest would collect it by its name

    corpus: Corpus
    rows: list[int]
    """Of the corpus, to be scored."""
    left_out: LeftOut
    notes: tuple[str, ...]


def common_genres(source: str, genres: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `genres` of which a source lists two clips or more, in their order; nothing is decoded.

    Raises:
        CorpusError: there is no such source, or it has clips of fewer than two of the genres.
    """
    kept = genres
    while True:
        try:
            open_source(source, kept).resolve()
        except GenreCountError as error:
            kept = _without(source, kept, genres, error)
            continue
        return kept


def ingest_source(
    source: str, genres: tuple[str, ...], out: Path, settings: IngestSettings | None = None
) -> tuple[CorpusDocument, tuple[str, ...]]:
    """Ingest those clips of a source whose genres are among `genres`.

    A genre with fewer than two usable clips is left out.

    Args:
        source: what `open_source` takes.
        genres: a model's, in label order.
        out: the corpus to write.

    Returns:
        The corpus's document, whose genres are those that were found, and sentences about what was left out.

    Raises:
        CorpusError: there is no such source, or it has clips of fewer than two of the genres.
    """
    base, kept = settings or IngestSettings(), common_genres(source, genres)
    while True:
        try:
            chosen = base.model_copy(update={"genres": kept})
            document = ingest(source, resolve(source, kept), chosen, out)
        except GenreCountError as error:  # what was listed is not all usable
            kept = _without(source, kept, genres, error)
            continue
        absent = [genre for genre in genres if genre not in kept]
        notes = [f"{source} has no two usable clips of {', '.join(absent)}."] if absent else []
        return document, (*notes, *document.notes)


def _without(
    source: str, kept: tuple[str, ...], genres: tuple[str, ...], error: GenreCountError
) -> tuple[str, ...]:
    """The genres that are left where a source has too few clips of some."""
    left = tuple(genre for genre in kept if genre not in error.short)
    if len(left) >= LEAST_GENRES:
        return left
    there = f"only those of {left[0]}" if left else "none"
    raise CorpusError(
        f"{source} cannot test this model: clips of at least {LEAST_GENRES} of its genres "
        f"({', '.join(genres)}) are needed, two or more of each, and it has {there}. Name its folders, or "
        "labels, as the model's genres are named."
    ) from error


def unseen(
    corpus: Corpus, model: ModelDocument, notes: Sequence[str] = (), trained_on: Corpus | None = None
) -> TestSet:
    """The clips of a corpus that a model was neither trained nor selected on.

    Left out are files with the sha256 of a training or validation clip, and other files with the same audio;
    with `trained_on` also other encodings and parts of the same recordings, by acoustic fingerprint.

    Args:
        trained_on: the corpus of the model's training and validation clips.

    Raises:
        CorpusError: nothing is left.
    """
    learned = {**model.train_clips, **model.validation_clips}
    manifest = corpus.manifest
    same_file = manifest["sha256"].isin(learned.keys()).to_numpy(bool)
    known = manifest["duplicate_cluster"].isin(learned.values()).to_numpy(bool) | same_file
    same_audio = known & ~same_file
    remarks = list(notes)
    # within the corpus itself, near duplicates of these clips are known already
    seen = seen_in_training(manifest, learned.keys(), learned.values())
    if trained_on is None:
        remarks.append(
            "The training corpus is not on this machine: other encodings and parts of its recordings could "
            "not be looked for."
        )
    else:
        near = _recordings_in(corpus, trained_on, learned.keys())
        clusters = manifest["near_duplicate_cluster"]
        seen = seen | clusters.isin(clusters[near]).to_numpy(bool)
    others = int((seen & ~known).sum())
    left_out = LeftOut(
        same_file=int(same_file.sum()),
        same_audio=int(same_audio.sum()),
        same_recording=others if trained_on is not None or others else None,
    )
    rows = np.flatnonzero(~seen).tolist()
    if not rows:
        raise CorpusError(
            f"All {len(corpus)} clips of {corpus.document.source} were trained or selected on: there is "
            "nothing to test this model with. Name clips that it has not seen."
        )
    return TestSet(corpus, rows, left_out, tuple(remarks))


def _recordings_in(corpus: Corpus, trained_on: Corpus, sha256s: Collection[str]) -> NDArray[np.bool_]:
    """Which clips of `corpus` hold a recording of those clips of `trained_on`."""
    learned = np.flatnonzero(trained_on.manifest["sha256"].isin(sha256s)).tolist()
    clips = [(trained_on, row) for row in learned] + [(corpus, row) for row in range(len(corpus))]
    found = np.zeros(len(corpus), bool)
    with tempfile.TemporaryDirectory() as folder, Fingerprints(Path(folder)) as prints:
        for each, row in track(STEP, clips, len(clips), "clips compared with the training clips"):
            prints.add(acoustic_fingerprint(each.samples(row), each.sample_rate(row)))
        for match in prints.matches():
            if match.first < len(learned) <= match.second:
                found[match.second - len(learned)] = True
    return found


def generalisation(classifier: Classifier, test: TestSet) -> GeneralisationDocument:
    """Score a classifier on the clips of a test set, as it is served.

    Raises:
        GenreflowError: the model predicted something that is not a number.
    """
    model, corpus = classifier.document, test.corpus
    table = predict(classifier, corpus, test.rows, STEP)
    clips = table[table["level"] == "clip"]
    label = {genre: index for index, genre in enumerate(model.genres)}
    truth = clips["genre"].map(label).to_numpy(np.int64)
    answers = clips["predicted"].map(label).to_numpy(np.int64)
    probabilities = clips[probability_columns(model.genres)].to_numpy(float)
    scores = metrics.per_genre(truth, probabilities, model.genres)
    scored = {genre: each for genre, each in scores.items() if each.support}
    calibration = metrics.calibration(truth, probabilities)
    return GeneralisationDocument(
        source=corpus.document.source,
        corpus_fingerprint=corpus.document.fingerprint,
        synthetic=corpus.document.synthetic,
        family=model.family,
        pretrained=model.pretrained,
        trained_on=model.corpus_fingerprint,
        genres=tuple(scored),
        model_genres=model.genres,
        clips=len(clips),
        left_out=test.left_out,
        accuracy=float(np.mean(truth == answers)),
        accuracy_ci95=uncertainty.accuracy_interval(
            truth == answers, clips["near_duplicate_cluster"].tolist()
        ),
        mean_recall=float(np.mean([each.recall for each in scored.values() if each.recall is not None])),
        per_genre=scored,
        mean_confidence=calibration.mean_confidence,
        ece=calibration.ece,
        runtime=classifier.runtime,
        precision=classifier.precision,
        notes=test.notes,
        code_version=code_version(),
    )
