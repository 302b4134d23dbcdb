"""Hugging Face Trainer over memory-mapped feature rows, with the loss and checkpoints of a model family."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_model

from genreflow.core.errors import one_line
from genreflow.extraction import Features
from genreflow.training.checkpoints import Best
from genreflow.training.settings import TrainingSettings


class Rows(torch.utils.data.Dataset[int]):
    """Row numbers of a features artifact; the collator fetches what lies there, a batch at a time."""

    def __init__(self, rows: NDArray[np.int64]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> int:
        return int(self.rows[position])


class Collator:
    """Row numbers to a batch: `inputs` (batch, *window shape) in the stored dtype, `labels` (batch,) ids."""

    def __init__(self, features: Features, labels: NDArray[np.int64]) -> None:
        self.features, self.labels = features, torch.from_numpy(labels)

    def __call__(self, rows: list[int]) -> dict[str, torch.Tensor]:
        return {"inputs": stack(self.features, rows), "labels": self.labels[rows]}


class ClipTrainer(transformers.Trainer):
    """Trainer with the family's parameter groups and loss, and checkpoints without pickled arguments."""

    def __init__(
        self,
        *,
        groups: list[dict[str, Any]],
        settings: TrainingSettings,
        genres: int,
        class_weights: torch.Tensor | None,
        best: Best,
        kept: Callable[[Path, list[str]], None],
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.groups, self.settings, self.genres, self.best, self.kept = groups, settings, genres, best, kept
        self.class_weights = None if class_weights is None else class_weights.to(self.args.device)
        # the loss is a mean over the batch: Trainer divides it by the accumulation steps
        self.model_accepts_loss_kwargs = False

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            kind = torch.optim.AdamW if self.settings.optimizer == "adamw" else torch.optim.Adam
            self.optimizer = kind(self.groups, lr=self.settings.learning_rate, fused=True)
        return self.optimizer

    def get_eval_dataloader(self, *given: Any) -> Any:
        """All validation rows: Trainer would leave an incomplete last batch out here, too."""
        dropped, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(*given)
        finally:
            self.args.dataloader_drop_last = dropped

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        rows, labels, weights = inputs["inputs"].float(), inputs["labels"], None
        if model.training:
            weights = self.class_weights
            if self.settings.label_smoothing or self.settings.mixup:
                rows, labels = self._soften(rows, labels)
        outputs = model(rows, labels=labels, class_weights=weights)
        # a family may return hidden states, too; evaluation gathers logits alone
        return (
            (outputs.loss, {"loss": outputs.loss, "logits": outputs.logits})
            if return_outputs
            else outputs.loss
        )

    def _soften(self, rows: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Smoothed labels as shares (batch, genres), and rows and shares mixed in pairs."""
        smoothing, mixup = self.settings.label_smoothing, self.settings.mixup
        shares = torch.nn.functional.one_hot(labels, self.genres).float()
        shares = shares * (1 - smoothing) + smoothing / self.genres
        if mixup:
            share = float(torch.distributions.Beta(mixup, mixup).sample())
            other = torch.randperm(len(rows)).to(rows.device)
            rows, shares = rows.lerp(rows[other], 1 - share), shares.lerp(shares[other], 1 - share)
        return rows, shares

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write one, or go on without: no model is lost because of a checkpoint.

        Private (transformers 5.23): no callback runs around the writing of optimiser and scheduler, where a
        disk fills up as well as in the weights.
        """
        problem = None
        try:
            super()._save_checkpoint(model, trial)
        # torch.save raises at a full disk RuntimeError
        except (OSError, RuntimeError, SafetensorError) as error:
            problem = one_line(error)
        # waits for the other processes, too: each writes a file
        problems = [found for found in accelerate.utils.gather_object([problem]) if found]
        if self.is_world_process_zero():
            self.kept(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}", problems)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The module's weights and the best ones so far: without the arguments, which Trainer pickles."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.accelerator.unwrap_model(self.model), str(folder / "model.safetensors"))
        self.best.save(folder)


def stack(features: Features, rows: Iterable[int]) -> torch.Tensor:
    return torch.stack([features.tensor(row) for row in rows])
