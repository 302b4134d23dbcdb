"""From a source to a corpus: decode, check, quarantine, find duplicates, store; flat in memory."""

import hashlib
import logging
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genreflow.audio import decode
from genreflow.core.digests import code_version, text_digest
from genreflow.core.documents import CorpusDocument
from genreflow.core.errors import AudioError, CorpusError, GenreCountError
from genreflow.core.genres import GENRES
from genreflow.core.processors import available_processors
from genreflow.core.progress import in_progress, report, track
from genreflow.corpus import gtzan
from genreflow.corpus.duplicates import cluster_id, clusters, near_clusters, near_pairs, same_what
from genreflow.corpus.fingerprints import Fingerprints, acoustic_fingerprint
from genreflow.corpus.settings import IngestSettings
from genreflow.corpus.sources import SourceItem, check_counts, clip_ids, file_state, open_source
from genreflow.corpus.store import (
    MANIFEST,
    MANIFEST_TYPES,
    NEAR_DUPLICATES,
    QUARANTINE,
    QUARANTINE_COLUMNS,
    ClipWriter,
    quantise,
)
from genreflow.corpus.validation import check

STEP = "ingest"
DECODE_TIMEOUT_SECONDS = 600.0
"""For decoding one file, which takes seconds; longer is treated as hostile."""
CLIPS_AHEAD = 2
"""Clips a worker may be ahead of the writer: what bounds the memory, whatever the number of clips."""

log = logging.getLogger("genreflow")


@dataclass(frozen=True)
class _Accepted:
    """A clip that passed: its row of the manifest and its audio."""

    row: dict[str, Any]
    pcm: NDArray[np.int16]
    gain: float
    bits: NDArray[np.uint32]
    """Its acoustic fingerprint; empty where none is wanted."""
    notes: tuple[str, ...]
    """What was left out, joined or chosen when it was decoded, a sentence each."""


@dataclass(frozen=True)
class _Rejected:
    source: str
    genre: str
    reason: str
    detail: str


def resolve(source: str, genres: tuple[str, ...] = GENRES) -> str:
    """A fingerprint of what the source holds now; it changes when a clip is added, edited or deleted.

    Raises:
        CorpusError: there is no such source, or it has no folders by genre.
    """
    return open_source(source, genres).resolve()


def ingest(
    source: str,
    source_fingerprint: str,
    settings: IngestSettings,
    out: Path,
    workers: int | None = None,
) -> CorpusDocument:
    """Decode every clip of `source` into the corpus `out`. The result does not depend on `workers`.

    Clips that are not usable go to quarantine with their reason, and the work goes on. Nothing lies at `out`
    until everything does.

    Args:
        source: what `open_source` takes.
        source_fingerprint: the output of `resolve`; another state of the source is refused.
        out: a folder that does not exist yet, or is empty.
        workers: threads that decode (decoders and digests release the interpreter); one a processor if None.

    Raises:
        CorpusError: no usable corpus can be made of it.
    """
    opened = open_source(source, settings.genres)
    if opened.resolve() != source_fingerprint:
        raise CorpusError(f"{source} has changed since it was listed. Run again.")
    opened.fetch()
    items = sorted(opened.items(), key=lambda item: item.name)
    ids = clip_ids(items)

    out = Path(out)
    if out.is_dir() and any(out.iterdir()):
        raise CorpusError(f"{out} is not empty: a corpus is written into a new folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-partial-", dir=out.parent))
    try:
        with Fingerprints(partial) as prints:
            taken, refused, notes = _store(
                items, ids, settings, partial, workers or available_processors(), prints
            )
            _check_left(taken, refused, settings, source)
            report(STEP, "looking for near duplicates")
            matches = prints.matches()
        manifest = pd.DataFrame(taken)
        manifest["near_duplicate_cluster"] = near_clusters(manifest, matches)
        known = not opened.synthetic and gtzan.is_gtzan(manifest["clip_id"], manifest["seconds"])
        if known:
            manifest, added = _with_published_facts(manifest)
            notes += added
        document = CorpusDocument(
            fingerprint=fingerprint(manifest, settings.genres),
            source=source,
            source_fingerprint=source_fingerprint,
            synthetic=opened.synthetic,
            genres=settings.genres,
            clips=len(manifest),
            quarantined=len(refused),
            duplicate_clusters=len(clusters(manifest)),
            near_duplicate_clusters=sum(
                same_what(cluster) == "recording" for cluster in clusters(manifest, "near_duplicate_cluster")
            ),
            notes=(*opened.notes(), *notes),
            code_version=code_version(),
        )
        manifest[list(MANIFEST_TYPES)].astype(MANIFEST_TYPES).to_parquet(partial / MANIFEST, index=False)
        near_pairs(manifest, matches).to_parquet(partial / NEAR_DUPLICATES, index=False)
        quarantine = [(each.source, each.reason, each.detail) for each in refused]
        pd.DataFrame(quarantine, columns=list(QUARANTINE_COLUMNS), dtype="str").to_parquet(
            partial / QUARANTINE, index=False
        )
        document.write(partial)
        partial.chmod(0o755)
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for note in document.notes:
        log.warning("%s: %s", STEP, note)
    report(STEP, _summary(document), done=len(items), total=len(items))
    return document


