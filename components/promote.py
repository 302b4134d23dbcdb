"""Promote: the gate, and the champion's alias last."""

from typing import NamedTuple

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(
    version: str,
    packaged: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    corpus: dsl.Input[dsl.Dataset],
    policy: str,
) -> NamedTuple("Promotion", [("decision", str), ("aliases", list)]):  # type: ignore[valid-type]
    """Compare a registered version with the champion on clips that neither has seen, and decide.

    Args:
        version: The candidate's version, from `register`.
        packaged: The candidate, from `package`.
        evaluation: The candidate's evaluation, from `evaluate`.
        corpus: From `ingest`.
        policy: The gate's policy, as JSON.

    Returns:
        The decision as JSON (`promote`, `verdict`, `reason`, `numbers`), and the aliases the version has now.
    """
    import json
    from pathlib import Path

    from genreflow import steps

    decision, aliases = steps.promote(
        version, Path(packaged.path), Path(evaluation.path), Path(corpus.path), json.loads(policy)
    )
    return decision.model_dump_json(), list(aliases)


if __name__ == "__main__":
    compiler.Compiler().compile(promote, package_path=__file__.replace(".py", ".yaml"))
