"""Corpus to features: windows in one representation, its frozen stage computed once, as a stream.

`extract` computes the clean windows of clips; it depends on the clips and the representation alone.
`augmented_views` computes augmented copies of the training clips of one split, where training needs them.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genreflow.audio.augmentation import augment
from genreflow.backbones import FrozenStage, load_stage
from genreflow.core import devices, progress
from genreflow.core.digests import code_digest, code_version, file_digest, text_digest
from genreflow.core.documents import FeaturesDocument, InputSpec, Representation
from genreflow.core.errors import CorpusError, GenreflowError, ModelError, one_line
from genreflow.core.processors import available_processors
from genreflow.corpus.splitting import Split, open_corpus
from genreflow.corpus.store import Corpus
from genreflow.features import window_inputs

if TYPE_CHECKING:
    import torch

STEP = "extract_features"
WINDOWS = "windows.npy"
INDEX = "index.parquet"
BATCH = 8

_STORED: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
}


Entry = tuple[int, int, float]
"""Of one window: the clip's row, which copy (0 is the clean one), and the start in seconds."""


class Clips(Protocol):
    """Decoded clips in rows, such as a `Corpus`."""

    @property
    def manifest(self) -> pd.DataFrame: ...
    def samples(self, row: int) -> NDArray[np.float32]: ...
    def sample_rate(self, row: int) -> int: ...


def _device(representation: Representation, wanted: str, setting: str) -> Literal["cpu", "cuda"]:
    """The device of the frozen stage. Where there is none, PyTorch need not be imported to look for one."""
    if representation.stage == "inputs" and wanted == "auto":
        return "cpu"
    return devices.choose(wanted, setting)


def extract(
    corpus: Path,
    representation: Representation,
    out: Path,
    device: str = "auto",
    batch: int = BATCH,
    split: Path | None = None,
) -> FeaturesDocument:
    """Make the features of a corpus in one representation, in memory that does not grow with the corpus.

    Clips are resampled, cut into windows and represented in threads; the frozen stage takes them in batches.

    Args:
        corpus: a corpus folder.
        representation: what a row is.
        out: the features folder to write.
        device: for the frozen stage: auto, cpu or cuda.
        batch: windows that the frozen stage computes at once.
        split: a split of the corpus, whose training and validation clips alone are extracted. Without one
            every clip is, and every split of the corpus can be trained on these features.

    Raises:
        CorpusError: the corpus cannot be read, or the split is of another one.
        ModelError, SettingsError: the frozen stage cannot be loaded, or there is no such device.
    """
    clips = Corpus.open(corpus) if split is None else open_corpus(corpus, split)
    stage = load_stage(representation, _device(representation, device, "resources.device"))
    if stage.name == "inputs" and representation.input_spec.representation == "waveform":
        progress.report(STEP, "windows stay waveforms: no stage is frozen, so nothing is cached")

    out.mkdir(parents=True, exist_ok=True)
    rows = clips.rows(None if split is None else ("train", "validation"))
    index: list[Entry] = []
    with _WindowsFile(out / WINDOWS, _STORED[representation.dtype]) as file:
        for entries, computed in iter_rows(clips, rows, representation.input_spec, stage, batch):
            index += entries
            file.append(computed)
        windows, window_shape, content = len(file), file.window_shape, file.digest()
    index_table(index, clips.manifest, clips.document.genres).to_parquet(out / INDEX, index=False)

    document = FeaturesDocument(
        fingerprint=text_digest((clips.document.fingerprint, representation.canonical(), content)),
        corpus_fingerprint=clips.document.fingerprint,
        representation=representation,
        window_shape=window_shape,
        windows=windows,
        genres=clips.document.genres,
        synthetic=clips.document.synthetic,
        split_fingerprint=None if split is None else clips.split.fingerprint,
        code_version=code_version(),
    )
    document.write(out)
    return document


