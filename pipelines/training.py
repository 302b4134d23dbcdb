"""The training pipeline: how the components are chained, with what resources, and compiled."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from kfp import dsl

from components.evaluate import evaluate
from components.extract_features import extract_features
from components.fine_tune import fine_tune
from components.image import cluster_image
from components.package import package
from components.promote import promote
from components.register import register
from components.resolve import resolve
from genreflow.inference.backends import REFERENCE
from pipelines.kubeflow_yaml import write_pipeline
from pipelines.pods import prepare
from pipelines.reach import reachability_warnings
from pipelines.settings import RunSettings, run_settings_variable, without_run_settings
from pipelines.shared_steps import build_if_promoted, ingest_and_split

NAME = "genreflow-training"


class Outcome(NamedTuple):
    """What a run of the pipeline hands back."""

    corpus: dsl.Dataset
    split: dsl.Dataset
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
        "corpus": settings.corpus.ingest().model_dump_json(),
        "split": settings.corpus.split().model_dump_json(),
        "model": json.dumps(settings.model),
        "training": json.dumps(without_run_settings(settings.training)),
        "packaging": settings.packaging.model_dump_json(),
        "gate": settings.gate.model_dump_json(),
    }

    # the settings of one family are refused by another: a pipeline is compiled for one
    family = settings.family

    @dsl.pipeline(
        name=NAME,
        display_name=f"genreflow: train {family}, evaluate, register, promote, build",
        description=f"Trains the family {family}: for another one, compile or submit with --family.",
    )
    def training(
        source: str = settings.source,
        experiment: str = settings.experiment,
        corpus_settings: str = defaults["corpus"],
        split_settings: str = defaults["split"],
        model_settings: str = defaults["model"],
        training_settings: str = defaults["training"],
        packaging_settings: str = defaults["packaging"],
        gate_policy: str = defaults["gate"],
        runtime: str = settings.serving.runtime,
        device: str = resources.device,
        batch: int = resources.batch,
    ) -> Outcome:
        """From labelled music to a registered and, where it is better, promoted genre classifier.

        1. Resolve: fingerprint what lies behind the names of source and backbone. Never cached.
        2. Ingest: decode, check, quarantine, find duplicates.
        3. Split: train, validation and test clips.
        4. Extract features: the representation of clips, a backbone's frozen stage once.
        5. Fine-tune, with live curves in MLflow.
        6. Package: every runtime, its parity and latency; the fastest is declared to be served.
        7. Evaluate the model, as it is served, on the audio of the test split.
        8. Register one version per model content. Never cached.
        9. Promote: the gate; the alias moves last. Never cached.
        10. Build the bento of what was promoted; otherwise skipped. Never cached.
        """
        resolved = resolve(source=source, corpus=corpus_settings, family=family, model=model_settings)
        prepare(resolved, "resolve", resources, image, local)

        ingested, parts = ingest_and_split(
            source,
            resolved.outputs["source_fingerprint"],
            corpus_settings,
            split_settings,
            resources,
            image,
            local,
        )

        # an input only where it is wanted: as an input, another split would be another entry of the cache
        of_split = {"split": parts.outputs["split"]} if resources.extract == "split" else {}
        extracted = extract_features(
            corpus=ingested.outputs["corpus"],
            representation=resolved.outputs["representation"],
            device=device,
            batch=batch,
            **of_split,
        )
        prepare(extracted, "extract_features", resources, image, local)

        tuned = fine_tune(
            corpus=ingested.outputs["corpus"],
            features=extracted.outputs["features"],
            split=parts.outputs["split"],
            family=family,
            settings=model_settings,
            backbone=resolved.outputs["backbone"],
            training=training_settings,
            experiment=experiment,
        )
        prepare(tuned, "fine_tune", resources, image, local)
        if not local:
            for variable, value in run_settings_variable(settings.training).items():
                tuned.set_env_variable(variable, value)

        packaged = package(
            model=tuned.outputs["model"],
            corpus=ingested.outputs["corpus"],
            split=parts.outputs["split"],
            settings=packaging_settings,
            runtime=runtime,
        )
        # what is to be served on a GPU is measured on one
        on_gpu = settings.serving.runtime == REFERENCE
        prepare(packaged, "package", resources, image, local, accelerated=on_gpu)

        evaluated = evaluate(
            packaged=packaged.outputs["packaged"],
            corpus=ingested.outputs["corpus"],
            split=parts.outputs["split"],
        )
        prepare(evaluated, "evaluate", resources, image, local)

        registered = register(
            packaged=packaged.outputs["packaged"],
            evaluation=evaluated.outputs["evaluation"],
            corpus=ingested.outputs["corpus"],
            split=parts.outputs["split"],
            run_id=tuned.outputs["Output"],
        )
        prepare(registered, "register", resources, image, local)

        promoted = promote(
            version=registered.outputs["version"],
            packaged=packaged.outputs["packaged"],
            evaluation=evaluated.outputs["evaluation"],
            corpus=ingested.outputs["corpus"],
            policy=gate_policy,
        )
        prepare(promoted, "promote", resources, image, local)

        version = registered.outputs["version"]
        build_if_promoted(promoted.outputs["Output"], version, runtime, resources, image, local)

        return Outcome(
            corpus=ingested.outputs["corpus"],
            split=parts.outputs["split"],
            evaluation=evaluated.outputs["evaluation"],
            run_id=tuned.outputs["Output"],
            version=registered.outputs["version"],
            created=registered.outputs["created"],
            decision=promoted.outputs["decision"],
            aliases=promoted.outputs["aliases"],
        )

    return training


def compile_to(path: Path, settings: RunSettings) -> None:
    """Write the pipeline for Kubeflow as YAML.

    Raises:
        SettingsError: a variable of the pods names an MLflow store on this machine.
    """
    write_pipeline(
        path,
        training_pipeline(settings, cluster_image()),
        settings.resources,
        reachability_warnings(settings),
        "a run",
        "every step holds the variables of resources.environment and its settings several times; shorten "
        "them.",
    )
