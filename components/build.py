"""Build: the bento of a version that was promoted."""

from kfp import compiler, dsl

from components.image import BUILD_IMAGE


@dsl.component(base_image=BUILD_IMAGE, install_kfp_package=False)
def build(version: str, runtime: str, export: bool, bento: dsl.Output[dsl.Artifact]) -> str:
    """Build the bento of a registered version; where it is built already, nothing is done twice.

    Args:
        version: The version in the registry, from `register`.
        runtime: What answers: openvino, pytorch or auto.
        export: Whether the bento store ends with this step, as a pod's does: the bento is then exported.
        bento: A folder with `genreflow.tar`, for `bentoml import`; nothing where it is not exported.

    Returns:
        The bento's tag.
    """
    from pathlib import Path

    from serving.build import build_step

    return build_step(version, Path(bento.path) if export else None, runtime)


if __name__ == "__main__":
    compiler.Compiler().compile(build, package_path=__file__.replace(".py", ".yaml"))
