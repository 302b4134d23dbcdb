"""Measurements on one NVIDIA GPU: extraction, fine-tuning, serving parity, out of memory. Run by `gpu.sh`."""

import gc
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from numpy.typing import NDArray
from transformers import (
    AutoModelForAudioClassification,
    HubertConfig,
    HubertModel,
    TrainerCallback,
    TrainingArguments,
)

from genreflow.backbones import FrozenStage, load_stage
from genreflow.core.digests import code_version
from genreflow.core.documents import FeaturesDocument, ModelDocument, SplitDocument
from genreflow.core.errors import GenreflowError, ModelError, TrainingError
from genreflow.core.genres import GENRES
from genreflow.corpus.splitting import COLUMNS, Split
from genreflow.extraction import BATCH, Entry, Features, index_table, iter_rows
from genreflow.families import family
from genreflow.families.encoder import Encoder
from genreflow.features import BATCH_WINDOWS, window_inputs
from genreflow.fitting import FitContext, fine_tuning, training_settings
from genreflow.inference.backends.pytorch import load_native
from genreflow.inference.parity import PARITY, Precision

SEED = 42
CLIP_RATE = 22_050
"""Hertz of the clips: extraction resamples them to the model's 16 kHz, as it does GTZAN's."""
LEARNING_RATE = 5e-5
BUDGET_SECONDS = 480.0
"""No part begins after this long; gpu.sh ends the process after 570 s."""
GIB = 1 << 30
OUT_OF_MEMORY_ROOM = 3 * GIB // 2
"""Bytes beyond what is in use that the test of a too large batch leaves: less than its activations take."""


@dataclass(frozen=True)
class Plan:
    """How much is measured, and on what."""

    device: str
    model: dict[str, Any]
    """What differs from `HubertConfig`'s defaults, which are HuBERT base."""
    seconds: float
    """Of a clip, which is one window."""
    clips: int
    batch_sizes: tuple[int, ...]
    steps: int
    """Optimiser steps of a training run."""
    warm_up: int
    """The first steps, which are not counted."""
    extraction_seconds: float
    """Extraction of all clips is repeated for at least this long."""


# no dropped layer: one takes no time, and which are dropped is chance
DISTILHUBERT = {"num_hidden_layers": 2, "layerdrop": 0.0, "mask_time_prob": 0.05, "mask_time_length": 10}
TINY = {
    **DISTILHUBERT,
    "conv_dim": (16,) * 7,
    "hidden_size": 24,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 12,
    "mask_time_length": 4,
}
ON_A_GPU = Plan("cuda", DISTILHUBERT, 10.0, 128, (8, 32), 72, 8, 5.0)
"""128 clips of 10 s are 54 MiB of int16."""
REHEARSAL = Plan("cpu", TINY, 1.0, 16, (4, 8), 8, 2, 0.2)


class Tones:
    """A corpus in memory whose genres differ in pitch: `genreflow.extraction.Clips`."""

    def __init__(self, clips: int, seconds: float) -> None:
        rng = np.random.default_rng(SEED)
        times = np.arange(round(seconds * CLIP_RATE)) / CLIP_RATE
        self.pcm: list[NDArray[np.int16]] = []
        names = [f"{GENRES[number % len(GENRES)]}.{number:05d}" for number in range(clips)]
        for number in range(clips):
            hertz = 110 * 2 ** (number % len(GENRES) / 2) * rng.uniform(0.97, 1.03)
            wave = 0.3 * np.sin(2 * np.pi * hertz * times) + rng.normal(0, 0.05, len(times))
            self.pcm.append(np.rint(np.clip(wave, -1, 1) * 32_767).astype(np.int16))
        genres = [name.partition(".")[0] for name in names]
        self.manifest = pd.DataFrame(
            {"clip_id": names, "sha256": names, "duplicate_cluster": names, "genre": genres}
        )

    def __len__(self) -> int:
        return len(self.pcm)

    def samples(self, row: int) -> NDArray[np.float32]:
        return self.pcm[row].astype(np.float32) / np.float32(32_768)

    def sample_rate(self, row: int) -> int:
        return CLIP_RATE


