"""Hugging Face Trainer over memory-mapped feature rows: one process of a training run."""

import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import accelerate
import numpy as np
import pandas
import torch
import transformers
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import EvalPrediction

from genreflow import devices, progress
from genreflow.artifacts import ModelDocument, code_version
from genreflow.errors import ObjectStoreError, TrainingError
from genreflow.extraction import Features
from genreflow.families import family as family_named
from genreflow.training import checkpoints
from genreflow.training.attention import windowed_attention
from genreflow.training.checkpoints import Best
from genreflow.training.mirror import KEPT, PROBED, Mirror
from genreflow.training.sealing import seal
from genreflow.training.settings import OnLog, TrainingSettings, training_settings

STEP = "fine_tune"
CURVE_POINTS = 200
ROWS_AT_A_TIME = 256
TEMPERATURE_BOUNDS = (0.2, 10.0)
TEMPERATURE_SPREAD = 0.5
"""Standard deviation of the preference for log T = 0, which counts where validation clips are few."""
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

PROBED_FILE = "probe.safetensors"
LONGEST_REASON = 300
"""Characters of an error's own text that are shown."""

log = logging.getLogger("genreflow")
T = TypeVar("T")


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
        return {"inputs": _stack(self.features, rows), "labels": self.labels[rows]}


