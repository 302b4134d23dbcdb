"""Evaluate: the packaged model, as it is served, on the audio of the test split."""

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    packaged: dsl.Input[dsl.Model],
    corpus: dsl.Input[dsl.Dataset],
    split: dsl.Input[dsl.Dataset],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Predict the test clips with the model as it is served: figures with intervals, report.

    Args:
        packaged: From `package`.
        corpus: From `ingest`.
        split: From `split`.
        evaluation: Predictions per window and clip, figures, plots, report.
        metrics: The headline figures.
        confusion: The confusion matrix over clips.
        report: One self-contained page.
    """
    import json
    from pathlib import Path

    from genreflow import steps

    document = steps.evaluate(Path(packaged.path), Path(corpus.path), Path(split.path), Path(evaluation.path))
    figures = document.scalars()
    for name, value in figures.items():
        metrics.log_metric(name, value)
    matrix = [list(row) for row in document.confusion.matrix]
    confusion.log_confusion_matrix(list(document.confusion.genres), matrix)
    report.metadata["result"] = document.headline
    report.metadata["scored with"] = document.scored_with
    # An artifact without a file counts as lost, and its step would never be taken from the cache.
    Path(metrics.path).write_text(json.dumps(figures))
    Path(confusion.path).write_text(json.dumps({"genres": document.confusion.genres, "matrix": matrix}))
    Path(report.path).write_bytes((Path(evaluation.path) / "report.html").read_bytes())


if __name__ == "__main__":
    compiler.Compiler().compile(evaluate, package_path=__file__.replace(".py", ".yaml"))
