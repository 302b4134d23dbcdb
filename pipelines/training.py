"""The training pipeline: how the components are chained, with what resources, and compiled."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from kfp import compiler, dsl, kubernetes

from components.build import build
from components.evaluate import evaluate
from components.extract_features import extract_features
from components.fine_tune import fine_tune
from components.image import cluster_image
from components.ingest import ingest
from components.package import package
from components.promote import promote
from components.register import register
from components.resolve import resolve
from pipelines.settings import Resources, RunSettings

NAME = "genreflow-training"
LIGHT = {"cpu": "1", "memory": "2G"}
"""Limits of the steps that only list or register."""


class Outcome(NamedTuple):
    """What a run of the pipeline hands back."""

    corpus: dsl.Dataset
    evaluation: dsl.Artifact
    run_id: str
    version: str
    created: bool
    decision: str
    aliases: list


def training_pipeline(settings: RunSettings, image: str, local: bool = False) -> Callable[..., Any]:
    """The pipeline for these settings. They are its parameters' defaults, to be changed run by run.

    Args:
        settings: what to train on what; its resources are compiled in.
        image: what the steps run in; on this machine only a part of the cache's keys.
        local: for `kfp.local`, which knows no accelerators and need not retry what fails for a reason.
    """
    resources = settings.resources
    # JSON texts: the structs that KFP passes know neither integers nor null.
    defaults = {
        "corpus": settings.corpus.model_dump_json(),
        "model": json.dumps(settings.model),
        "training": json.dumps(settings.training),
        "packaging": settings.packaging.model_dump_json(),
        "gate": settings.gate.model_dump_json(),
    }

    @dsl.pipeline(name=NAME, display_name="genreflow: train, evaluate, register, promote, build")
    def training(
        source: str = settings.source,
        family: str = settings.family,
        experiment: str = settings.experiment,
        corpus_settings: str = defaults["corpus"],
        model_settings: str = defaults["model"],
        training_settings: str = defaults["training"],
        packaging_settings: str = defaults["packaging"],
        gate_policy: str = defaults["gate"],
        runtime: str = settings.serving.runtime,
        device: str = resources.device,
        batch: int = resources.batch,
    ) -> Outcome:
        """From labelled music to a registered and, where it is better, promoted genre classifier.

        1. Resolve the source: fingerprint what lies behind its name. Never cached.
        2. Ingest: decode, check, quarantine, find duplicates, split.
        3. Extract features: what the model family trains on, the frozen part once.
        4. Fine-tune, with live curves in MLflow.
        5. Evaluate the whole model on the audio of the test split.
        6. Package: every runtime, its parity and latency.
        7. Register one version per model content. Never cached.
        8. Promote: the gate; the alias moves last. Never cached.
        9. Build the bento of what was promoted; otherwise skipped. Never cached.
        """
        resolved = resolve(source=source, corpus=corpus_settings, model=model_settings)
        _prepare(resolved, "Resolve source", resources, image, local, light=True, cached=False, mounted=True)

        ingested = ingest(
            source=source,
            source_fingerprint=resolved.outputs["source_fingerprint"],
            settings=corpus_settings,
        )
        _prepare(ingested, "Ingest corpus", resources, image, local, mounted=True)

        extracted = extract_features(
            corpus=ingested.outputs["corpus"],
            family=family,
            settings=model_settings,
            backbone_fingerprint=resolved.outputs["backbone_fingerprint"],
            device=device,
            batch=batch,
        )
        _prepare(extracted, "Extract features", resources, image, local, accelerated=True, mounted=True)

        tuned = fine_tune(
            features=extracted.outputs["features"], training=training_settings, experiment=experiment
        )
        _prepare(tuned, "Fine-tune model", resources, image, local, accelerated=True, mounted=True)

        evaluated = evaluate(corpus=ingested.outputs["corpus"], model=tuned.outputs["model"])
        _prepare(evaluated, "Evaluate model", resources, image, local, accelerated=True)

        packaged = package(
            model=tuned.outputs["model"],
            corpus=ingested.outputs["corpus"],
            settings=packaging_settings,
        )
        # what is to be served on a GPU is measured on one
        on_gpu = settings.serving.runtime == "pytorch"
        _prepare(packaged, "Package model", resources, image, local, accelerated=on_gpu)

        registered = register(
            packaged=packaged.outputs["packaged"],
            evaluation=evaluated.outputs["evaluation"],
            corpus=ingested.outputs["corpus"],
            run_id=tuned.outputs["Output"],
        )
        _prepare(registered, "Register version", resources, image, local, light=True, cached=False)

        promoted = promote(
            version=registered.outputs["version"],
            packaged=packaged.outputs["packaged"],
            evaluation=evaluated.outputs["evaluation"],
            corpus=ingested.outputs["corpus"],
            policy=gate_policy,
        )
        _prepare(promoted, "Promote or keep", resources, image, local, cached=False)

        with dsl.If(promoted.outputs["Output"] == True, name="promoted"):  # noqa: E712
            built = build(version=registered.outputs["version"], runtime=runtime, export=not local)
            _prepare(built, "Build bento", resources, image, local, cached=False)

        return Outcome(
            corpus=ingested.outputs["corpus"],
            evaluation=evaluated.outputs["evaluation"],
            run_id=tuned.outputs["Output"],
            version=registered.outputs["version"],
            created=registered.outputs["created"],
            decision=promoted.outputs["decision"],
            aliases=promoted.outputs["aliases"],
        )

    return training


def compile_to(path: Path, settings: RunSettings) -> None:
    """Write the pipeline for Kubeflow as YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(training_pipeline(settings, cluster_image()), package_path=str(path))


def _prepare(
    task: dsl.PipelineTask,
    title: str,
    resources: Resources,
    image: str,
    local: bool,
    light: bool = False,
    accelerated: bool = False,
    cached: bool = True,
    mounted: bool = False,
) -> None:
    """Give a task its image, name, caching, retries, resources, volumes and environment."""
    task.set_caching_options(enable_caching=cached)
    task.set_container_image(image)
    if local:
        return
    task.set_display_name(title)
    task.set_retry(num_retries=resources.retries, backoff_duration="30s", backoff_factor=2)
    task.set_cpu_limit(LIGHT["cpu"] if light else resources.cpu)
    task.set_memory_limit(LIGHT["memory"] if light else resources.memory)
    for name, value in sorted(environment(resources).items()):
        task.set_env_variable(name, value)
    for secret, variables in sorted(resources.secrets.items()):
        kubernetes.use_secret_as_env(task, secret, variables)
    if mounted:
        for claim, path in sorted(resources.volumes.items()):
            kubernetes.mount_pvc(task, claim, path)
    if accelerated and resources.gpus:
        task.set_accelerator_type(resources.accelerator).set_accelerator_limit(resources.gpus)
        kubernetes.empty_dir_mount(
            task, "shared-memory", "/dev/shm", medium="Memory", size_limit=resources.shared_memory
        )


def environment(resources: Resources) -> dict[str, str]:
    """The pods' variables: the profile's own, and the tracking server of this shell, where it is one."""
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    inherited = {"MLFLOW_TRACKING_URI": tracking} if tracking.startswith(("http://", "https://")) else {}
    return inherited | resources.environment
