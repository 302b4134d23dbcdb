"""Package: the model in the form that is served, with parity and latency of every runtime."""

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def package(
    model: dsl.Input[dsl.Model],
    corpus: dsl.Input[dsl.Dataset],
    split: dsl.Input[dsl.Dataset],
    settings: str,
    runtime: str,
    packaged: dsl.Output[dsl.Model],
) -> None:
    """Export the model to every runtime it supports and measure each on real windows.

    Args:
        model: From `fine_tune`.
        corpus: From `ingest`; reference windows are taken from it.
        split: From `split`.
        settings: Of packaging, as JSON.
        runtime: The one to be served; `auto` is the fastest that passed parity.
        packaged: Model, runtimes, reference windows, parity and latency.
    """
    import json
    from pathlib import Path

    from genreflow import steps

    document = steps.package(
        Path(model.path),
        Path(corpus.path),
        Path(split.path),
        Path(packaged.path),
        json.loads(settings),
        runtime,
    )
    packaged.metadata["digest"] = document.digest
    packaged.metadata["served with"] = document.served.label
    for measured in document.runtimes:
        name = f"{measured.name} {measured.precision}"
        packaged.metadata[f"{name} usable"] = measured.usable
        packaged.metadata[f"{name} latency_ms_p50"] = measured.latency_ms_p50


if __name__ == "__main__":
    compiler.Compiler().compile(package, package_path=__file__.replace(".py", ".yaml"))
