"""Extract features: what one family trains on, its expensive frozen part once."""

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def extract_features(
    corpus: dsl.Input[dsl.Dataset],
    family: str,
    settings: str,
    backbone_fingerprint: str,
    device: str,
    batch: int,
    features: dsl.Output[dsl.Dataset],
) -> None:
    """Cut windows, compute their representation and the model's frozen part.

    Args:
        corpus: From `ingest`.
        family: The model family's name.
        settings: The family's own settings, as JSON.
        backbone_fingerprint: From `resolve`; other weights behind the same name are extracted again.
        device: `auto`, `cpu` or `cuda`.
        batch: Windows computed at once.
        features: Memory-mapped windows with their index.
    """
    import json
    from pathlib import Path

    from genreflow import steps

    document = steps.extract_features(
        Path(corpus.path), family, json.loads(settings), Path(features.path), device=device, batch=batch
    )
    features.metadata["fingerprint"] = document.fingerprint
    features.metadata["family"] = document.family
    features.metadata["stage"] = document.stage
    features.metadata["windows"] = document.windows


if __name__ == "__main__":
    compiler.Compiler().compile(extract_features, package_path=__file__.replace(".py", ".yaml"))