def iter_rows(
    clips: Clips, rows: Sequence[int], spec: InputSpec, stage: FrozenStage, batch: int = BATCH
) -> Iterator[tuple[list[Entry], NDArray[Any]]]:
    """The features of clips, in batches, in order: what `extract` stores.

    Args:
        rows: of the clips.
        batch: windows that the frozen stage computes at once.

    Yields:
        Entries of the index for the clips read since the last batch, and the stage's output
        (n, *window shape), n at most `batch`.

    Raises:
        ModelError: memory ran out.
    """
    pending = _Pending()
    entries: list[Entry] = []
    for clip in _iter_clips(clips, spec, [(row, 0) for row in rows], STEP, "clips represented"):
        entries += [(clip.row, clip.view, float(start)) for start in clip.starts]
        pending.add(clip.windows)
        while len(pending) >= batch:
            yield entries, _computed(stage, pending.take(batch))
            entries = []
    if len(pending):
        yield entries, _computed(stage, pending.take(len(pending)))


def _computed(stage: FrozenStage, windows: NDArray[np.float32]) -> NDArray[Any]:
    try:
        return stage.compute(windows)
    except (MemoryError, RuntimeError) as error:
        if not devices.is_out_of_memory(error):
            raise
        size = f"{len(windows)} windows of {windows[0].size} values ({one_line(error).rstrip('.')})"
        raise ModelError(
            f"Extraction ran out of memory in the backbone's {stage.name} with {size}: free memory, shorten "
            "the model's windows or, where it ran on a GPU, set resources.device=cpu."
        ) from error


def augmented_views(
    corpus: Path,
    split: Path,
    representation: Representation,
    views: int,
    store: Path,
    device: str = "auto",
    batch: int = BATCH,
    step: str = STEP,
) -> "AugmentedViews":
    """Augmented copies of the training clips of a split, in one representation.

    Every copy is a file in `store`, named by the clip's digest and the copy's number, under a folder for the
    representation and this version of the code. A copy depends on nothing else: another split computes only
    those of the clips that it adds to training. A file that is missing, damaged or incomplete is made again.

    Args:
        corpus: a corpus folder.
        split: a split of it.
        representation: what a row is.
        views: copies of each training clip.
        store: the folder that keeps them, such as `genreflow.core.home.views_folder()`.
        device: for the frozen stage: auto, cpu or cuda.
        batch: windows that the frozen stage computes at once, of one clip.
        step: the pipeline step that progress is reported for.

    Raises:
        CorpusError: the corpus cannot be read, or the split is of another one.
        ModelError, SettingsError: the frozen stage cannot be loaded, or there is no such device.
    """
    clips = open_corpus(corpus, split)
    dtype = _STORED[representation.dtype]
    folder = store / text_digest((representation.canonical(), code_digest()))[:32]
    jobs = [(row, view) for row in clips.rows("train") for view in range(1, 1 + views)]
    digests = clips.manifest["sha256"].tolist()

    def path(row: int, view: int) -> Path:
        return folder / f"{digests[row]}-{view}.npy"

    kept = {path(*job): _read_view(path(*job), dtype) for job in jobs}
    # clips of one digest share their files
    missing = list({path(*job): job for job in jobs if kept[path(*job)] is None}.values())
    if missing:
        stage = load_stage(representation, _device(representation, device, "training.device"))
        folder.mkdir(parents=True, exist_ok=True)
        for clip in _iter_clips(clips, representation.input_spec, missing, step, "augmented copies made"):
            parts = range(0, len(clip.windows), batch)
            # batches of one clip: what else is computed with it must not change a copy's last digits
            rows = np.concatenate([_computed(stage, clip.windows[first : first + batch]) for first in parts])
            file = path(clip.row, clip.view)
            kept[file] = _write_view(file, np.ascontiguousarray(rows, dtype=dtype), clip.starts)
    found = [(row, view, copy) for row, view in jobs if (copy := kept[path(row, view)]) is not None]
    windows = [(row, view, start) for row, view, copy in found for start in copy.starts]
    index = index_table(windows, clips.manifest, clips.document.genres).assign(split="train")
    return AugmentedViews(index, [copy for _, _, copy in found], dtype)