@dataclass
class Bench:
    """What the parts share."""

    plan: Plan
    folder: Path
    corpus: Tones
    settings: Any
    waveforms: NDArray[np.float32]
    """(clips, samples) as the model's front end takes them."""
    labels: NDArray[np.int64]
    results: dict[str, Any] = field(default_factory=dict)
    features: Features | None = None
    trained: tuple[Path, ModelDocument] | None = None

    @property
    def kind(self) -> Encoder:
        found = family("encoder")
        assert isinstance(found, Encoder)
        return found

    def assigned(self) -> tuple[Features, Split]:
        """The extracted features, every clip a training clip: nothing but training is timed."""
        assert self.features is not None, "the features were not extracted"
        clips = self.corpus.manifest.assign(split="train", fold=None, artist_group=None, folder="")
        table = clips.assign(near_duplicate_cluster=clips["duplicate_cluster"])[list(COLUMNS)].astype(COLUMNS)
        document = SplitDocument(
            fingerprint="gpu",
            corpus_fingerprint="gpu",
            protocol="random",
            fold=None,
            seed=SEED,
            leaky=False,
            leak_reason=None,
            counts={"train": len(table)},
            code_version=code_version(),
        )
        split = Split(document, table)
        if "split" not in self.features.index:
            self.features.assign(split)
        return self.features, split


def prepare(plan: Plan, folder: Path) -> Bench:
    """The corpus, and a checkpoint with random weights."""
    corpus = Tones(plan.clips, plan.seconds)
    torch.manual_seed(SEED)
    checkpoint = folder / "checkpoint"
    HubertModel(HubertConfig(**plan.model)).save_pretrained(checkpoint)
    extractor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": True,
        "feature_size": 1,
        "padding_value": 0.0,
        "return_attention_mask": False,
        "sampling_rate": 16_000,
    }
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(extractor))
    settings = family("encoder").settings_type.model_validate(
        {"backbone": str(checkpoint), "window_seconds": plan.seconds}
    )
    spec = family("encoder").input_spec(settings)
    windows = [window_inputs(spec, corpus.samples(row), CLIP_RATE)[0] for row in range(len(corpus))]
    assert all(len(one) == 1 for one in windows)
    labels = corpus.manifest["genre"].map(dict(zip(GENRES, range(len(GENRES)), strict=True)))
    return Bench(plan, folder, corpus, settings, np.concatenate(windows), labels.to_numpy(np.int64))


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def peak_memory(device: str, found: dict[str, Any]) -> Iterator[None]:
    """Put the peak of PyTorch's GPU memory into `found`, in MiB; None on a CPU."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield
    peak = round(torch.cuda.max_memory_allocated() / (1 << 20)) if device == "cuda" else None
    found["peak_memory_mib"] = peak


def extraction(bench: Bench) -> None:
    """Clips a second from samples in memory to rows of features, as `extract` computes them."""
    plan, found = bench.plan, bench.results.setdefault("extraction", {})
    representation = bench.kind.representation(bench.settings)
    stage = load_stage(representation, plan.device)

    def once(batch: int) -> tuple[list[Entry], NDArray[Any]]:
        index: list[Entry] = []
        rows = []
        clips = range(len(bench.corpus))
        for entries, computed in iter_rows(bench.corpus, clips, representation.input_spec, stage, batch):
            index += entries
            rows.append(computed)
        return index, np.concatenate(rows)

    index, windows = once(BATCH)
    for batch in sorted({BATCH, max(plan.batch_sizes)}):
        measured: dict[str, Any] = {}
        with peak_memory(plan.device, measured):
            once(batch)
            began, clips = time.perf_counter(), 0
            while time.perf_counter() - began < plan.extraction_seconds:
                once(batch)
                clips += len(bench.corpus)
            measured["clips_per_second"] = clips / (time.perf_counter() - began)
        found[f"batch {batch}"] = measured

    document = FeaturesDocument(
        fingerprint="gpu",
        corpus_fingerprint="gpu",
        representation=representation,
        window_shape=windows.shape[1:],
        windows=len(windows),
        genres=GENRES,
        synthetic=True,
        code_version=code_version(),
    )
    table = index_table(index, bench.corpus.manifest, GENRES)
    bench.features = Features(bench.folder, document, table, windows)


class Waveforms(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def __len__(self) -> int:
        return len(self.bench.labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"input_values": self.bench.waveforms[row], "labels": self.bench.labels[row]}


@dataclass
class Clock:
    """When each step's loss was known on the CPU: the steps before it are computed by then."""

    times: dict[int, float] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)

    def point(self, step: int, figures: dict[str, float]) -> None:
        if "loss" in figures:
            self.times[step] = time.perf_counter()
            self.losses[step] = figures["loss"]

    def measured(self, batch: int, warm_up: int) -> dict[str, Any]:
        counted = sorted(step for step in self.times if step >= warm_up)
        seconds = self.times[counted[-1]] - self.times[counted[0]]
        steps = counted[-1] - counted[0]
        return {
            "clips_per_second": steps * batch / seconds,
            "milliseconds_per_step": 1000 * seconds / steps,
            "steps": steps,
            "first_loss": self.losses[min(self.losses)],
            "last_loss": self.losses[max(self.losses)],
        }


