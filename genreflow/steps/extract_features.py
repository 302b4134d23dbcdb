"""Extract features: a representation of clips, computed once."""

from pathlib import Path

from genreflow.core.documents import FeaturesDocument, Representation
from genreflow.steps.reporting import report_step


def extract_features(
    corpus: Path,
    representation: str,
    out: Path,
    device: str = "auto",
    batch: int = 8,
    split: Path | None = None,
) -> FeaturesDocument:
    """Compute a representation of clips, once for all that is trained on it.

    Args:
        corpus: the corpus artifact's folder.
        representation: from `resolve`.
        out: the features artifact's folder.
        device: `auto`, `cpu` or `cuda`.
        batch: windows computed at once.
        split: the split artifact whose training and validation clips alone are wanted; every clip without.
    """
    from genreflow import extraction

    with report_step("extract_features", out, corpus=corpus, split=split):
        wanted = Representation.model_validate_json(representation)
        return extraction.extract(corpus, wanted, out, device=device, batch=batch, split=split)
