"""Ingest: decode, check, quarantine, find duplicates."""

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(source: str, source_fingerprint: str, settings: str, corpus: dsl.Output[dsl.Dataset]) -> None:
    """Make the corpus of a source.

    Args:
        source: A source's name, such as `synthetic` or a folder.
        source_fingerprint: From `resolve`; a changed source is ingested again.
        settings: Of ingest, as JSON: genres and what is refused.
        corpus: Decoded clips, manifest, quarantine.
    """
    import json
    from pathlib import Path

    from genreflow import steps

    document = steps.ingest(source, source_fingerprint, json.loads(settings), Path(corpus.path))
    corpus.metadata["fingerprint"] = document.fingerprint
    corpus.metadata["clips"] = document.clips
    corpus.metadata["synthetic"] = document.synthetic
    corpus.metadata["quarantined"] = document.quarantined


if __name__ == "__main__":
    compiler.Compiler().compile(ingest, package_path=__file__.replace(".py", ".yaml"))
