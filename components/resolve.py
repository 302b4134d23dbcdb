"""Resolve: fingerprints of what lies behind the names of source and backbone."""

from typing import NamedTuple

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def resolve(source: str, corpus: str, family: str, model: str) -> NamedTuple(  # type: ignore[valid-type]
    "Fingerprints", [("source_fingerprint", str), ("representation", str), ("backbone", str)]
):
    """List the source, so that a change in it reaches the cache keys of the steps behind.

    Args:
        source: A source's name, such as `synthetic` or a folder.
        corpus: Of the corpus, as JSON; its genres say what is listed.
        family: The model family's name.
        model: The family's own settings, as JSON; they name the backbone, where there is one.

    Returns:
        The fingerprint of the source's listing; what `extract_features` computes, as JSON; the digest of the
        backbone's weights, empty where there are none.
    """
    import json

    from genreflow import steps

    return steps.resolve(source, json.loads(corpus), family, json.loads(model))


if __name__ == "__main__":
    compiler.Compiler().compile(resolve, package_path=__file__.replace(".py", ".yaml"))