class ClockCallback(TrainerCallback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        self.clock.point(state.global_step, logs or {})


def epochs_of(plan: Plan, batch: int) -> int:
    return max(1, round(plan.steps * batch / plan.clips))


def plain_recipe(bench: Bench, batch: int) -> dict[str, Any]:
    """transformers' classifier and Trainer in fp32 on waveforms: the frozen front end runs every step."""
    plan, clock = bench.plan, Clock()
    module: Any = bench.kind.build(bench.settings, GENRES, "inputs", seed=SEED)
    start = {f"hubert.{k}": v for k, v in module.encoder.state_dict().items()} | module.head.state_dict()
    model = AutoModelForAudioClassification.from_pretrained(bench.settings.backbone, num_labels=len(GENRES))
    model.load_state_dict(start)
    model.freeze_feature_encoder()
    arguments = TrainingArguments(
        output_dir=str(bench.folder / "plain"),
        per_device_train_batch_size=batch,
        num_train_epochs=epochs_of(plan, batch),
        learning_rate=LEARNING_RATE,
        warmup_steps=0,
        weight_decay=0.0,
        seed=SEED,
        data_seed=SEED,
        use_cpu=plan.device == "cpu",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
    )
    trainer = transformers.Trainer(
        model, arguments, train_dataset=Waveforms(bench), callbacks=[ClockCallback(clock)]
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return clock.measured(batch, plan.warm_up)


def genreflow_recipe(bench: Bench, batch: int, precision: str) -> dict[str, Any]:
    """The library's own fit on cached front-end output; its model is kept."""
    clock = Clock()
    bench.trained = fit(bench, bench.kind, batch, precision, epochs_of(bench.plan, batch), clock)
    return clock.measured(batch, bench.plan.warm_up)


def fit(
    bench: Bench, kind: Encoder, batch: int, precision: str, epochs: int, clock: Clock
) -> tuple[Path, ModelDocument]:
    features, split = bench.assigned()
    training = {
        "epochs": epochs,
        "batch_size": batch,
        "learning_rate": LEARNING_RATE,
        "weight_decay": 0.0,
        "warmup_fraction": 0.0,
        "precision": precision,
        "device": bench.plan.device,
        "seed": SEED,
        "resume": False,
        "checkpoint_seconds": 1e6,  # none is written: it would be timed
    }
    chosen = training_settings(kind, bench.settings, training)
    out = bench.folder / f"model-{batch}-{precision}"
    context = FitContext(
        features=features,
        split=split,
        split_folder=bench.folder,
        corpus=None,
        genres=GENRES,
        settings=bench.settings,
        training=chosen,
        out=out,
        on_log=clock.point,
        run_id=None,
    )
    return out, fine_tuning.fit(kind, context)


def fine_tuning_speed(bench: Bench) -> None:
    """Clips a second and memory of a fine-tuning step, in three ways."""
    ways: dict[str, Callable[[Bench, int], dict[str, Any]]] = {
        "plain recipe, fp32": plain_recipe,
        "genreflow, fp32": lambda bench, batch: genreflow_recipe(bench, batch, "fp32"),
        "genreflow, bf16": lambda bench, batch: genreflow_recipe(bench, batch, "bf16"),
    }
    found = bench.results.setdefault("fine_tuning", {})
    for batch in bench.plan.batch_sizes:
        rows = found.setdefault(f"batch {batch}", {})
        for name, way in ways.items():
            memory: dict[str, Any] = {}
            with peak_memory(bench.plan.device, memory):
                rows[name] = way(bench, batch)
            rows[name] |= memory
            plain = rows["plain recipe, fp32"]["clips_per_second"]
            rows[name]["times_the_plain_recipe"] = rows[name]["clips_per_second"] / plain


def parity(bench: Bench) -> None:
    """How far the PyTorch runtime in bf16 is from fp32 on the model that was just trained."""
    assert bench.trained is not None, "no model was trained"
    folder, document = bench.trained
    probabilities: dict[str, NDArray[np.float64]] = {}
    found = bench.results.setdefault("parity", {})
    precisions: tuple[Precision, ...] = ("f32", "bf16")
    for precision in precisions:
        predict = load_native(folder, document, precision, bench.plan.device)
        batches = [bench.waveforms[i : i + BATCH_WINDOWS] for i in range(0, bench.plan.clips, BATCH_WINDOWS)]
        predict(batches[0])
        measured: dict[str, Any] = {}
        with peak_memory(bench.plan.device, measured):
            began = time.perf_counter()
            logits = np.concatenate([predict(batch) for batch in batches]).astype(np.float64)
            measured["windows_per_second"] = len(logits) / (time.perf_counter() - began)
        scaled = np.exp((logits - logits.max(1, keepdims=True)) / document.temperature)
        probabilities[precision] = scaled / scaled.sum(1, keepdims=True)
        found[precision] = measured
    exact, half = probabilities["f32"], probabilities["bf16"]
    bound = PARITY["bf16"]
    difference = float(np.abs(exact - half).max())
    agreement = float((exact.argmax(1) == half.argmax(1)).mean())
    found["windows"] = len(exact)
    found["accuracy_on_training_clips"] = float((exact.argmax(1) == bench.labels).mean())
    found["probability_difference"] = difference
    found["decision_agreement"] = agreement
    found["served"] = difference <= bound.probability_difference and agreement >= bound.decision_agreement


class OutOfMemoryEncoder(Encoder):
    """The encoder family on a device without memory: its module's first forward pass fails as CUDA's does."""

    def build(self, *arguments: Any, **named: Any) -> Any:
        module = super().build(*arguments, **named)
        module.register_forward_pre_hook(_no_memory)
        return module


def _no_memory(*_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def out_of_memory(bench: Bench) -> None:
    """A too large batch ends in a sentence, in training and in extraction; then training works again."""
    plan, found = bench.plan, bench.results.setdefault("out_of_memory", {})
    batch = plan.clips
    representation = bench.kind.representation(bench.settings)
    kind, stage = bench.kind, load_stage(representation, plan.device)
    gc.collect()
    if plan.device == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        room = torch.cuda.memory_reserved() + OUT_OF_MEMORY_ROOM
        torch.cuda.set_per_process_memory_fraction(min(1.0, room / total))
    else:
        kind, stage = OutOfMemoryEncoder(), replace(stage, compute=_no_memory)
    try:
        found["training"] = _sentence(lambda: fit(bench, kind, batch, "bf16", 1, Clock()), TrainingError)
        found["extraction"] = _sentence(lambda: _extract(bench, stage, batch), ModelError)
    finally:
        if plan.device == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)
    fit(bench, bench.kind, min(plan.batch_sizes), "bf16", 1, Clock())
    assert f"training.batch_size={batch}" in found["training"], found["training"]
    assert "out of memory" in found["extraction"], found["extraction"]


def _extract(bench: Bench, stage: FrozenStage, batch: int) -> None:
    spec = bench.kind.input_spec(bench.settings)
    for _ in iter_rows(bench.corpus, range(len(bench.corpus)), spec, stage, batch):
        pass


def _sentence(run: Callable[[], Any], expected: type[GenreflowError]) -> str:
    try:
        run()
    except expected as error:
        return str(error)
    raise AssertionError(f"there was memory enough, and no {expected.__name__}")


def machine(plan: Plan) -> dict[str, Any]:
    """What it was measured on."""
    cuda = plan.device == "cuda"
    return {
        "rehearsal": not cuda,
        "device": torch.cuda.get_device_name(0) if cuda else "cpu",
        "device_memory_mib": torch.cuda.get_device_properties(0).total_memory >> 20 if cuda else None,
        "cpu_cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "genreflow": code_version(),
        "tf32_in_matrix_products": torch.backends.cuda.matmul.allow_tf32 if cuda else None,
        "tf32_in_convolutions": torch.backends.cudnn.allow_tf32 if cuda else None,
    }


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    about = results["machine"]
    lines = [
        f"{about['device']}, PyTorch {about['torch']}, transformers {about['transformers']}; "
        f"{results['parameters'] / 1e6:.1f} M parameters, clips of {results['clip_seconds']:g} s",
        "",
    ]
    if about["rehearsal"]:
        lines += ["Rehearsal on the CPU with a tiny model: these figures say nothing about a GPU.", ""]
    lines += ["| what | clips a second | peak memory | |", "|---|---|---|---|"]
    for batch, measured in results.get("extraction", {}).items():
        lines.append(_row(f"extraction, {batch}", measured["clips_per_second"], measured, ""))
    for batch, ways in results.get("fine_tuning", {}).items():
        for name, measured in ways.items():
            note = f"{measured['times_the_plain_recipe']:.2f} times the plain recipe"
            note += f", loss {measured['first_loss']:.3f} to {measured['last_loss']:.3f}"
            lines.append(_row(f"{name}, {batch}", measured["clips_per_second"], measured, note))
    found = results.get("parity", {})
    for precision in ("f32", "bf16"):
        if precision in found:
            speed = found[precision]["windows_per_second"]
            lines.append(_row(f"serving, PyTorch {precision}", speed, found[precision], ""))
    if "served" in found:
        served = "served" if found["served"] else "not served"
        lines += [
            "",
            f"bf16 against fp32 on {found['windows']} windows: probabilities within "
            f"{found['probability_difference']:.4f}, {found['decision_agreement']:.1%} of the decisions "
            f"equal, {found['accuracy_on_training_clips']:.1%} right: {served} in bf16 by packaging.",
        ]
    lines += [
        "",
        *(f"- {name} without memory: {text}" for name, text in results.get("out_of_memory", {}).items()),
    ]
    lines += [f"{part}: {problem}" for part, problem in results["problems"].items()]
    return "\n".join(lines) + "\n"


def _row(name: str, speed: float, measured: dict[str, Any], note: str) -> str:
    memory = measured["peak_memory_mib"]
    return f"| {name} | {speed:.1f} | {'not measured' if memory is None else f'{memory} MiB'} | {note} |"


def main(folder: Path, out: Path) -> int:
    """Measure everything; write `gpu.json` and `gpu.md` into `out` after every part."""
    began = time.monotonic()
    plan = REHEARSAL if os.environ.get("GENREFLOW_GPU_REHEARSAL") else ON_A_GPU
    if plan.device == "cuda" and not torch.cuda.is_available():
        print(
            "PyTorch sees no CUDA device here: set GENREFLOW_GPU_REHEARSAL=1 to rehearse on the CPU.",
            file=sys.stderr,
        )
        return 2
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if plan.device == "cpu":
        torch.set_num_threads(1)  # threads that spin take longest on a busy machine
    out.mkdir(parents=True, exist_ok=True)
    bench = prepare(plan, folder)
    module = bench.kind.build(bench.settings, GENRES, "inputs", seed=SEED)
    bench.results |= {
        "machine": machine(plan),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "clip_seconds": plan.seconds,
        "clips": plan.clips,
        "seconds": {},
        "problems": {},
    }
    problems = bench.results["problems"]
    for part in (extraction, fine_tuning_speed, parity, out_of_memory):
        started = time.monotonic()
        if started - began > BUDGET_SECONDS:
            problems[part.__name__] = f"not begun: {started - began:.0f} s had passed"
            continue
        try:
            part(bench)
        except Exception as error:  # the other parts are measured all the same
            traceback.print_exc()
            problems[part.__name__] = f"failed: {type(error).__name__}: {error}"
        synchronise(plan.device)
        bench.results["seconds"][part.__name__] = round(time.monotonic() - started, 1)
        (out / "gpu.json").write_text(json.dumps(bench.results, indent=2) + "\n")
        (out / "gpu.md").write_text(table(bench.results))
    print(table(bench.results))
    print(f"{time.monotonic() - began:.0f} s; {out}/gpu.json, {out}/gpu.md")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
