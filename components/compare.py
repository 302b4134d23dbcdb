"""Compare: the leaderboard of candidates; the chosen one is registered and goes through the gate."""

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def compare(
    corpus: dsl.Input[dsl.Dataset],
    experiment: str,
    policy: str,
    comparison: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    run_id: dsl.OutputPath(str),  # type: ignore[valid-type]
    version: dsl.OutputPath(str),  # type: ignore[valid-type]
    created: dsl.OutputPath(bool),  # type: ignore[valid-type]
    decision: dsl.OutputPath(str),  # type: ignore[valid-type]
    aliases: dsl.OutputPath(list),  # type: ignore[valid-type]
    candidate_1: dsl.Input[dsl.Model] = None,
    candidate_2: dsl.Input[dsl.Model] = None,
    candidate_3: dsl.Input[dsl.Model] = None,
    candidate_4: dsl.Input[dsl.Model] = None,
    candidate_5: dsl.Input[dsl.Model] = None,
    candidate_6: dsl.Input[dsl.Model] = None,
    candidate_7: dsl.Input[dsl.Model] = None,
    candidate_8: dsl.Input[dsl.Model] = None,
    further: str = "{}",
) -> bool:
    """Rank candidates by validation or out-of-fold predictions, log them to MLflow, register and promote one.

    One step: each costs a Kubernetes workflow some 50 kB.

    Args:
        corpus: From `ingest`.
        experiment: The MLflow experiment of the comparison's run.
        policy: The gate's policy, as JSON.
        comparison: The leaderboard as JSON, its report and plots.
        report: One self-contained page.
        run_id: The MLflow run that trained the chosen candidate.
        version: The chosen candidate's version in the registry.
        created: Whether it is new.
        decision: The gate's decision as JSON (`promote`, `verdict`, `reason`, `numbers`).
        aliases: The aliases the version has now.
        candidate_1: From `train_candidate`, and so on.
        further: JSON of what the best two are tested on besides: `also_test` (a source of other labelled
            clips) and `robustness` (true for distorted test clips).

    Returns:
        Whether the version's bento is to be built: it was promoted now, or is champion and has none yet.
    """
    import json
    from pathlib import Path

    from genreflow import steps

    given = [
        candidate_1,
        candidate_2,
        candidate_3,
        candidate_4,
        candidate_5,
        candidate_6,
        candidate_7,
        candidate_8,
    ]

    document, promoted = steps.compare(
        [Path(one.path) for one in given if one is not None],
        Path(corpus.path),
        Path(comparison.path),
        experiment,
        json.loads(policy),
        **json.loads(further),
    )
    report.metadata["result"] = document.headline
    # An artifact without a file counts as lost.
    Path(report.path).write_bytes((Path(comparison.path) / "report.html").read_bytes())
    Path(run_id).write_text(promoted.run_id)
    Path(version).write_text(promoted.version)
    Path(created).write_text(json.dumps(promoted.created))
    Path(decision).write_text(promoted.decision.model_dump_json())
    Path(aliases).write_text(json.dumps(promoted.aliases))
    return promoted.to_build


if __name__ == "__main__":
    compiler.Compiler().compile(compare, package_path=__file__.replace(".py", ".yaml"))
