"""A corpus on disk: decoded clips in memory-mapped Arrow beside their manifest, written as a stream."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genreflow.audio import BLOCK_SAMPLES
from genreflow.core.documents import SPLITS, CorpusDocument, SplitDocument
from genreflow.core.errors import CorpusError, one_line

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

CLIPS = "clips"
MANIFEST = "manifest.parquet"
QUARANTINE = "quarantine.parquet"
NEAR_DUPLICATES = "near_duplicates.parquet"

FULL_SCALE = 32_768
"""int16 samples are stored as round(sample × FULL_SCALE), clipped at 32 767."""
BATCH_SAMPLES = 1 << 23
"""Samples gathered before they are written as one record batch: 16 MiB, whatever the corpus holds."""

MANIFEST_TYPES = {
    "clip_id": "str",
    "genre": "str",
    "sha256": "str",
    "source": "str",
    "folder": "str",
    "seconds": "float64",
    "sample_rate": "int32",
    "channels": "int32",
    "format": "str",
    "artist": "str",
    "title": "str",
    "duplicate_cluster": "str",
    "near_duplicate_cluster": "str",
    "rms_dbfs": "float64",
    "peak_dbfs": "float64",
}
"""The manifest's columns in order. `artist` and `title` may be null; `folder` is the one above the genre's,
empty where the source has only one."""
QUARANTINE_COLUMNS = ("source", "reason", "detail")


def _columns() -> "datasets.Features":
    """Of the clips' Arrow file."""
    import datasets  # here: what works on features alone needs neither it nor Arrow

    return datasets.Features(
        {
            "clip_id": datasets.Value("string"),
            "sample_rate": datasets.Value("int32"),
            "samples": datasets.List(datasets.Value("int16")),
        }
    )


def quantise(samples: NDArray[np.float32]) -> tuple[NDArray[np.int16], float]:
    """(n,) float32 to int16, and the gain: what exceeds full scale is scaled down, not clipped."""
    peak = max(float(samples.max(initial=0.0)), -float(samples.min(initial=0.0)))
    gain = 1.0 if peak <= 1.0 else 1.0 / peak
    pcm = np.empty(len(samples), np.int16)
    for start in range(0, len(samples), BLOCK_SAMPLES):  # a long clip is not held four times
        block = slice(start, start + BLOCK_SAMPLES)
        scaled = np.rint(samples[block] * np.float32(gain * FULL_SCALE))
        pcm[block] = np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1)
    return pcm, gain


class ClipWriter:
    """Writes decoded clips one after the other into `<folder>/clips`, holding at most one batch of them."""

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa

        self._clips = Path(folder) / CLIPS
        self._clips.mkdir(parents=True)
        self._file = "data-00000-of-00001.arrow"
        self._sink = pa.OSFile(str(self._clips / self._file), "wb")
        self._writer = pa.ipc.new_stream(self._sink, _columns().arrow_schema)
        self._ids: list[str] = []
        self._rates: list[int] = []
        self._samples: list[NDArray[np.int16]] = []

    def write(self, clip_id: str, sample_rate: int, samples: NDArray[np.int16]) -> None:
        """Append one clip: (n,) int16 at `sample_rate` Hz."""
        self._ids.append(clip_id)
        self._rates.append(sample_rate)
        self._samples.append(samples)
        if sum(map(len, self._samples)) >= BATCH_SAMPLES:
            self._flush()

    def close(self) -> None:
        """Write what is left and what `datasets.load_from_disk` needs."""
        import datasets

        self._flush()
        self._writer.close()
        self._sink.close()
        datasets.DatasetInfo(features=_columns()).write_to_directory(str(self._clips))
        # The layout of `Dataset.save_to_disk` (datasets 5.2), which has no writer that holds one batch only.
        state: dict[str, object] = {
            "_data_files": [{"filename": self._file}],
            "_fingerprint": "0" * 16,
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        (self._clips / "state.json").write_text(json.dumps(state, indent=2, sort_keys=True) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._sink.close()

    def _flush(self) -> None:
        if not self._ids:
            return
        import pyarrow as pa

        offsets = np.cumsum([0, *map(len, self._samples)], dtype=np.int32)
        samples = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(self._samples)))
        columns = [pa.array(self._ids), pa.array(self._rates, pa.int32()), samples]
        self._writer.write_batch(pa.record_batch(columns, schema=_columns().arrow_schema))
        self._ids, self._rates, self._samples = [], [], []


