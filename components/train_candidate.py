"""Train candidate: one family of a comparison, fitted, packaged and evaluated."""

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_candidate(
    corpus: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Dataset],
    split: dsl.Input[dsl.Dataset],
    settings: str,
    backbone: str,
    packaging: str,
    runtime: str,
    experiment: str,
    folds: int,
    candidate: dsl.Output[dsl.Model],
) -> None:
    """Fit a family, package it, evaluate it as it is served, and predict what it is chosen by.

    One step: each costs a Kubernetes workflow some 50 kB.

    Args:
        corpus: From `ingest`.
        features: From `extract_features`.
        split: From `split`.
        settings: The candidate's, as JSON: `name`, `family`, `model` and `training`.
        backbone: From `resolve_candidates`.
        packaging: Of packaging, as JSON.
        runtime: The one to be served; `auto` is the fastest that passed parity.
        experiment: The MLflow experiment of the run that is opened here.
        folds: Of a cross-validation over the clips outside the test split; 0 for none.
        candidate: `candidate.json`, `packaged`, `evaluation` and further predictions.
    """
    import json
    from pathlib import Path

    from genreflow import steps

    document = steps.train_candidate(
        Path(corpus.path),
        Path(features.path),
        Path(split.path),
        Path(candidate.path),
        json.loads(settings),
        backbone,
        json.loads(packaging),
        runtime,
        experiment,
        folds,
    )
    candidate.metadata.update(family=document.family, run=document.run_id or "")


if __name__ == "__main__":
    compiler.Compiler().compile(train_candidate, package_path=__file__.replace(".py", ".yaml"))
