"""Corpora known by name: where their archives lie, and the md5 of each and of every clip in it."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genreflow.core import home
from genreflow.core.digests import text_digest
from genreflow.core.errors import CorpusError, FetchError
from genreflow.core.genres import GENRES
from genreflow.core.progress import MB, Reporter
from genreflow.corpus import gtzan
from genreflow.corpus.download import download
from genreflow.corpus.sources.archive import UnpackedSource, stem
from genreflow.corpus.sources.unpack import archive_kind, unpack
from genreflow.corpus.verify import verify

MIRRORS_VARIABLE = "GENREFLOW_MIRRORS"
"""Addresses of folders that hold the archives under their names, in a row; tried before all others."""
HUB = "https://huggingface.co"

OnProgress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class KnownCorpus:
    """A published corpus."""

    name: str
    archive: str
    """The archive's file name at a mirror."""
    md5: str
    """Of the archive, in hexadecimal."""
    hub_path: str | None
    """`<repository>/resolve/<revision>/<file>` on a hub of data sets."""
    addresses: tuple[str, ...]
    clips: Callable[[], Mapping[str, str]]
    """md5 of every file by clip id."""

    def sources(self, mirrors: Sequence[str] = ()) -> list[str]:
        """Every address to try, in order: the mirrors, the hub of `HF_ENDPOINT`, where it was published."""
        bases = [*mirrors, *os.environ.get(MIRRORS_VARIABLE, "").split()]
        found = [f"{base.rstrip('/')}/{self.archive}" for base in bases]
        if self.hub_path:
            found.append(f"{_hub()}/datasets/{self.hub_path}")
        return [*found, *self.addresses]


def _mini() -> dict[str, str]:
    numbers = {genre: range(10) for genre in GENRES} | {"jazz": (0, 1, 2, 4, 5, 6, 7, 8, 11, 12)}
    return {
        clip_id: gtzan.md5s()[clip_id]
        for genre in GENRES
        for clip_id in (f"{genre}.{number:05d}" for number in numbers[genre])
    }


KNOWN = {
    corpus.name: corpus
    for corpus in (
        KnownCorpus(
            name="gtzan",
            archive="genres.tar.gz",
            md5="5b3d6dddb579ab49814ab86dba69e7c7",
            hub_path="marsyas/gtzan/resolve/main/data/genres.tar.gz",
            addresses=("http://opihi.cs.uvic.ca/sound/genres.tar.gz",),
            clips=gtzan.md5s,
        ),
        KnownCorpus(
            name="gtzan-mini",
            archive="gtzan_mini.zip",
            md5="44f7f23af8363d96c59663a987f29a4c",
            hub_path=None,
            addresses=("https://github.com/TempoBeatDownbeat/gtzan_mini/archive/refs/heads/main.zip",),
            clips=_mini,
        ),
    )
}
"""Archives, addresses and md5s as mirdata's loader `gtzan_genre` has them."""


def known_source(spec: str, genres: tuple[str, ...]) -> UnpackedSource:
    """A known corpus by its name, fetched where it is not here yet; its fingerprint is its archive's md5."""
    corpus = KNOWN.get(spec)
    if corpus is None:
        raise CorpusError(f"The source {spec.partition('?')[0]} takes no parameters.")

    def make(folder: Path) -> None:
        fetch_known(corpus, folder, on_progress=Reporter("ingest", f"MB of {corpus.archive} fetched", MB))

    folder = home.corpora_folder() / corpus.name
    return UnpackedSource(folder, text_digest([corpus.name, corpus.md5]), make, genres)


def fetch_known(
    corpus: KnownCorpus,
    folder: Path,
    mirrors: Sequence[str] = (),
    on_progress: OnProgress = lambda done, total: None,
) -> None:
    """Fetch, unpack and verify a known corpus into the new folder `folder`.

    Raises:
        FetchError: no address gives the archive.
        CorpusError: the folder is there already, or what was unpacked is not what was published.
    """
    _new(folder)
    token = os.environ.get("HF_TOKEN")
    archive = home.corpora_folder() / corpus.archive
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    failures = []
    hub = [address for address in corpus.sources(mirrors) if address.startswith(f"{_hub()}/")]
    for address in corpus.sources(mirrors):
        try:
            download([address], archive, corpus.md5, on_progress, headers if address in hub else None)
            break
        except FetchError as error:
            failures.append(str(error))
    else:
        raise FetchError(
            f"{corpus.archive} could not be fetched. {' '.join(failures)} Name a mirror that has it with "
            f"--mirror or {MIRRORS_VARIABLE}, or the archive itself with --source."
        )
    unpack(archive, folder)
    findings = verify(folder, corpus.name, corpus.clips())
    if not findings.ok:
        shutil.rmtree(folder)  # or the next run would take it for good
        raise CorpusError(f"{folder} was unpacked, but {findings.lines()[-1]}")
    archive.unlink()


def fetch_address(
    address: str,
    folder: Path | None,
    md5: str | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Path:
    """Fetch an archive from anywhere and unpack it; the folder, by default one named after the archive.

    Raises:
        FetchError: the address does not give it.
        CorpusError: the folder is there already, or the file is no archive that can be unpacked.
    """
    name = address.partition("?")[0].rstrip("/").rpartition("/")[2] or "archive"
    folder = folder or home.corpora_folder() / stem(name)
    _new(folder)
    archive = home.corpora_folder() / f"{text_digest([address])[:12]}-{stem(name)}.download"
    download([address], archive, md5, on_progress)
    try:
        if archive_kind(archive) is None:
            raise CorpusError(f"{address} gave a file that is neither a tar nor a zip archive.")
        unpack(archive, folder)
    finally:
        archive.unlink()
    return folder


def _new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CorpusError(f"{folder} is there already; genreflow data verify checks whether it is complete.")
    if folder.is_dir():
        folder.rmdir()


def _hub() -> str:
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
