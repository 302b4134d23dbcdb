"""The comparison pipeline: several families on one corpus and split, and the gate for the chosen one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from kfp import dsl

from components.compare import compare
from components.extract_features import extract_features
from components.image import cluster_image
from components.resolve_candidates import resolve_candidates
from components.train_candidate import train_candidate
from genreflow.families import family
from genreflow.fitting import RUN_SETTINGS, training_settings
from pipelines.comparison_settings import CandidateSettings, ComparisonSettings, features_of
from pipelines.kubeflow_yaml import write_pipeline
from pipelines.pods import prepare
from pipelines.reach import reachability_warnings, source_warnings
from pipelines.settings import run_settings_variable, without_run_settings
from pipelines.shared_steps import build_if_promoted, ingest_and_split
from pipelines.steps import Step, comparison_steps

NAME = "genreflow-comparison"


class Outcome(NamedTuple):
    """What a run of the pipeline hands back."""

    corpus: dsl.Dataset
    split: dsl.Dataset
    comparison: dsl.Artifact
    run_id: str
    version: str
    created: bool
    decision: str
    aliases: list


def steps_of(settings: ComparisonSettings) -> tuple[Step, ...]:
    """The pipeline's steps for these settings."""
    return comparison_steps([one.name for one in settings.candidates], features_of(settings.candidates))


def comparison_pipeline(settings: ComparisonSettings, image: str, local: bool = False) -> Callable[..., Any]:
    """The pipeline for these settings. What all candidates share are its parameters' defaults.

    Args:
        settings: what to train on what; candidates, their settings and all resources are compiled in.
        image: what the steps run in; on this machine only a part of the cache's keys.
        local: for `kfp.local`, which knows no accelerators and need not retry what fails for a reason.
    """
    shared, run = features_of(settings.candidates), settings.run
    names = ", ".join(one.name for one in settings.candidates)
    titles = {one.task_name: one.title for one in steps_of(settings)}
    defaults = {
        "corpus": run.corpus.ingest().model_dump_json(),
        "split": run.corpus.split().model_dump_json(),
        "packaging": run.packaging.model_dump_json(),
        "gate": run.gate.model_dump_json(),
    }
    candidates = [{"family": one.run.family, "model": _changed_model(one)} for one in settings.candidates]

    @dsl.pipeline(
        name=NAME,
        display_name=f"genreflow: compare {names}",
        description=f"Compares {names}: for others, compile or submit with --families.",
    )
    def comparison(
        source: str = run.source,
        experiment: str = run.experiment,
        corpus_settings: str = defaults["corpus"],
        split_settings: str = defaults["split"],
        packaging_settings: str = defaults["packaging"],
        gate_policy: str = defaults["gate"],
        runtime: str = run.serving.runtime,
        folds: int = settings.folds,
    ) -> Outcome:
        """From labelled music to a leaderboard of model families, and the chosen one through the gate.

        1. Resolve: fingerprint what lies behind the names of source and backbones. Never cached.
        2. Ingest: decode, check, quarantine, find duplicates.
        3. Split: train, validation and test clips.
        4. Extract features: once for all families of one representation.
        5. Train every family: fit, package, evaluate as it is served.
        6. Compare: the leaderboard. One candidate, chosen without the test split, is registered and goes
           through the gate; the alias moves last. Never cached.
        7. Build the bento of what was promoted; otherwise skipped. Never cached.
        """
        resources = run.resources
        # each input of a step makes the workflow heavier: these are given where they are used
        other = {"also_test": settings.also_test} if settings.also_test else {}
        resolved = resolve_candidates(
            source=source, corpus=corpus_settings, candidates=_compact(candidates), **other
        )
        prepare(resolved, "resolve_candidates", resources, image, local)

        ingested, parts = ingest_and_split(
            source,
            resolved.outputs["source_fingerprint"],
            corpus_settings,
            split_settings,
            resources,
            image,
            local,
        )

        extracted: dict[int, dsl.PipelineTask] = {}
        trained = []
        for at, one in enumerate(settings.candidates):
            own = one.run.resources
            if shared[at] == at:
                of_split = {"split": parts.outputs["split"]} if own.extract == "split" else {}
                task = extract_features(
                    corpus=ingested.outputs["corpus"],
                    representation=resolved.outputs[f"representation_{at + 1}"],
                    device=own.device,
                    batch=own.batch,
                    **of_split,
                )
                prepare(task, "extract_features", own, image, local, title=titles[task.name])
                extracted[at] = task
            task = train_candidate(
                corpus=ingested.outputs["corpus"],
                features=extracted[shared[at]].outputs["features"],
                split=parts.outputs["split"],
                settings=_compact({"name": one.name, **candidates[at], "training": _changed_training(one)}),
                backbone=resolved.outputs[f"backbone_{at + 1}"],
                packaging=packaging_settings,
                runtime=runtime,
                experiment=experiment,
                folds=folds,
            )
            prepare(task, "train_candidate", own, image, local, title=titles[task.name])
            if not local:
                for variable, value in run_settings_variable(_changed_run_settings(one)).items():
                    task.set_env_variable(variable, value)
            trained.append(task)

        further: dict[str, Any] = {}
        if settings.also_test or settings.robustness:
            further = {"further": _compact({**other, "robustness": settings.robustness})}
        compared = compare(
            corpus=ingested.outputs["corpus"],
            experiment=experiment,
            **further,
            policy=gate_policy,
            **{f"candidate_{at + 1}": task.outputs["candidate"] for at, task in enumerate(trained)},
        )
        prepare(compared, "compare", resources, image, local, reads=list(other.values()))

        version = compared.outputs["version"]
        build_if_promoted(compared.outputs["Output"], version, runtime, resources, image, local)

        return Outcome(
            corpus=ingested.outputs["corpus"],
            split=parts.outputs["split"],
            comparison=compared.outputs["comparison"],
            run_id=compared.outputs["run_id"],
            version=compared.outputs["version"],
            created=compared.outputs["created"],
            decision=compared.outputs["decision"],
            aliases=compared.outputs["aliases"],
        )

    return comparison


