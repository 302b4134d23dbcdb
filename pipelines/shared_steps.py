"""The steps that training and comparison have in common: ingest, split, and at the end build."""

from typing import Any

from kfp import dsl

from components.build import build
from components.ingest import ingest
from components.split import split
from pipelines.pods import prepare
from pipelines.resources import Resources


def ingest_and_split(
    source: Any,
    fingerprint: Any,
    corpus_settings: Any,
    split_settings: Any,
    resources: Resources,
    image: str,
    local: bool,
) -> "tuple[dsl.PipelineTask, dsl.PipelineTask]":
    """The tasks that make the corpus and its split.

    Args:
        source, corpus_settings, split_settings: parameters of the pipeline.
        fingerprint: of the source, from the step that resolved it.
    """
    ingested = ingest(source=source, source_fingerprint=fingerprint, settings=corpus_settings)
    prepare(ingested, "ingest", resources, image, local)
    parts = split(corpus=ingested.outputs["corpus"], settings=split_settings)
    prepare(parts, "split", resources, image, local)
    return ingested, parts


def build_if_promoted(
    promoted: Any, version: Any, runtime: Any, resources: Resources, image: str, local: bool
) -> None:
    """The task that builds the bento of a version, where a step's output is that it was promoted.

    Args:
        promoted, version: outputs of steps.
        runtime: parameter of the pipeline.
    """
    with dsl.If(promoted == True, name="promoted"):  # noqa: E712
        built = build(version=version, runtime=runtime, export=not local)
        prepare(built, "build", resources, image, local)