class Corpus:
    """A corpus artifact, opened memory-mapped: rows are clips, in the manifest's order."""

    def __init__(
        self,
        folder: Path,
        document: CorpusDocument,
        manifest: pd.DataFrame,
        table: "pa.Table",
        split: SplitDocument | None = None,
    ) -> None:
        self.folder = folder
        self.document = document
        self.manifest = manifest
        self._table, self._split = table, split
        self._rates = table.column("sample_rate").to_numpy()
        self._chunks = table.column("samples").chunks
        self._starts = np.cumsum([0, *map(len, self._chunks)])

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Open a corpus folder.

        Raises:
            GenreflowError: it is not a corpus, or its parts do not belong together.
        """
        import datasets

        folder = Path(folder)
        document = CorpusDocument.read(folder)
        try:
            manifest = pd.read_parquet(folder / MANIFEST)
            dataset = datasets.load_from_disk(str(folder / CLIPS), keep_in_memory=False)
        except (OSError, ValueError) as error:
            raise CorpusError(
                f"The corpus {folder} cannot be read: {one_line(error)}. Ingest it again."
            ) from error
        if list(dataset["clip_id"]) != list(manifest["clip_id"]):
            raise CorpusError(f"The corpus {folder} is damaged: manifest and clips differ. Ingest it again.")
        return cls(folder, document, manifest, dataset.data.table)

    def __len__(self) -> int:
        return len(self.manifest)

    def samples(self, row: int) -> NDArray[np.float32]:
        """The clip's mono samples (n,) float32 in [-1, 1]; only this clip's pages of the file are read."""
        return self.pcm(row).astype(np.float32) / np.float32(FULL_SCALE)

    def pcm(self, row: int) -> NDArray[np.int16]:
        """The clip's mono samples (n,) int16, a read-only view into the file."""
        if not 0 <= row < len(self):
            raise IndexError(f"There is no row {row} in a corpus of {len(self)} clips.")
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        values: NDArray[np.int16] = self._chunks[chunk][row - int(self._starts[chunk])].values.to_numpy(
            zero_copy_only=True
        )
        return values

    def sample_rate(self, row: int) -> int:
        """Hertz at which the clip is stored: its source's own rate."""
        return int(self._rates[row])

    def with_split(self, document: SplitDocument, table: pd.DataFrame) -> Self:
        """The same corpus with the columns `split` and `fold` in its manifest.

        Args:
            table: a row a clip with `clip_id`, `split` and `fold`, as a split artifact has it.

        Raises:
            CorpusError: the split is another corpus's.
        """
        if document.corpus_fingerprint != self.document.fingerprint:
            raise CorpusError(
                f"The split was made of another corpus than {self.folder}: split this one again."
            )
        columns = table.set_index("clip_id")[["split", "fold"]]
        return type(self)(
            self.folder, self.document, self.manifest.join(columns, on="clip_id"), self._table, document
        )

    @property
    def split(self) -> SplitDocument:
        """The split that the corpus was opened with.

        Raises:
            CorpusError: it was opened without one.
        """
        if self._split is None:
            raise CorpusError(f"The corpus {self.folder} was opened without a split.")
        return self._split

    def rows(self, split: str | Sequence[str] | None = None, most: int | None = None) -> list[int]:
        """Rows of a split (or of several), in order; all rows without one.

        Args:
            most: of more rows so many are taken, evenly spread: a corpus is in the order of its genres.
        """
        found = self._rows(split)
        if most is None or len(found) <= most:
            return found
        return [found[at * len(found) // most] for at in range(most)]

    def _rows(self, split: str | Sequence[str] | None) -> list[int]:
        if split is None:
            return list(range(len(self)))
        wanted = {split} if isinstance(split, str) else set(split)
        if unknown := wanted - {*SPLITS, "unused"}:
            raise CorpusError(
                f"There is no split {', '.join(sorted(unknown))}; there are {', '.join(SPLITS)}, unused."
            )
        return np.flatnonzero(self.manifest["split"].isin(wanted)).tolist()

    def quarantine(self) -> pd.DataFrame:
        """What was refused: columns source, reason, detail."""
        return pd.read_parquet(self.folder / QUARANTINE)

    def near_duplicates(self) -> pd.DataFrame:
        """Pairs that hold the same recording: columns clip_id, other_clip_id, offset_seconds, similarity.

        Of exact duplicates only the first is named, and of a recording in many clips not every pair.
        """
        return pd.read_parquet(self.folder / NEAR_DUPLICATES)
