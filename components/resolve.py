"""Resolve: the fingerprint of what lies behind the source's name."""

from typing import NamedTuple

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def resolve(source: str, corpus: str, model: str) -> NamedTuple(  # type: ignore[valid-type]
    "Fingerprints", [("source_fingerprint", str), ("backbone_fingerprint", str)]
):
    """List the source, so that a change in it reaches the cache keys of the steps behind.

    Args:
        source: A source's name, such as `synthetic` or a folder.
        corpus: Of the corpus, as JSON; its genres say what is listed.
        model: The family's own settings, as JSON; they name the backbone, where there is one.

    Returns:
        The fingerprints of the source's listing and of the backbone.
    """
    import json

    from genreflow import steps

    return steps.resolve(source, json.loads(corpus), json.loads(model))


if __name__ == "__main__":
    compiler.Compiler().compile(resolve, package_path=__file__.replace(".py", ".yaml"))
