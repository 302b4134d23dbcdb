"""Fine-tune: train on the features, with live curves in MLflow."""

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fine_tune(
    corpus: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Dataset],
    split: dsl.Input[dsl.Dataset],
    family: str,
    settings: str,
    backbone: str,
    training: str,
    experiment: str,
    model: dsl.Output[dsl.Model],
) -> str:
    """Train one model.

    Args:
        corpus: From `ingest`; read where augmented copies of training clips are made.
        features: From `extract_features`.
        split: From `split`.
        family: The model family's name.
        settings: The family's own settings, as JSON.
        backbone: From `resolve`; other weights behind the same name are trained again.
        training: Training settings, as JSON.
        experiment: The MLflow experiment of the run that is opened here, unless the platform has opened one.
        model: The family's native files and what the model is.

    Returns:
        The id of the MLflow run that trained it; from the cache, the run that really did.
    """
    import json
    from pathlib import Path

    from genreflow import steps

    document = steps.fine_tune(
        Path(features.path),
        Path(split.path),
        Path(model.path),
        family,
        json.loads(settings),
        json.loads(training),
        experiment,
        corpus=Path(corpus.path),
        backbone=backbone,
    )
    model.metadata["family"] = document.family
    model.metadata["pretrained"] = document.pretrained or "from scratch"
    model.metadata["synthetic"] = document.synthetic
    model.metadata["corpus_fingerprint"] = document.corpus_fingerprint
    return document.run_id or ""


if __name__ == "__main__":
    compiler.Compiler().compile(fine_tune, package_path=__file__.replace(".py", ".yaml"))
