"""Corpus to features: windows as a family trains on them, its frozen part computed once, as a stream."""

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from genreflow import devices, families, progress
from genreflow.artifacts import FeaturesDocument, Hearing, code_version, text_digest
from genreflow.augmentation import augment
from genreflow.corpus.store import Corpus
from genreflow.errors import CorpusError, GenreflowError, SettingsError
from genreflow.families.base import FrozenPart
from genreflow.features import hear

if TYPE_CHECKING:
    import torch

STEP = "extract_features"
WINDOWS = "windows.npy"
INDEX = "index.parquet"
BATCH = 8
LEARNT_FROM = ("train", "validation")
"""Splits that features hold: the test split is heard by the whole model, from audio, in evaluation."""

_STORED: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
}


def extract(
    corpus: Path, family: str, settings: dict[str, Any], out: Path, device: str = "auto", batch: int = BATCH
) -> FeaturesDocument:
    """Make the features of a corpus for one family, in memory that does not grow with the corpus.

    Clips of train and validation are resampled, cut into windows and represented in threads; the family's
    frozen part takes them in batches. Train clips are followed by `settings.views` augmented copies.

    Args:
        corpus: a corpus folder.
        settings: the family's settings; what is not given is its default.
        out: the features folder to write.
        device: for the frozen part: auto, cpu or cuda.
        batch: windows that the frozen part takes at once.

    Raises:
        CorpusError: there is no clip to train on.
        ModelError, SettingsError: the family cannot be had with these settings, or there is no such device.
    """
    kind = families.family(family)
    try:
        chosen = kind.settings_type.model_validate(settings)
    except ValidationError as error:
        raise SettingsError(f"These are no settings of {family}: {error}") from error
    clips = Corpus.open(corpus)
    if not clips.rows("train"):
        raise CorpusError(f"The corpus {corpus} has no clip to train on.")
    hearing = kind.hearing(chosen)
    place = devices.choose(device, "resources.device")
    part = kind.frozen_part(chosen, place) or FrozenPart("inputs", "float32", lambda rows: rows)

    genres = clips.document.genres
    out.mkdir(parents=True, exist_ok=True)
    index: list[tuple[int, int, float]] = []
    with _WindowsFile(out / WINDOWS, _STORED[part.dtype]) as file:
        pending = _Pending()
        for clip in _hear_all(clips, hearing, chosen.views):
            index += [(clip.row, clip.view, float(start)) for start in clip.starts]
            pending.add(clip.windows)
            while len(pending) >= batch:
                file.append(part.compute(pending.take(batch)))
        if len(pending):
            file.append(part.compute(pending.take(len(pending))))
        windows, window_shape, content = len(file), file.window_shape, file.digest()
    _write_index(out / INDEX, index, clips.manifest, genres)

    complete = chosen.model_dump(mode="json")
    backbone = kind.backbone(chosen)
    document = FeaturesDocument(
        fingerprint=text_digest(
            (
                clips.document.fingerprint,
                family,
                chosen.model_dump_json(),
                hearing.model_dump_json(),
                backbone or "",
                part.stage,
                part.dtype,
                content,
            )
        ),
        corpus_fingerprint=clips.document.fingerprint,
        family=family,
        settings=complete,
        hearing=hearing,
        backbone=backbone,
        stage=part.stage,
        dtype=part.dtype,
        window_shape=window_shape,
        windows=windows,
        genres=genres,
        synthetic=clips.document.synthetic,
        protocol=clips.document.protocol,
        fold=clips.document.fold,
        leaky=clips.document.leaky,
        leak_reason=clips.document.leak_reason,
        code_version=code_version(),
    )
    document.write(out)
    return document


