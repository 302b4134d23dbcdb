"""One process of a training run: its phases, checkpoints and the selection of the best epoch."""

import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import accelerate
import numpy as np
import pandas
import torch
import transformers
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from transformers import PrinterCallback, TrainerState, TrainingArguments

from genreflow.core import devices, home, progress
from genreflow.core.errors import ObjectStoreError, TrainingError, one_line
from genreflow.core.processors import available_processors
from genreflow.extraction import Features
from genreflow.fitting.calibration import ClipMetrics
from genreflow.fitting.contract import FitContext, FitResult, OnLog
from genreflow.training import checkpoints
from genreflow.training.attention import windowed_attention
from genreflow.training.callback import EPOCH_ROUNDING, STEP, ProgressCallback, agreed
from genreflow.training.checkpoint_digests import seal
from genreflow.training.checkpoint_uri import local_root, mirror_of
from genreflow.training.checkpoints import Best
from genreflow.training.mirror import KEPT, PROBED, CheckpointMirror
from genreflow.training.modules import ModuleFamily
from genreflow.training.settings import TrainingSettings
from genreflow.training.termination import Termination, deferred_termination
from genreflow.training.trainer import ClipTrainer, Collator, Rows, stack

CURVE_POINTS = 200
ROWS_AT_A_TIME = 256

PROBED_FILE = "probe.safetensors"

log = logging.getLogger("genreflow")


