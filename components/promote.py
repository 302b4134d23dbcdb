"""Promote: the gate, and the champion's alias last."""

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(
    version: str,
    packaged: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    corpus: dsl.Input[dsl.Dataset],
    policy: str,
    decision: dsl.OutputPath(str),  # type: ignore[valid-type]
    aliases: dsl.OutputPath(list),  # type: ignore[valid-type]
) -> bool:
    """Compare a registered version with the champion on clips that neither has seen, and decide.

    What decides whether a bento is built is the value returned: conditions in kfp.local know no output with a
    name of its own.

    Args:
        version: The candidate's version, from `register`.
        packaged: The candidate, from `package`.
        evaluation: The candidate's evaluation, from `evaluate`.
        corpus: From `ingest`.
        policy: The gate's policy, as JSON.
        decision: The decision as JSON (`promote`, `verdict`, `reason`, `numbers`).
        aliases: The aliases the version has now.

    Returns:
        Whether the version's bento is to be built: it was promoted now, or is champion and has none yet.
    """
    import json
    from pathlib import Path

    from genreflow import steps

    decided, now, to_build = steps.promote(
        version, Path(packaged.path), Path(evaluation.path), Path(corpus.path), json.loads(policy)
    )
    Path(decision).write_text(decided.model_dump_json())
    Path(aliases).write_text(json.dumps(now))
    return to_build


if __name__ == "__main__":
    compiler.Compiler().compile(promote, package_path=__file__.replace(".py", ".yaml"))