class Features:
    """A features artifact, opened memory-mapped: rows are windows."""

    def __init__(
        self, folder: Path, document: FeaturesDocument, index: pd.DataFrame, windows: NDArray[Any]
    ) -> None:
        self.folder = folder
        self.document = document
        self.index = index
        self._windows = windows

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Open a features folder.

        Raises:
            GenreflowError: it is not one, or its parts do not belong together.
        """
        folder = Path(folder)
        document = FeaturesDocument.read(folder)
        try:
            windows = np.load(folder / WINDOWS, mmap_mode="r", allow_pickle=False)
            index = pd.read_parquet(folder / INDEX)
        except (OSError, ValueError) as error:
            raise GenreflowError(
                f"The features {folder} cannot be read: {error}. Extract them again."
            ) from error
        expected = ((document.windows, *document.window_shape), _STORED[document.dtype])
        if (windows.shape, windows.dtype) != expected or len(index) != document.windows:
            raise GenreflowError(
                f"The features {folder} are damaged: their parts differ. Extract them again."
            )
        return cls(folder, document, index, windows)

    def __len__(self) -> int:
        return len(self._windows)

    def rows(self, split: str, view: int | None = None) -> NDArray[np.int64]:
        """Row numbers of a split, in order; of one view only (0 is the clean one) where given."""
        chosen = self.index["split"] == split
        if view is not None:
            chosen &= self.index["view"] == view
        return self.index.loc[chosen, "row"].to_numpy(np.int64)

    def tensor(self, row: int) -> "torch.Tensor":
        """One row as a tensor of the stored type, window_shape; a copy of its own."""
        import torch

        stored = np.array(self._windows[row])
        if self.document.dtype == "bfloat16":
            return torch.from_numpy(stored.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(stored)


@dataclass(frozen=True)
class _Heard:
    row: int
    view: int
    windows: NDArray[np.float32]
    starts: NDArray[np.float64]


def _hear_all(clips: Corpus, hearing: Hearing, views: int) -> Iterator[_Heard]:
    """Every clip to learn from and the augmented copies, heard in threads, in order."""
    jobs = [
        (row, view)
        for split in LEARNT_FROM
        for row in clips.rows(split)
        for view in range(1 + (views if split == "train" else 0))
    ]
    digests = clips.manifest["sha256"].tolist()

    def listen(row: int, view: int) -> _Heard:
        samples, rate = clips.samples(row), clips.sample_rate(row)
        if view:
            # the clip's own digest seeds its copies: they do not change when other clips come or go
            samples = augment(samples, rate, np.random.default_rng([int(digests[row][:16], 16), view]))
        return _Heard(row, view, *hear(hearing, samples, rate))

    workers = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[_Heard]] = deque()
        for job in progress.track(STEP, jobs, len(jobs), "clips heard"):
            ahead.append(pool.submit(listen, *job))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class _Pending:
    """Windows that wait for a full batch."""

    def __init__(self) -> None:
        self._parts: deque[NDArray[np.float32]] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, windows: NDArray[np.float32]) -> None:
        self._parts.append(windows)
        self._count += len(windows)

    def take(self, count: int) -> NDArray[np.float32]:
        """The first `count` windows, (count, *shape)."""
        taken: list[NDArray[np.float32]] = []
        wanted = count
        while wanted:
            part = self._parts.popleft()
            taken.append(part[:wanted])
            if len(part) > wanted:
                self._parts.appendleft(part[wanted:])
            wanted -= len(taken[-1])
        self._count -= count
        return np.concatenate(taken) if len(taken) > 1 else taken[0]


class _WindowsFile:
    """A .npy file that grows: its header is written again when the number of rows is known."""

    def __init__(self, path: Path, dtype: "np.dtype[Any]") -> None:
        self._file = path.open("w+b")
        self._dtype = dtype
        self._digest = hashlib.sha256()
        self._count = 0
        self.window_shape: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._header()
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def append(self, rows: NDArray[Any]) -> None:
        """Add (n, *window_shape)."""
        if not self._count:
            self.window_shape = tuple(rows.shape[1:])
            self._header()
            self._file.seek(0, os.SEEK_END)
        data = np.ascontiguousarray(rows, dtype=self._dtype)
        self._digest.update(data.data)
        self._file.write(data.data)
        self._count += len(data)

    def digest(self) -> str:
        """sha256 of all rows."""
        return self._digest.hexdigest()

    def _header(self) -> None:
        # numpy leaves room in the header for the first axis to grow
        self._file.seek(0)
        shape = (self._count, *self.window_shape)
        description = np.lib.format.dtype_to_descr(self._dtype)
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": description, "fortran_order": False, "shape": shape}
        )


def _write_index(
    path: Path, index: list[tuple[int, int, float]], manifest: pd.DataFrame, genres: tuple[str, ...]
) -> None:
    clip_rows = [row for row, _, _ in index]
    columns = ["clip_id", "sha256", "duplicate_cluster", "genre", "split"]
    table = manifest[columns].iloc[clip_rows].reset_index(drop=True)
    table.insert(0, "row", np.arange(len(index), dtype=np.int64))
    labels = {genre: label for label, genre in enumerate(genres)}
    table.insert(5, "label", table["genre"].map(labels).to_numpy(np.int64))
    table["start_seconds"] = [start for _, _, start in index]
    table["view"] = np.array([view for _, view, _ in index], dtype=np.int64)
    table.to_parquet(path, index=False)