def fingerprint(manifest: pd.DataFrame, genres: tuple[str, ...]) -> str:
    """sha256 over the sorted (clip id, clip sha256, genre, folder) and the label order."""
    columns = (manifest["clip_id"], manifest["sha256"], manifest["genre"], manifest["folder"])
    return text_digest([*sorted(" ".join(row) for row in zip(*columns, strict=True)), " ".join(genres)])


def _store(
    items: list[SourceItem],
    ids: list[str],
    settings: IngestSettings,
    folder: Path,
    workers: int,
    prints: Fingerprints,
) -> tuple[list[dict[str, Any]], list[_Rejected], list[str]]:
    """Decode in parallel, write in order: rows of the manifest, what was refused, and notes.

    `prints` gets the fingerprint of the first clip of every exact cluster.
    """
    fingerprinted: set[str] = set()
    taken: list[dict[str, Any]] = []
    refused: list[_Rejected] = []
    scaled: list[str] = []
    noted: dict[str, list[str]] = {}
    with ClipWriter(folder) as writer:
        results = _decoded(items, ids, settings, workers)
        for result in track(STEP, results, len(items), "clips decoded and checked"):
            if isinstance(result, _Rejected):
                refused.append(result)
                log.warning(
                    "%s: %s to quarantine (%s): %s", STEP, result.source, result.reason, result.detail
                )
                continue
            clip_id = result.row["clip_id"]
            writer.write(clip_id, result.row["sample_rate"], result.pcm)
            taken.append(result.row)
            if result.row["duplicate_cluster"] not in fingerprinted:
                fingerprinted.add(result.row["duplicate_cluster"])
                prints.add(result.bits)
            if result.gain < 1:
                scaled.append(clip_id)
            for note in result.notes:
                noted.setdefault(note, []).append(clip_id)
    notes = []
    if refused:
        reasons = Counter(each.reason for each in refused)
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        notes.append(f"{len(refused)} of {len(items)} files are in quarantine: {listed}.")
    if scaled:
        notes.append(
            f"{len(scaled)} clips exceed full scale and were scaled down to it ({_some(scaled)}): "
            "float files are written so, and decoders of lossy formats overshoot."
        )
    notes += [f"{len(clips)} clips ({_some(clips)}): {note}" for note, clips in sorted(noted.items())]
    return taken, refused, notes


