"""Where a training run keeps its checkpoints, which of them is whole, and the best weights so far."""

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file

from genreflow.core.digests import code_digest, text_digest
from genreflow.core.documents import FeaturesDocument, SplitDocument
from genreflow.core.home import check_writable
from genreflow.fitting.contract import RUN_SETTINGS, Family, FamilySettings
from genreflow.training.checkpoint_digests import verify_checkpoint
from genreflow.training.mirror import PROBED, CheckpointMirror
from genreflow.training.settings import TrainingSettings

BEST_FILE = "best.safetensors"
STATE_FILE = "trainer_state.json"
LOCK_FILE = ".lock"

log = logging.getLogger("genreflow")


def key(
    features: FeaturesDocument,
    split: SplitDocument,
    family: Family,
    model: FamilySettings,
    settings: TrainingSettings,
) -> str:
    """A digest of all that decides what a training run computes, the backbone's weights and code included."""
    return text_digest(
        (
            features.fingerprint,
            split.fingerprint,
            family.name,
            family.backbone_digest(model) or "",
            json.dumps(model.model_dump(mode="json"), sort_keys=True),
            json.dumps(settings.model_dump(exclude=set(RUN_SETTINGS)), sort_keys=True),
            code_digest(),
        )
    )[:32]


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """`folder`, for this process alone; where another process trains the same inputs, a folder beside it.

    Raises:
        GenreflowError: the folder that it lies in cannot be written.
    """
    check_writable(folder.parent, "The folder of checkpoints")
    folder.mkdir(exist_ok=True)
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            own = folder.with_name(f"{folder.name}-{os.getpid()}")
            log.warning("Another process trains the same inputs; this one keeps its checkpoints in %s.", own)
            own.mkdir(parents=True, exist_ok=True)
            yield own
        else:
            yield folder


def last_whole(run: Path, phase: str, mirror: CheckpointMirror | None) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint of a phase, here or in the object store, and what is wrong with newer ones.

    Damaged ones are removed here: they are of no use, and would count among those that are kept.

    Args:
        run: the folder of the training run.
        phase: `probe` or `tune`; `probed` for what the probe ended with.
        mirror: the run's checkpoints in an object store.

    Raises:
        ObjectStoreError: the object store does not answer.
    """
    here = {path.relative_to(run).as_posix() for path in (*run.glob(f"{phase}/checkpoint-*"), run / PROBED)}
    there = set() if mirror is None else set(mirror.checkpoints)
    wanted = re.compile(PROBED if phase == PROBED else rf"{phase}/checkpoint-\d+")
    names = [name for name in here | there if wanted.fullmatch(name)]
    problems: list[str] = []
    for name in sorted(names, key=lambda name: int(name.rpartition("-")[2]) if "-" in name else 0)[::-1]:
        path = run / name
        if path.exists():
            problem = verify_checkpoint(path)
            if problem is None:
                return path, problems
            problems.append(f"{path} {problem}")
            shutil.rmtree(path)
        if mirror is not None and name in there:
            problem = mirror.fetch(name, path)
            if problem is None:
                return path, problems
            problems.append(f"{mirror.address}: {name} {problem}")
    return None, problems


def remove_all_but(kept: int, phase: Path) -> None:
    """Remove the older checkpoints of a phase; which are older, their steps say."""
    found = sorted(phase.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in found[:-kept]:
        shutil.rmtree(path, ignore_errors=True)


def empty(folder: Path) -> None:
    """Forget an earlier run of the same inputs; the lock stays."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK_FILE:
            path.unlink()


def clear(folder: Path) -> None:
    """Remove a run's checkpoints."""
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Best:
    """The best weights so far, by validation."""

    step: int = 0
    epoch: int = 0
    score: float = float("-inf")
    metrics: dict[str, float] | None = None
    logits: NDArray[np.float32] | None = None
    """Validation logits (windows, genres) of these weights."""
    weights: dict[str, torch.Tensor] | None = None

    def take(self, module: torch.nn.Module, step: int, epoch: int, score: float, **found: Any) -> None:
        """Remember the module's trained parameters and its buffers."""
        trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        buffers = {name for name, _ in module.named_buffers()}
        self.weights = {
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in module.state_dict().items()
            if name in trained or name in buffers
        }
        self.step, self.epoch, self.score = step, epoch, score
        self.metrics, self.logits = found["metrics"], found["logits"]

    def save(self, folder: Path) -> None:
        """Write into a checkpoint folder; nothing where nothing was evaluated yet."""
        if self.weights is None or self.logits is None:
            return
        facts = {"step": self.step, "epoch": self.epoch, "score": self.score, "metrics": self.metrics}
        tensors = {f"weights.{name}": tensor for name, tensor in self.weights.items()}
        tensors["logits"] = torch.from_numpy(self.logits)
        save_file(tensors, str(folder / BEST_FILE), metadata={"facts": json.dumps(facts)})

    def load(self, folder: Path) -> None:
        """Read back what `save` wrote; unchanged where it wrote nothing."""
        path = folder / BEST_FILE
        if not path.is_file():
            return
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        self.step, self.epoch, self.score = facts["step"], facts["epoch"], facts["score"]
        self.metrics = facts["metrics"]
        self.logits = tensors.pop("logits").numpy()
        self.weights = {name.removeprefix("weights."): tensor for name, tensor in tensors.items()}
