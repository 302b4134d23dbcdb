"""Split: train, validation and test clips of a corpus."""

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def split(corpus: dsl.Input[dsl.Dataset], settings: str, split: dsl.Output[dsl.Dataset]) -> None:
    """Assign every clip of a corpus to train, validation, test or none of them.

    Args:
        corpus: From `ingest`.
        settings: Of the split, as JSON: protocol, fold, seed.
        split: A table of clip ids with their split, and what is leaky about it.
    """
    import json
    from pathlib import Path

    from genreflow import steps

    document = steps.split(Path(corpus.path), json.loads(settings), Path(split.path))
    split.metadata["fingerprint"] = document.fingerprint
    split.metadata["protocol"] = document.protocol
    split.metadata["leaky"] = document.leaky
    for name, clips in document.counts.items():
        split.metadata[f"clips_{name}"] = clips


if __name__ == "__main__":
    compiler.Compiler().compile(split, package_path=__file__.replace(".py", ".yaml"))
