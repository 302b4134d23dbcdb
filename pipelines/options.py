"""Options and arguments that several commands have in common."""

from pathlib import Path
from typing import Annotated

import typer

from genreflow.families import built_in

Host = Annotated[
    str, typer.Option(envvar="KF_PIPELINES_ENDPOINT", help="The URL of the Kubeflow Pipelines API.")
]
Namespace = Annotated[str | None, typer.Option(help="Your namespace in a multi-user installation.")]
CaCert = Annotated[
    Path | None, typer.Option(help="Certificates (PEM) of an authority to trust besides the public ones.")
]
Components = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Write the pipelines' components there, each as YAML with a README."),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the run has ended.")]
Retries = Annotated[int, typer.Option(min=0, help="With --wait: retries after a step whose pod was ended.")]

Profile = Annotated[
    str | None,
    typer.Option(
        help="quickstart, music, gtzan-mini, gtzan, or a YAML file; music where a source of real music is "
        "named and neither family nor backbone, else quickstart."
    ),
]
Source = Annotated[
    str | None,
    typer.Option(
        help="A folder with one folder of clips per genre, an archive of one, a table, s3://, hf://, gtzan, "
        "gtzan-mini or synthetic."
    ),
]
Family = Annotated[
    str | None,
    typer.Option(help=f"The model family: {', '.join(built_in())}; see docs/families.md."),
]
Backbone = Annotated[
    str | None, typer.Option(help="Pretrained weights: a hub id, a folder, musicnn, or descriptors for none.")
]
Protocol = Annotated[
    str | None,
    typer.Option(help="How clips are split: auto, folders, fault-filtered, artist, random, grouped, all."),
]
CheckpointUri = Annotated[
    str | None,
    typer.Option(help="Copy checkpoints to s3://BUCKET/PREFIX; or a folder to keep them in."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as training.epochs=3; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
Model = Annotated[
    str,
    typer.Option(
        help="A registry alias or version, a packaged model's folder, or a published one: hf://, s3://."
    ),
]
Alias = Annotated[str, typer.Option("--model", help="A registry alias or version.")]
Runtime = Annotated[
    str,
    typer.Option(
        help="Runtime: openvino (on the CPU), pytorch (on a GPU where there is one), of family shallow "
        "onnxruntime or sklearn, or auto: what the model was evaluated with, the fastest when packaged."
    ),
]
Page = Annotated[bool, typer.Option(help="Include the web page; without it the image is smaller.")]
Reason = Annotated[str | None, typer.Option(help="Reason, kept with the version in the registry.")]