@dataclass
class Run:
    """All that the phases of one training run share."""

    features: Features
    settings: TrainingSettings
    module: torch.nn.Module
    device: str
    precision: str
    processes: int
    labels: NDArray[np.int64]
    """Of every row of the features."""
    train_rows: NDArray[np.int64]
    validation_rows: NDArray[np.int64]
    metrics: ClipMetrics | None
    class_weights: torch.Tensor | None
    folder: Path
    mirror: CheckpointMirror | None
    """The run's checkpoints in an object store; of the main process alone."""
    on_log: OnLog | None
    termination: Termination
    best: Best = field(default_factory=Best)
    first_step: int = 0
    """Optimiser steps of the phases that are over."""
    resumed_from_step: int | None = None
    notes: list[str] = field(default_factory=list)
    """Sentences on what went wrong with checkpoints."""

    def note(self, sentence: str) -> None:
        """Report a note now, and keep it with the model."""
        log.warning(sentence)
        progress.report(STEP, sentence)
        self.notes.append(sentence)

    def kept(self, checkpoint: Path, problems: list[str]) -> None:
        """A checkpoint was written, or not for these reasons: seal it, and mirror it."""
        if not problems:
            try:
                seal(checkpoint)
            except OSError as error:
                problems = [str(error)]
        if problems:
            shutil.rmtree(checkpoint, ignore_errors=True)
            self.note(
                f"{checkpoint} could not be written ({problems[0]}): training goes on; the next one is tried."
            )
            return
        checkpoints.remove_all_but(KEPT, checkpoint.parent)
        self.mirror_one(checkpoint)

    def mirror_one(self, checkpoint: Path) -> None:
        """Store a checkpoint in the object store, where there is one."""
        if self.mirror is None:
            return
        name = checkpoint.relative_to(self.folder).as_posix()
        problem = self.mirror.push(self.folder, name)
        if problem:
            self.note(
                f"{name} is not stored: {problem} Training goes on; the next checkpoint is tried there again."
            )

    def last(self, phase: str) -> Path | None:
        """The newest whole checkpoint of a phase, the same in every process."""
        found = None
        if accelerate.PartialState().is_main_process:
            found, problems = checkpoints.last_whole(self.folder, phase, self.mirror)
            if problems:
                then = f"goes on from {found.name}" if found else "begins again"
                self.note(f"{'; '.join(problems)}. Skipped: {phase} {then}.")
        return agreed(found)

    def phase(self, name: str, epochs: int, groups: list[dict[str, Any]]) -> TrainerState:
        """Train `groups` for at most `epochs` epochs, going on from the last checkpoint of this phase.

        Raises:
            DivergedError: the loss is no longer a number.
            TrainingError: there is not enough memory.
        """
        try:
            return self._phase(name, epochs, groups)
        except (MemoryError, RuntimeError) as error:
            if not devices.is_out_of_memory(error):
                raise
            raise TrainingError(_too_large(self.settings, self.device, one_line(error))) from error

    def _phase(self, name: str, epochs: int, groups: list[dict[str, Any]]) -> TrainerState:
        metrics = self.metrics if name == "tune" else None
        course = ProgressCallback(
            self.settings,
            self.best,
            metrics,
            self.on_log,
            name,
            self.first_step,
            self.termination,
            self.processes,
        )
        trainer = ClipTrainer(
            groups=groups,
            settings=self.settings,
            genres=len(self.features.document.genres),
            class_weights=self.class_weights,
            best=self.best,
            kept=self.kept,
            model=self.module,
            args=self.arguments(name, epochs, metrics is not None),
            train_dataset=Rows(self.train_rows),
            eval_dataset=None if metrics is None else Rows(self.validation_rows),
            data_collator=Collator(self.features, self.labels),
            compute_metrics=metrics,
            callbacks=[course],
        )
        # it writes logs to standard output, which belongs to results
        trainer.remove_callback(PrinterCallback)
        checkpoint = self.last(name)
        if checkpoint is not None:
            self.best.load(checkpoint)
            state = TrainerState.load_from_json(str(checkpoint / checkpoints.STATE_FILE))
            self.resumed_from_step = self.first_step + state.global_step
            progress.report(STEP, f"{name} goes on from step {state.global_step} of {state.max_steps}")
            if course.stale(math.floor((state.epoch or 0) + EPOCH_ROUNDING)):
                return state
        with windowed_attention():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        # takes autocast off the module's forward again
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
        self.first_step += trainer.state.max_steps
        return trainer.state

    def arguments(self, phase: str, epochs: int, evaluated: bool) -> TrainingArguments:
        """Trainer's arguments for one phase."""
        settings, cpu = self.settings, self.device == "cpu"
        windows = len(self.train_rows)
        batch = math.ceil(settings.batch_size / self.processes)
        batches = math.ceil(windows / (batch * self.processes))
        steps = epochs * math.ceil(batches / settings.gradient_accumulation)
        return TrainingArguments(
            output_dir=str(self.folder / phase),
            num_train_epochs=epochs,
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=2 * batch,
            gradient_accumulation_steps=settings.gradient_accumulation,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="constant_with_warmup"
            if settings.schedule == "constant"
            else settings.schedule,
            warmup_steps=math.ceil(settings.warmup_fraction * steps),
            max_grad_norm=settings.max_gradient_norm,
            bf16=self.precision == "bf16",
            use_cpu=cpu,
            ddp_backend="gloo" if cpu and self.processes > 1 else None,
            seed=settings.seed,
            data_seed=settings.seed,
            # a last batch of one row has no batch statistics
            dataloader_drop_last=windows % batch == 1 and windows > batch,
            dataloader_pin_memory=not cpu,
            eval_strategy="epoch" if evaluated else "no",
            # `ProgressCallback` says when
            save_strategy="no",
            # `Run.kept` deletes old ones: Trainer goes by the time of files, and the clock may be set back
            save_total_limit=None,
            logging_steps=max(1, steps // CURVE_POINTS),
            logging_first_step=True,
            logging_nan_inf_filter=False,
            log_level="error",
            disable_tqdm=True,
            report_to="none",
            remove_unused_columns=False,
            label_names=["labels"],
        )

    def probe(self, groups: list[dict[str, Any]]) -> None:
        """Train the groups named `head` alone, or take what an earlier run of the same inputs found."""
        done = self.last(PROBED)
        if done is not None:
            with safe_open(str(done / PROBED_FILE), framework="pt") as file:
                self.first_step += int(file.metadata()["steps"])
            load_model(self.module, str(done / PROBED_FILE), strict=False)
            return
        inside = {id(p) for name, p in self.module.named_parameters() if name.startswith("head.")}
        outside = [p for p in self.module.parameters() if p.requires_grad and id(p) not in inside]
        head = [{**group, "params": [p for p in group["params"] if id(p) in inside]} for group in groups]
        head = [group for group in head if group["params"]]
        for parameter in outside:
            parameter.requires_grad_(False)
        end = self.phase("probe", self.settings.probe_epochs, head)
        for parameter in outside:
            parameter.requires_grad_(True)
        if accelerate.PartialState().is_main_process:
            self.keep_probed(end.max_steps)

    def keep_probed(self, steps: int) -> None:
        """Write down what the probe ended with, or go on without."""
        done, half = self.folder / PROBED, self.folder / f"{PROBED}.half"
        try:
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            save_model(self.module, str(half / PROBED_FILE), metadata={"steps": str(steps)})
            seal(half)
            half.rename(done)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(half, ignore_errors=True)
            self.note(f"{done} could not be written ({error}): training goes on.")
        else:
            self.mirror_one(done)


def fit(family: ModuleFamily, context: FitContext) -> FitResult:
    """`TorchFamily.fit` in this process (under torchrun: in each of several)."""
    rows, settings, family_settings = context.features, context.training, context.settings
    document = rows.document
    train_rows = np.asarray(rows.rows("train"), dtype=np.int64)
    validation_rows = np.asarray(rows.rows("validation", view=0), dtype=np.int64)
    train, validation = rows.index.iloc[train_rows], rows.index.iloc[validation_rows]
    device = devices.choose(settings.device, "training.device")
    backend = {"backend": "gloo"} if device == "cpu" and "WORLD_SIZE" in os.environ else {}
    state = accelerate.PartialState(cpu=device == "cpu", **backend)

    transformers.set_seed(settings.seed)
    module = family.build(family_settings, document.genres, context.stage, settings.seed)
    family.fit_inputs(module, (stack(rows, some.tolist()) for some in _chunks(train_rows)))
    with ExitStack() as contexts:
        contexts.enter_context(_threads(settings))
        termination = contexts.enter_context(deferred_termination())
        folder = local_root(settings.checkpoint_uri, home.checkpoints_folder()) / checkpoints.key(
            document, context.split.document, family, family_settings, settings
        )
        mirror = None
        if state.is_main_process:
            folder = contexts.enter_context(checkpoints.locked(folder))
            mirror = mirror_of(settings.checkpoint_uri, folder.name)
            if not settings.resume:
                checkpoints.empty(folder)
                if mirror is not None and (problem := mirror.clear()):
                    raise ObjectStoreError(problem)
        run = Run(
            features=rows,
            settings=settings,
            module=module,
            device=device,
            precision=_precision(settings, device),
            processes=state.num_processes,
            labels=rows.index["label"].to_numpy(dtype=np.int64, copy=True),
            train_rows=train_rows,
            validation_rows=validation_rows,
            metrics=ClipMetrics.of(validation) if len(validation) else None,
            class_weights=_class_weights(train, len(document.genres)) if settings.class_weights else None,
            folder=agreed(folder),
            mirror=mirror,
            on_log=context.on_log,
            termination=termination,
        )
        if run.metrics is None:
            progress.report(
                STEP, f"no validation clips: all {settings.epochs} epochs are trained, the last is kept"
            )
        if settings.probe_epochs:
            run.probe(family.parameter_groups(module, family_settings, settings))
        end = run.phase("tune", settings.epochs, family.parameter_groups(module, family_settings, settings))
        temperature, epochs = 1.0, round(end.epoch or 0)
        if run.metrics is not None:
            assert run.best.weights is not None
            assert run.best.logits is not None
            module.load_state_dict(run.best.weights, strict=False)
            temperature = run.metrics.temperature(run.best.logits)
        result = FitResult(
            temperature=temperature,
            calibration=None if run.metrics is None else "validation clips",
            training={
                "used_device": device,
                "used_precision": run.precision,
                "processes": run.processes,
                "epochs_run": epochs,
                "best_epoch": run.best.epoch if run.metrics is not None else epochs,
                "validation": run.best.metrics,
                "selection": "validation clips" if run.metrics is not None else "none: no validation clips",
                "resumed_from_step": run.resumed_from_step,
                "steps": end.global_step,
                "notes": run.notes,
            },
        )
        if state.is_main_process:
            family.save(module.to("cpu").eval(), context.out)
            checkpoints.clear(run.folder)
            if mirror is not None and (problem := mirror.clear()):
                run.note(f"Checkpoints stay in {mirror.address}, where they are no longer needed: {problem}")
        state.wait_for_everyone()
    return result


def _too_large(settings: TrainingSettings, device: str, reason: str) -> str:
    """The sentence for a step that does not fit into memory."""
    size = settings.batch_size
    found = f"Training ran out of memory on {device} with training.batch_size={size} ({reason.rstrip('.')})"
    if size == 1:
        return f"{found}, the smallest there is: shorten the model's windows, or choose a smaller model."
    # a divisor, so that accumulated gradients make the same steps
    smaller = max(part for part in range(1, size // 2 + 1) if size % part == 0)
    accumulated = settings.gradient_accumulation * (size // smaller)
    return (
        f"{found}: lower training.batch_size, for instance to {smaller} with "
        f"training.gradient_accumulation={accumulated}, which makes the same steps."
    )


def _precision(settings: TrainingSettings, device: str) -> str:
    if settings.precision != "auto":
        return settings.precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    found = torch.cpu.get_capabilities()
    return "bf16" if found.get("avx512_bf16") or found.get("amx_bf16") else "fp32"


@contextmanager
def _threads(settings: TrainingSettings) -> Iterator[None]:
    """PyTorch with the threads of the settings."""
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads or min(before, available_processors()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _chunks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for first in range(0, len(rows), ROWS_AT_A_TIME):
        yield rows[first : first + ROWS_AT_A_TIME]


def _class_weights(train: pandas.DataFrame, genres: int) -> torch.Tensor:
    """Inverse numbers of training clips, 1 on average over clips; genres without clips get 1."""
    clips = train.drop_duplicates("clip_id")["label"].value_counts()
    weights = torch.ones(genres)
    for label, count in clips.items():
        weights[cast(int, label)] = clips.sum() / (len(clips) * count)
    return weights
