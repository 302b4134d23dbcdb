"""Register: one MLflow version per model content."""

from typing import NamedTuple

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(
    packaged: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    corpus: dsl.Input[dsl.Dataset],
    split: dsl.Input[dsl.Dataset],
    run_id: str,
) -> NamedTuple("Registered", [("version", str), ("created", bool)]):  # type: ignore[valid-type]
    """Register a packaged model with its evaluation and lineage; the same content is registered once.

    Args:
        packaged: From `package`.
        evaluation: From `evaluate`.
        corpus: From `ingest`.
        split: From `split`.
        run_id: The MLflow run that trained the model, from `fine_tune`.

    Returns:
        The version in the registry, and whether it is new.
    """
    from pathlib import Path

    from genreflow import steps

    registered = steps.register(
        Path(packaged.path), Path(evaluation.path), Path(corpus.path), Path(split.path), run_id
    )
    return registered.version, registered.created


if __name__ == "__main__":
    compiler.Compiler().compile(register, package_path=__file__.replace(".py", ".yaml"))