def _with_published_facts(manifest: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """GTZAN's artists and titles by clip id, and a note where the bytes are not those of the original."""
    facts = [gtzan.artists().get(clip_id, (None, None)) for clip_id in manifest["clip_id"]]
    originals = gtzan.md5s()
    strangers = [
        clip_id
        for clip_id, md5 in zip(manifest["clip_id"], manifest["md5"], strict=True)
        if md5 != originals.get(clip_id)
    ]
    notes = []
    if strangers:
        notes.append(
            f"{len(strangers)} clips have not the bytes of GTZAN's originals ({_some(strangers)}): "
            "converted copies, or other audio; lists and artists were applied by name."
        )
    artists, titles = zip(*facts, strict=True)
    return manifest.assign(artist=artists, title=titles), notes


def _decoded(
    items: list[SourceItem], ids: list[str], settings: IngestSettings, workers: int
) -> Iterator[_Accepted | _Rejected]:
    """Results in the order of items, at most `CLIPS_AHEAD` a worker waiting."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[_Accepted | _Rejected]] = deque()
        try:
            for item, clip_id in zip(items, ids, strict=True):
                if len(waiting) >= workers * CLIPS_AHEAD:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(_decode_and_check, item, clip_id, settings))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _decode_and_check(item: SourceItem, clip_id: str, settings: IngestSettings) -> _Accepted | _Rejected:
    """Decode and check one file, and see whether it stayed what it was."""
    try:
        path = item.open()
        if path.exists() and not path.is_file():
            detail = f"{item.name} is no file but a pipe, a device or a socket."
            return _Rejected(item.name, item.genre, "unreadable", detail)
        # one descriptor: what is decoded is what is digested, whatever its name is given to meanwhile
        with path.open("rb", buffering=0) as file, in_progress(item.name):
            before = item.state or file_state(path)
            result = _read(file, item, clip_id, settings)
    except OSError as error:
        detail = f"{item.name} cannot be read: {error.strerror or error}."
        return _Rejected(item.name, item.genre, "unreadable", detail)
    if file_state(path) != before:
        detail = f"{item.name} was changed since it was listed; the next run takes what it is then."
        return _Rejected(item.name, item.genre, "changed", detail)
    return result


def _read(file: FileIO, item: SourceItem, clip_id: str, settings: IngestSettings) -> _Accepted | _Rejected:
    try:
        audio = decode(file, item.name, settings.max_seconds, DECODE_TIMEOUT_SECONDS)
        rms, peak = check(audio, settings, item.name)
        pcm, gain = quantise(audio.samples)
        bits = (
            acoustic_fingerprint(audio.samples, audio.sample_rate)
            if settings.near_duplicates
            else np.zeros(0, np.uint32)
        )
    except AudioError as error:
        return _Rejected(item.name, item.genre, error.reason, str(error))
    named_like_gtzan = clip_id in gtzan.md5s() and audio.seconds <= gtzan.LONGEST
    row = {
        "clip_id": clip_id,
        "genre": item.genre,
        "sha256": _digest(file, "sha256"),
        "source": item.name,
        "folder": item.folder,
        "seconds": audio.seconds,
        "sample_rate": audio.sample_rate,
        "channels": audio.channels,
        "format": audio.format,
        "artist": audio.artist,
        "title": audio.title,
        "duplicate_cluster": cluster_id(pcm, audio.sample_rate),
        "rms_dbfs": rms,
        "peak_dbfs": peak,
        "md5": _digest(file, "md5") if named_like_gtzan else None,  # not kept
    }
    return _Accepted(row, pcm, gain, bits, audio.notes)


def _digest(file: FileIO, kind: str) -> str:
    """Of an open file's bytes, in hexadecimal."""
    file.seek(0)
    return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _check_left(
    taken: list[dict[str, Any]], refused: list[_Rejected], settings: IngestSettings, source: str
) -> None:
    """Refuse a corpus in which quarantine left a genre without clips, or with one."""
    counts = Counter(row["genre"] for row in taken)
    try:
        check_counts({genre: counts[genre] for genre in settings.genres}, source, "usable clip")
    except GenreCountError as error:
        short = [each for each in refused if counts[each.genre] < 2]
        if not short:
            raise
        raise GenreCountError(
            f"{error} In quarantine from there: {len(short)} files, such as {short[0].source} "
            f"({short[0].reason}): {short[0].detail}",
            error.short,
        ) from error


def _summary(document: CorpusDocument) -> str:
    return f"{document.clips} clips, {document.quarantined} in quarantine"


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
