"""Resolve: the fingerprint of what lies behind the source's name."""

from typing import NamedTuple

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def resolve(source: str, genres: str, backbone: str) -> NamedTuple(  # type: ignore[valid-type]
    "Fingerprints", [("source_fingerprint", str), ("backbone_fingerprint", str)]
):
    """List the source, so that a change in it reaches the cache keys of the steps behind.

    Args:
        source: A source's name, such as `synthetic` or a folder.
        genres: The genre labels in order, as JSON.
        backbone: A hub id or folder of pretrained weights; empty where trained from scratch.

    Returns:
        The fingerprints of the source's listing and of the backbone.
    """
    import json

    from genreflow import steps

    return steps.resolve(source, json.loads(genres), backbone or None)


if __name__ == "__main__":
    compiler.Compiler().compile(resolve, package_path=__file__.replace(".py", ".yaml"))