@dataclass(frozen=True)
class _View:
    """One augmented copy of a clip in its file."""

    path: Path
    starts: tuple[float, ...]
    """Of its windows, in seconds."""
    window_shape: tuple[int, ...]


class AugmentedViews:
    """Augmented copies of training clips, read from their files: rows are windows, as in `Features`."""

    def __init__(self, index: pd.DataFrame, views: Sequence[_View], dtype: "np.dtype[Any]") -> None:
        self.index = index
        """As `Features.index` after `assign`; `view` is 1 and above."""
        self._files = [(view, place) for view in views for place in range(len(view.starts))]
        self._dtype = dtype

    def __len__(self) -> int:
        return len(self.index)

    def row(self, row: int) -> NDArray[Any]:
        """One window, window_shape, in the stored type."""
        view, place = self._files[row]
        count = int(np.prod(view.window_shape))
        end = view.path.stat().st_size - (len(view.starts) - place) * count * self._dtype.itemsize
        return np.fromfile(view.path, self._dtype, count, offset=end).reshape(view.window_shape)


class Features:
    """A features artifact, opened memory-mapped: rows are windows."""

    def __init__(
        self, folder: Path, document: FeaturesDocument, index: pd.DataFrame, windows: NDArray[Any]
    ) -> None:
        self.folder = folder
        self.document = document
        self.index = index
        self._windows = windows
        self._views: AugmentedViews | None = None

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
                f"The features {folder} cannot be read: {one_line(error)}. Extract them again."
            ) from error
        expected = ((document.windows, *document.window_shape), _STORED[document.representation.dtype])
        if (windows.shape, windows.dtype) != expected or len(index) != document.windows:
            raise GenreflowError(
                f"The features {folder} are damaged: their parts differ. Extract them again."
            )
        return cls(folder, document, index, windows)

    def __len__(self) -> int:
        return len(self.index)

    def assign(self, split: Split) -> None:
        """Give every row the split and the group of its clip, as columns `split` and `group` of `index`.

        Clips of one group are of one artist or one recording.

        Raises:
            CorpusError: the split is of another corpus.
        """
        if split.document.corpus_fingerprint != self.document.corpus_fingerprint:
            raise CorpusError(
                f"The features {self.folder} and the split are of different corpora: run again."
            )
        if self.document.split_fingerprint not in (None, split.document.fingerprint):
            raise CorpusError(
                f"The features {self.folder} were extracted of another split's clips only "
                "(resources.extract=split): extract them again."
            )
        table = split.table.assign(group=split.groups()).set_index("clip_id")
        columns = {name: self.index["clip_id"].map(table[name]) for name in ("split", "group")}
        self.index = self.index.assign(**columns)

    def add_views(self, views: AugmentedViews) -> None:
        """Append augmented copies as further rows; after `assign`, and once."""
        groups = self.index.drop_duplicates("clip_id").set_index("clip_id")["group"]
        further = views.index.assign(
            row=views.index["row"] + len(self._windows), group=views.index["clip_id"].map(groups)
        )
        self.index = pd.concat([self.index, further], ignore_index=True)
        self._views = views

    def rows(self, split: str, view: int | None = None) -> NDArray[np.int64]:
        """Row numbers of a split, in order; of one view only (0 is the clean one) where given."""
        chosen = self.index["split"] == split
        if view is not None:
            chosen &= self.index["view"] == view
        return self.index.loc[chosen, "row"].to_numpy(np.int64)

    def array(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows as float32: (rows, *window_shape)."""
        clean = rows < len(self._windows)
        stored = np.empty((len(rows), *self.document.window_shape), self._windows.dtype)
        stored[clean] = self._windows[rows[clean]]
        for place in np.flatnonzero(~clean):
            stored[place] = self._stored(int(rows[place]))
        if self.document.representation.dtype == "bfloat16":
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float32, copy=False)

    def tensor(self, row: int) -> "torch.Tensor":
        """One row as a tensor of the stored type, window_shape; a copy of its own."""
        import torch

        stored = self._stored(row)
        if self.document.representation.dtype == "bfloat16":
            return torch.from_numpy(stored.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(stored)

    def _stored(self, row: int) -> NDArray[Any]:
        """One row in the stored type, a copy."""
        if row < len(self._windows):
            return np.array(self._windows[row])
        assert self._views is not None
        return self._views.row(row - len(self._windows))


@dataclass(frozen=True)
class _ClipWindows:
    row: int
    view: int
    windows: NDArray[np.float32]
    starts: NDArray[np.float64]


def _iter_clips(
    clips: Clips, spec: InputSpec, jobs: Sequence[tuple[int, int]], step: str, noun: str
) -> Iterator[_ClipWindows]:
    """Windows of clips, computed in threads, in order.

    Args:
        jobs: row of a clip, and which copy: 0 is the clean one.
        step: for progress, as `noun`, which says what is counted.
    """
    digests = clips.manifest["sha256"].tolist()

    def represented(row: int, view: int) -> _ClipWindows:
        samples, rate = clips.samples(row), clips.sample_rate(row)
        if view:
            # seeded by the clip's own digest: a copy does not change when other clips come or go
            samples = augment(samples, rate, np.random.default_rng([int(digests[row][:16], 16), view]))
        return _ClipWindows(row, view, *window_inputs(spec, samples, rate))

    workers = available_processors()
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[_ClipWindows]] = deque()
        for job in progress.track(step, jobs, len(jobs), noun):
            ahead.append(pool.submit(represented, *job))
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


def index_table(index: Sequence[Entry], manifest: pd.DataFrame, genres: tuple[str, ...]) -> pd.DataFrame:
    """The index of a features artifact: a row a window, with its clip's id, digest, cluster and label."""
    clip_rows = [row for row, _, _ in index]
    columns = ["clip_id", "sha256", "duplicate_cluster", "genre"]
    table = manifest[columns].iloc[clip_rows].reset_index(drop=True)
    table.insert(0, "row", np.arange(len(index), dtype=np.int64))
    labels = {genre: label for label, genre in enumerate(genres)}
    table.insert(5, "label", table["genre"].map(labels).to_numpy(np.int64))
    table["start_seconds"] = np.array([start for _, _, start in index], dtype=np.float64)
    table["view"] = np.array([view for _, view, _ in index], dtype=np.int64)
    return table


def _write_view(path: Path, rows: NDArray[Any], starts: NDArray[np.float64]) -> _View:
    """Write an augmented copy, and beside it what proves that it is whole; each appears at once."""
    half = path.with_name(f"{path.name}.{os.getpid()}.half")
    with half.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
    facts = {
        "sha256": file_digest(half),
        "starts": starts.tolist(),
        "shape": list(rows.shape[1:]),
        "dtype": str(rows.dtype),
    }
    half.replace(path)
    half.write_text(json.dumps(facts))
    half.replace(path.with_suffix(".json"))
    return _View(path, tuple(facts["starts"]), rows.shape[1:])


def _read_view(path: Path, dtype: "np.dtype[Any]") -> _View | None:
    """An augmented copy that is kept; None where it is missing, damaged or incomplete."""
    try:
        facts = json.loads(path.with_suffix(".json").read_text())
        if file_digest(path) != facts["sha256"] or facts["dtype"] != str(dtype):
            return None
        return _View(path, tuple(map(float, facts["starts"])), tuple(map(int, facts["shape"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None