class ClipMetrics:
    """Clip-level figures of validation windows: a clip's probabilities are the mean over its windows'."""

    def __init__(self, clips: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        self.clips, self.labels = clips, labels
        """Clip number and label of each window, in the order of the validation rows."""
        self.clip_labels = np.zeros(int(clips.max()) + 1, dtype=np.int64)
        self.clip_labels[clips] = labels
        self.logits: NDArray[np.float32] | None = None
        """Logits (windows, genres) of the last evaluation."""

    @classmethod
    def of(cls, validation: pandas.DataFrame) -> Self:
        """For the rows of an index."""
        clips = validation["clip_id"].astype("category").cat.codes.to_numpy(dtype=np.int64)
        return cls(clips, validation["label"].to_numpy(dtype=np.int64))

    def negative_log_likelihood(self, logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
        """Of each clip's true genre: (clips,)."""
        return -self.log_probabilities(logits, temperature)[
            np.arange(len(self.clip_labels)), self.clip_labels
        ]

    def log_probabilities(self, logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
        """Logarithm of each clip's mean probabilities: (clips, genres)."""
        windows = log_softmax(logits.astype(np.float64) / temperature, axis=1)
        order = np.argsort(self.clips, kind="stable")
        starts = np.searchsorted(self.clips[order], np.arange(len(self.clip_labels)))
        counts = np.diff(starts, append=len(order))
        sums = np.logaddexp.reduceat(windows[order], starts, axis=0)
        return sums - np.log(counts)[:, None]

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        logits = np.asarray(prediction.predictions, dtype=np.float32)
        if not np.array_equal(np.asarray(prediction.label_ids), self.labels):
            raise TrainingError("The validation windows came back in another order than they were given in.")
        self.logits = logits
        clips = self.log_probabilities(logits)
        loss = float(self.negative_log_likelihood(logits).mean())
        accuracy = float((clips.argmax(axis=1) == self.clip_labels).mean())
        windows = log_softmax(logits.astype(np.float64), axis=1)
        return {
            "loss": loss,
            "accuracy": accuracy,
            "window_loss": float(-windows[np.arange(len(windows)), self.labels].mean()),
            "window_accuracy": float((logits.argmax(axis=1) == self.labels).mean()),
            # more clips right is better, and among equals the lower loss
            "score": accuracy * len(self.clip_labels) - loss / (1 + loss)
            if math.isfinite(loss)
            else -math.inf,
        }

    def temperature(self, logits: NDArray[np.float32]) -> float:
        """The softmax temperature that makes the clips' probabilities most likely (Guo et al. 2017)."""

        def cost(log_temperature: float) -> float:
            likelihood = self.negative_log_likelihood(logits, math.exp(log_temperature)).sum()
            return float(likelihood + 0.5 * (log_temperature / TEMPERATURE_SPREAD) ** 2)

        low, high = TEMPERATURE_BOUNDS
        found = minimize_scalar(cost, bounds=(math.log(low), math.log(high)), method="bounded")
        return float(math.exp(found.x))


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
        """Write one, or go on without: no model is lost because of a checkpoint."""
        problem = None
        try:
            super()._save_checkpoint(model, trial)
        # torch.save tells a full disk by RuntimeError
        except (OSError, RuntimeError, SafetensorError) as error:
            problem = " ".join(str(error).split())[:LONGEST_REASON]
        # waits for the other processes, too: each writes a file
        problems = [found for found in accelerate.utils.gather_object([problem]) if found]
        if self.is_world_process_zero():
            self.kept(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}", problems)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.accelerator.unwrap_model(self.model), str(folder / "model.safetensors"))
        self.best.save(folder)


class Course(TrainerCallback):
    """Follows a phase of training: curves, progress, best weights, early stopping, checkpoints in time."""

    def __init__(
        self,
        settings: TrainingSettings,
        best: Best,
        metrics: ClipMetrics | None,
        tell: OnLog | None,
        phase: str,
        first_step: int,
    ) -> None:
        self.settings, self.best, self.metrics, self.tell = settings, best, metrics, tell
        self.phase, self.first_step = phase, first_step
        self.began = self.last_checkpoint = time.monotonic()
        self.last_report = 0.0

    def stale(self, epoch: int) -> bool:
        """Whether validation has not improved for as long as patience lasts."""
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
                raise TrainingError(
                    f"The {kind} loss became {found[name]} in epoch {found.get('epoch', 0.0):.2f}. "
                    "Lower training.learning_rate "
                    f"(now {self.settings.learning_rate:g}), or set training.precision=fp32."
                )
        if not state.is_world_process_zero or not found.keys() - {"epoch"}:
            return
        found = {name: value for name, value in found.items() if math.isfinite(value)}
        now = time.monotonic()
        if self.tell is not None:
            self.tell(self.first_step + state.global_step, {**found, "seconds": now - self.began})
        if "eval_loss" in found or now - self.last_report >= progress.SECONDS_BETWEEN_EVENTS:
            self.last_report = now
            self._report(state, found)

    def _report(self, state: TrainerState, found: dict[str, float]) -> None:
        epoch = min(math.ceil(found["epoch"] - 1e-6), state.num_train_epochs)
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

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        due = time.monotonic() - self.last_checkpoint >= self.settings.checkpoint_seconds
        if _agreed(due):
            control.should_save = True
            self.last_checkpoint = time.monotonic()


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
    mirror: Mirror | None
    """The run's checkpoints in an object store; of the main process alone."""
    tell: OnLog | None
    best: Best = field(default_factory=Best)
    first_step: int = 0
    """Optimiser steps of the phases that are over."""
    resumed_from_step: int | None = None
    notes: list[str] = field(default_factory=list)
    """Sentences on what went wrong with checkpoints."""

    def note(self, sentence: str) -> None:
        """Tell something now, and keep it with the model."""
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
        checkpoints.forget_all_but(KEPT, checkpoint.parent)
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
                self.note(f"{'; '.join(problems)}. Passed over: {phase} {then}.")
        return _agreed(found)

    def phase(self, name: str, epochs: int, groups: list[dict[str, Any]]) -> TrainerState:
        """Train `groups` for at most `epochs` epochs, going on from the last checkpoint of this phase."""
        metrics = self.metrics if name == "tune" else None
        course = Course(self.settings, self.best, metrics, self.tell, name, self.first_step)
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
            if course.stale(round(state.epoch or 0)):
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
            # `Course` says when
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


def fine_tune(
    features: Path, out: Path, training: dict[str, Any], tell: OnLog | None = None, run_id: str | None = None
) -> ModelDocument:
    """What `genreflow.training.fine_tune` says, in this process (under torchrun: in each of several)."""
    began = time.monotonic()
    rows = Features.open(features)
    document = rows.document
    family = family_named(document.family)
    family_settings = family.settings_type.model_validate(document.settings)
    settings = training_settings(family, family_settings, training)
    train_rows = np.asarray(rows.rows("train"), dtype=np.int64)
    validation_rows = np.asarray(rows.rows("validation", view=0), dtype=np.int64)
    train, validation = rows.index.iloc[train_rows], rows.index.iloc[validation_rows]
    _check_learnable(train)
    if family.backbone(family_settings) != document.backbone:
        raise TrainingError(
            f"The backbone {family.pretrained(family_settings)} is no longer the one that these features "
            "were extracted with: extract them again."
        )
    device = devices.choose(settings.device, "training.device")
    backend = {"backend": "gloo"} if device == "cpu" and "WORLD_SIZE" in os.environ else {}
    state = accelerate.PartialState(cpu=device == "cpu", **backend)

    transformers.set_seed(settings.seed)
    module = family.build(family_settings, document.genres, document.stage, settings.seed)
    family.fit_inputs(module, (_stack(rows, some.tolist()) for some in _chunks(train_rows)))
    with ExitStack() as stack:
        stack.enter_context(_threads(settings))
        folder = checkpoints.root(settings) / checkpoints.key(document, settings)
        mirror = None
        if state.is_main_process:
            folder = stack.enter_context(checkpoints.locked(folder))
            if settings.checkpoint_uri is not None and settings.checkpoint_uri.startswith("s3://"):
                mirror = Mirror(settings.checkpoint_uri, folder.name)
                mirror.check()
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
            folder=_agreed(folder),
            mirror=mirror,
            tell=tell,
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
        seconds = time.monotonic() - began
        model = ModelDocument(
            family=document.family,
            settings=document.settings,
            genres=document.genres,
            hearing=document.hearing,
            temperature=temperature,
            training={
                **settings.model_dump(),
                "used_device": device,
                "used_precision": run.precision,
                "processes": run.processes,
                "epochs_run": epochs,
                "best_epoch": run.best.epoch if run.metrics is not None else epochs,
                "validation": run.best.metrics,
                "selection": "validation clips" if run.metrics is not None else "none: no validation clips",
                "resumed_from_step": run.resumed_from_step,
                "steps": end.global_step,
                "seconds": seconds,
                "windows": len(train_rows),
                "notes": run.notes,
            },
            pretrained=family.pretrained(family_settings),
            synthetic=document.synthetic,
            train_clips=_clips(train),
            validation_clips=_clips(validation),
            corpus_fingerprint=document.corpus_fingerprint,
            features_fingerprint=document.fingerprint,
            protocol=document.protocol,
            fold=document.fold,
            leaky=document.leaky,
            leak_reason=document.leak_reason,
            code_version=code_version(),
            run_id=run_id,
        )
        if state.is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            family.save(module.to("cpu").eval(), out)
            model.write(out)
            checkpoints.clear(run.folder)
            if mirror is not None and (problem := mirror.clear()):
                run.note(f"Checkpoints stay in {mirror.address}, where they are no longer needed: {problem}")
        state.wait_for_everyone()
    return model


def _check_learnable(train: pandas.DataFrame) -> None:
    """Raise TrainingError where training could learn nothing."""
    if train.empty:
        raise TrainingError(
            "There are no training windows in these features: every clip was left out or is in another "
            "split. Look at the corpus's quarantine and protocol."
        )
    genres = sorted(train["genre"].unique())
    if len(genres) == 1:
        raise TrainingError(
            f"All training clips are {genres[0]}: a classifier needs two genres at least. "
            "Add clips of other genres or choose another protocol."
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
    """PyTorch with the threads that the settings ask for."""
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _agreed(value: T) -> T:
    """The main process's value, in every process."""
    return accelerate.utils.broadcast_object_list([value])[0]


def _chunks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for first in range(0, len(rows), ROWS_AT_A_TIME):
        yield rows[first : first + ROWS_AT_A_TIME]


def _stack(features: Features, rows: Iterable[int]) -> torch.Tensor:
    return torch.stack([features.tensor(row) for row in rows])


def _class_weights(train: pandas.DataFrame, genres: int) -> torch.Tensor:
    """Inverse numbers of training clips, 1 on average over clips; genres without clips get 1."""
    clips = train.drop_duplicates("clip_id")["label"].value_counts()
    weights = torch.ones(genres)
    for label, count in clips.items():
        weights[cast(int, label)] = clips.sum() / (len(clips) * count)
    return weights


def _clips(index: pandas.DataFrame) -> dict[str, str]:
    """sha256 → duplicate cluster of the clips in some rows of an index."""
    clips = index.drop_duplicates("sha256").sort_values("sha256")
    return dict(zip(clips["sha256"], clips["duplicate_cluster"], strict=True))
