"""Extract features: a representation of clips, its frozen stage once."""

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def extract_features(
    corpus: dsl.Input[dsl.Dataset],
    representation: str,
    device: str,
    batch: int,
    features: dsl.Output[dsl.Dataset],
    split: dsl.Input[dsl.Dataset] = None,
) -> None:
    """Cut windows, compute their representation and the backbone's frozen stage.

    Args:
        corpus: From `ingest`.
        representation: From `resolve`; other weights behind the same name are extracted again.
        device: `auto`, `cpu` or `cuda`.
        batch: Windows computed at once.
        features: Memory-mapped windows with their index.
        split: From `split`, where its training and validation clips alone are wanted; else every clip is.
    """
    from pathlib import Path

    from genreflow import steps

    document = steps.extract_features(
        Path(corpus.path),
        representation,
        Path(features.path),
        device=device,
        batch=batch,
        split=None if split is None else Path(split.path),
    )
    features.metadata.update(
        fingerprint=document.fingerprint, stage=document.representation.stage, windows=document.windows
    )


if __name__ == "__main__":
    compiler.Compiler().compile(extract_features, package_path=__file__.replace(".py", ".yaml"))
