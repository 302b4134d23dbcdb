"""genreflow: from labelled music to a served genre classifier, with its evaluation and lineage."""

from typing import TYPE_CHECKING

from genreflow.core.version import VERSION as __version__

if TYPE_CHECKING:
    from genreflow.inference.classifier import Classifier


__all__ = ["__version__", "load"]


def load(model: str = "champion", runtime: str = "auto") -> "Classifier":
    """Load a classifier: a registry alias or version (`champion`, `3`), a packaged model's folder, or a
    published one (`hf://owner/name`, `s3://bucket/prefix`).

    Raises:
        GenreflowError: there is no such model, or it cannot be loaded here.
    """
    from pathlib import Path

    from genreflow.inference.loading import load_classifier

    folder = Path(model)
    if model.startswith(("hf://", "s3://")):
        from genreflow import publishing

        folder = publishing.fetch(model)
    elif not folder.is_dir():
        from genreflow import registry

        folder = registry.fetch(model)
    return load_classifier(folder, runtime=runtime)
