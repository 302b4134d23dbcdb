"""The split artifact: which clip of a corpus is in which split, with its groups, apart from the audio."""

from collections import Counter
from pathlib import Path
from typing import Self

import pandas as pd

from genreflow.core.digests import code_version, text_digest
from genreflow.core.documents import SPLITS, CorpusDocument, SplitDocument
from genreflow.core.errors import CorpusError
from genreflow.core.progress import report
from genreflow.corpus import gtzan
from genreflow.corpus.protocols import UNUSED, artist_keys, assign, joined
from genreflow.corpus.settings import SplitSettings
from genreflow.corpus.store import MANIFEST, Corpus

STEP = "split"
TABLE = "split.parquet"
COLUMNS = {
    "clip_id": "str",
    "split": "str",
    "fold": "Int32",
    "artist_group": "str",
    "duplicate_cluster": "str",
    "near_duplicate_cluster": "str",
    "folder": "str",
}
"""Of `split.parquet`, in order; `fold` and `artist_group` may be null, `folder` may be empty."""


def split(corpus: Path, settings: SplitSettings, out: Path) -> SplitDocument:
    """Split the clips of a corpus, and write the split into `out`.

    Raises:
        CorpusError: the protocol does not fit these clips.
        SettingsError: there is no such fold.
    """
    document = CorpusDocument.read(corpus)
    manifest = pd.read_parquet(corpus / MANIFEST)
    known = not document.synthetic and gtzan.is_gtzan(manifest["clip_id"], manifest["seconds"])
    made = assign(manifest, settings.protocol, settings.fold, settings.seed, document.genres, known)
    groups = {"artist_group": artist_keys(manifest), "folder": manifest.get("folder", "")}
    table = made.manifest.assign(**groups)[list(COLUMNS)].astype(COLUMNS)
    counts = Counter(table["split"])
    result = SplitDocument(
        fingerprint=fingerprint(table, document.fingerprint),
        corpus_fingerprint=document.fingerprint,
        protocol=made.protocol,
        fold=made.fold,
        seed=settings.seed,
        leaky=made.leaky,
        leak_reason=made.leak_reason,
        counts={name: counts[name] for name in (*SPLITS, UNUSED)},
        notes=made.notes,
        code_version=code_version(),
    )
    out.mkdir(parents=True, exist_ok=True)
    table.to_parquet(out / TABLE, index=False)
    result.write(out)
    report(STEP, _summary(result))
    return result


def fingerprint(table: pd.DataFrame, corpus_fingerprint: str) -> str:
    """sha256 over the corpus's fingerprint and the sorted (clip id, split, fold)."""
    folds = table["fold"].astype("str").fillna("")
    rows = sorted(" ".join(row) for row in zip(table["clip_id"], table["split"], folds, strict=True))
    return text_digest([corpus_fingerprint, *rows])


class Split:
    """A split artifact, opened."""

    def __init__(self, document: SplitDocument, table: pd.DataFrame) -> None:
        self.document = document
        self.table = table
        """A row a clip, with `COLUMNS`."""

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Open a split folder.

        Raises:
            GenreflowError: it is not one, or cannot be read.
        """
        folder = Path(folder)
        document = SplitDocument.read(folder)
        try:
            return cls(document, pd.read_parquet(folder / TABLE))
        except (OSError, ValueError) as error:
            raise CorpusError(f"The split {folder} cannot be read: {error}. Split again.") from error

    def groups(self) -> pd.Series:
        """A group number for each row of `table`: clips of one artist or one recording share it."""
        return joined(self.table, self.table["artist_group"], self.table["near_duplicate_cluster"])


def open_corpus(corpus: Path | str, split: Path | str) -> Corpus:
    """Open a corpus folder with a split of it.

    Raises:
        GenreflowError: one of the folders is not what it should be, or they do not belong together.
    """
    opened = Split.open(split)
    return Corpus.open(corpus).with_split(opened.document, opened.table)


def _summary(document: SplitDocument) -> str:
    counts = ", ".join(f"{document.counts[name]} {name}" for name in (*SPLITS, UNUSED))
    leaky = ", leaky" if document.leaky else ""
    return f"{document.protocol} split{leaky}: {counts}"