def compile_to(path: Path, settings: ComparisonSettings) -> None:
    """Write the pipeline for Kubeflow as YAML.

    Raises:
        SettingsError: a variable of the pods names an MLflow store on this machine.
    """
    found = [warning for run in settings.runs for warning in reachability_warnings(run)]
    if settings.also_test:
        found += source_warnings("--also-test", settings.also_test, settings.resources)
    write_pipeline(
        path,
        comparison_pipeline(settings, cluster_image()),
        settings.run.resources,
        found,
        "a comparison",
        "every step holds the variables of resources.environment several times; shorten them, or compare in "
        "two parts.",
        compact=True,
    )


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _changed_model(candidate: CandidateSettings) -> dict[str, Any]:
    """The model settings that differ from the family's defaults: the workflow holds what steps are given."""
    kind = family(candidate.run.family)
    return kind.settings(candidate.run.model).model_dump(mode="json", exclude_defaults=True)


def _changed_training(candidate: CandidateSettings) -> dict[str, Any]:
    """The training settings that differ from the family's defaults and change the result."""
    return without_run_settings(_changed(candidate))


def _changed_run_settings(candidate: CandidateSettings) -> dict[str, Any]:
    """The training settings that differ from the family's defaults and say where and how a fit runs."""
    return {key: value for key, value in _changed(candidate).items() if key in RUN_SETTINGS}


def _changed(candidate: CandidateSettings) -> dict[str, Any]:
    kind = family(candidate.run.family)
    usual = training_settings(kind, kind.settings(candidate.run.model), {}).model_dump(mode="json")
    return {key: value for key, value in candidate.run.training.items() if value != usual[key]}
