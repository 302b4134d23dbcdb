"""The Trainer's callback: curves, progress, best weights, early stopping, when checkpoints are written."""

import math
import time
from typing import Any, TypeVar

import accelerate
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from genreflow.core import progress
from genreflow.core.errors import DivergedError
from genreflow.fitting.calibration import ClipMetrics
from genreflow.fitting.contract import OnLog
from genreflow.training.checkpoints import Best
from genreflow.training.settings import TrainingSettings
from genreflow.training.termination import EXIT_STATUS, Termination

STEP = "fine_tune"
EPOCH_ROUNDING = 1e-6
"""Of an epoch that is counted in steps."""
CURVES = {
    "loss",
    "learning_rate",
    "grad_norm",
    "epoch",
    "eval_loss",
    "eval_accuracy",
    "eval_window_accuracy",
    "eval_window_loss",
}
WITHIN_EPOCH = 10
"""Times `checkpoint_seconds` after which a checkpoint is written in the middle of an epoch, too."""
STEPS_BETWEEN_AGREEMENTS = 10
"""Where several processes train together, which wait for each other when they agree."""

T = TypeVar("T")


class ProgressCallback(TrainerCallback):
    """Follows a phase of training: curves, progress, best weights, early stopping, checkpoints in time."""

    def __init__(
        self,
        settings: TrainingSettings,
        best: Best,
        metrics: ClipMetrics | None,
        log_point: OnLog | None,
        phase: str,
        first_step: int,
        termination: Termination,
        processes: int,
    ) -> None:
        self.settings, self.best, self.metrics, self.log_point = settings, best, metrics, log_point
        self.phase, self.first_step = phase, first_step
        self.termination, self.processes = termination, processes
        self.ending = False
        """Whether the next checkpoint is the last thing that is done."""
        self.began = self.last_checkpoint = time.monotonic()
        self.last_report = 0.0

    def stale(self, epoch: int) -> bool:
        """Whether validation has not improved for `patience` epochs."""
        patience = self.settings.patience
        return bool(patience and self.best.weights is not None and epoch - self.best.epoch >= patience)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **others: Any,
    ) -> None:
        found = {name: float(value) for name, value in (logs or {}).items() if name in CURVES}
        for name in ("loss", "eval_loss"):
            if not math.isfinite(found.get(name, 0.0)):
                kind = "validation" if name == "eval_loss" else "training"
                raise DivergedError(
                    f"The {kind} loss became {found[name]} in epoch {found.get('epoch', 0.0):.2f}. "
                    "Lower training.learning_rate "
                    f"(now {self.settings.learning_rate:g}), or set training.precision=fp32."
                )
        if not state.is_world_process_zero or not found.keys() - {"epoch"}:
            return
        found = {name: value for name, value in found.items() if math.isfinite(value)}
        now = time.monotonic()
        if self.log_point is not None:
            self.log_point(self.first_step + state.global_step, {**found, "seconds": now - self.began})
        if "eval_loss" in found or now - self.last_report >= progress.SECONDS_BETWEEN_EVENTS:
            self.last_report = now
            self._report(state, found)

    def _report(self, state: TrainerState, found: dict[str, float]) -> None:
        epoch = min(math.ceil(found["epoch"] - EPOCH_ROUNDING), state.num_train_epochs)
        message = f"{self.phase} epoch {epoch} of {state.num_train_epochs}"
        if "loss" in found:
            message += f": loss {found['loss']:.3f}"
        if "eval_loss" in found:
            message += f": validation accuracy {found['eval_accuracy']:.3f}, loss {found['eval_loss']:.3f}"
        progress.report(STEP, message, done=state.global_step, total=state.max_steps)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        model: torch.nn.Module | None = None,
        **others: Any,
    ) -> None:
        if metrics is None or model is None or self.metrics is None:
            return
        epoch = round(state.epoch or 0)
        if metrics["eval_score"] > self.best.score:
            known = {name: metrics[name] for name in sorted(CURVES & metrics.keys() - {"epoch"})}
            score = metrics["eval_score"]
            self.best.take(model, state.global_step, epoch, score, metrics=known, logits=self.metrics.logits)
        if self.stale(epoch):
            control.should_training_stop = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        if state.global_step % (state.max_steps // state.num_train_epochs) == 0:
            return  # the end of an epoch is saved after its validation, which is not made again
        if self.processes == 1 or state.global_step % STEPS_BETWEEN_AGREEMENTS == 0:
            seconds = WITHIN_EPOCH * self.settings.checkpoint_seconds
            self._save_where_due(control, seconds if seconds else math.inf)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        self._save_where_due(control, self.settings.checkpoint_seconds)

    def _save_where_due(self, control: TrainerControl, seconds: float) -> None:
        due = time.monotonic() - self.last_checkpoint >= seconds
        due, self.ending = agreed((due, self.termination.requested))
        if due or self.ending:
            control.should_save = True
            self.last_checkpoint = time.monotonic()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        if self.ending:
            progress.report(STEP, f"ended by SIGTERM after step {state.global_step} of {state.max_steps}")
            raise SystemExit(EXIT_STATUS)


def agreed(value: T) -> T:
    """The main process's value, in every process."""
    return accelerate.utils.broadcast_object_list([value])[0]
