"""Resolve candidates: fingerprints of what lies behind the names of the source and of all backbones."""

from kfp import compiler, dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def resolve_candidates(
    source: str,
    corpus: str,
    candidates: str,
    source_fingerprint: dsl.OutputPath(str),  # type: ignore[valid-type]
    representation_1: dsl.OutputPath(str),  # type: ignore[valid-type]
    representation_2: dsl.OutputPath(str),  # type: ignore[valid-type]
    representation_3: dsl.OutputPath(str),  # type: ignore[valid-type]
    representation_4: dsl.OutputPath(str),  # type: ignore[valid-type]
    representation_5: dsl.OutputPath(str),  # type: ignore[valid-type]
    representation_6: dsl.OutputPath(str),  # type: ignore[valid-type]
    representation_7: dsl.OutputPath(str),  # type: ignore[valid-type]
    representation_8: dsl.OutputPath(str),  # type: ignore[valid-type]
    backbone_1: dsl.OutputPath(str),  # type: ignore[valid-type]
    backbone_2: dsl.OutputPath(str),  # type: ignore[valid-type]
    backbone_3: dsl.OutputPath(str),  # type: ignore[valid-type]
    backbone_4: dsl.OutputPath(str),  # type: ignore[valid-type]
    backbone_5: dsl.OutputPath(str),  # type: ignore[valid-type]
    backbone_6: dsl.OutputPath(str),  # type: ignore[valid-type]
    backbone_7: dsl.OutputPath(str),  # type: ignore[valid-type]
    backbone_8: dsl.OutputPath(str),  # type: ignore[valid-type]
    also_test: str = "",
) -> None:
    """Fingerprint what lies behind the names of the source and of the candidates' backbones.

    One step for all: each of its own would list the source again. An output holds a single candidate's, as
    a changed backbone is to train that candidate alone again.

    Args:
        source: A source's name, such as `synthetic` or a folder.
        corpus: Of ingest, as JSON.
        candidates: A JSON list of objects with `family` and `model`, at most eight.
        source_fingerprint: Of what the source holds now.
        representation_1: Of the first candidate, as `resolve` gives it, and so on; empty without a candidate.
        backbone_1: Of the first candidate, as `resolve` gives it, and so on.
        also_test: Another source that `compare` is to score candidates on, only listed here; empty for none.
    """
    import json
    from pathlib import Path

    from genreflow import steps

    places = [
        (representation_1, backbone_1),
        (representation_2, backbone_2),
        (representation_3, backbone_3),
        (representation_4, backbone_4),
        (representation_5, backbone_5),
        (representation_6, backbone_6),
        (representation_7, backbone_7),
        (representation_8, backbone_8),
    ]
    fingerprint, found = steps.resolve_candidates(
        source, json.loads(corpus), json.loads(candidates), also_test or None
    )
    Path(source_fingerprint).write_text(fingerprint)
    for at, (representation, backbone) in enumerate(places):
        resolved = found[at] if at < len(found) else ("", "")
        Path(representation).write_text(resolved[0])
        Path(backbone).write_text(resolved[1])


if __name__ == "__main__":
    compiler.Compiler().compile(resolve_candidates, package_path=__file__.replace(".py", ".yaml"))
