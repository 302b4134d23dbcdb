"""Package: the model in the form that is served."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genreflow.core.documents import PackagedDocument, PackagingSettings
from genreflow.steps.reporting import report_step


def package(
    model: Path, corpus: Path, split: Path, out: Path, settings: Mapping[str, Any], runtime: str = "auto"
) -> PackagedDocument:
    """The model in the form that is served; parity and latency of every runtime on real windows.

    Args:
        settings: of `PackagingSettings`.
        runtime: the one to be served; `auto` is the fastest that passed parity.
    """
    from genreflow import packaging

    with report_step("package", out, model=model, corpus=corpus, split=split):
        chosen = PackagingSettings.model_validate(dict(settings))
        return packaging.package(model, corpus, split, out, chosen, runtime)
