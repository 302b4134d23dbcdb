"""The files of a published model, in a folder: what genreflow loads, what transformers loads, the card."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genreflow.backbones.transformers.checkpoint import quiet
from genreflow.core import progress
from genreflow.core.digests import file_digest
from genreflow.core.documents import ModelDocument, PackagedDocument, PublishedDocument
from genreflow.core.errors import PublishError, one_line
from genreflow.families import family
from genreflow.fitting.contract import TransformersForm
from genreflow.inference.package_files import MODEL_FOLDER, read_reference, refuse_pickles
from genreflow.inference.parity import PARITY
from genreflow.publishing import card
from genreflow.registry import Version

STEP = "publish"
CARD = "README.md"
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
PRIVATE_TRAINING = ("checkpoint_uri", "notes")
"""Of the training settings, what may name places of the machine that trained."""


@dataclass(frozen=True)
class Published:
    """The result of publishing."""

    version: str
    url: str
    digest: str
    """sha256 of `published.json`, which lists that of every other file: `serving.fetch` verifies both."""
    visibility: str
    """`private`, `public`, or who decides."""
    uploaded: tuple[str, ...]
    """Files that were not there as they are now."""
    removed: tuple[str, ...]
    """Files of what was published there before."""
    notes: tuple[str, ...] = ()
    """Remarks for the user, a sentence each."""


def lay_out(
    version: Version, packaged: Path, address: str, out: Path, licence: str | None = None
) -> PublishedDocument:
    """Write the published form of a verified packaged model into `out`, an empty folder.

    Raises:
        ModelError: it holds what may be a pickle.
        PublishError: the form for transformers cannot be written.
    """
    refuse_pickles(packaged)
    read_reference(packaged)  # arrays alone: numpy's own format could hold pickled objects
    document = PackagedDocument.read(packaged)
    for name in document.files:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packaged / name, out / name)
    document = _without_places(document, out)
    form = _for_transformers(document, out)
    (out / CARD).write_text(card.model_card(version, document, form, address, licence))
    files = {
        path.relative_to(out).as_posix(): file_digest(path)
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }
    facts = published_facts(version)
    record = PublishedDocument(version=version.version, digest=document.digest, files=files, **facts)
    record.write(out)
    return record


def published_facts(version: Version) -> dict[str, Any]:
    """The accuracy on the test split, where evaluation recorded one, with its interval."""
    tags = version.tags
    if "accuracy_ci95" not in tags:
        return {}
    return {"accuracy": float(tags["accuracy"]), "accuracy_ci95": json.loads(tags["accuracy_ci95"])}


def _without_places(document: PackagedDocument, out: Path) -> PackagedDocument:
    """The documents without paths of the machine that trained: what is published may be read by all."""
    model = document.model
    settings = dict(model.settings)
    if isinstance(settings.get("backbone"), str):
        settings["backbone"] = backbone_name(settings["backbone"])
    public = model.model_copy(
        update={
            "settings": settings,
            "pretrained": None if model.pretrained is None else backbone_name(model.pretrained),
            "training": {
                name: value for name, value in model.training.items() if name not in PRIVATE_TRAINING
            },
        }
    )
    folder = out / MODEL_FOLDER
    public.write(folder)
    name = f"{MODEL_FOLDER}/{ModelDocument.file_name}"
    files = document.files | {name: file_digest(out / name)}
    published = document.model_copy(update={"model": public, "files": files})
    published.write(out)
    return published


def backbone_name(backbone: str) -> str:
    """A hub id as it is, of a folder its last part."""
    if HUB_ID.fullmatch(backbone) and not Path(backbone).is_dir():
        return backbone
    return Path(backbone).name


def _for_transformers(document: PackagedDocument, out: Path) -> TransformersForm | None:
    """Write the family's form for transformers, if any; its predictions are compared with the package's.

    Raises:
        PublishError: transformers does not give the package's answers with it.
    """
    model = document.model
    progress.report(STEP, "writing the form that transformers loads")
    form = family(model.family).export_transformers(out / MODEL_FOLDER, model, out)
    if form is None:
        return None
    difference = _difference(out, form)
    if not difference <= PARITY["f32"].probability_difference:  # NaN is not
        raise PublishError(
            f"In transformers' form version {document.digest[:12]} gives other answers: a probability is "
            f"{difference:.4f} off. It is not published; report it with the model's settings."
        )
    return form


def _difference(folder: Path, form: TransformersForm) -> float:
    """Largest difference of a probability on the reference windows, transformers' to the package's."""
    import torch

    inputs, expected = read_reference(folder)
    try:
        with quiet(), torch.inference_mode():
            model = _model_class(form).from_pretrained(folder, trust_remote_code=False).eval()
            logits = model(torch.from_numpy(inputs)).logits
    except (OSError, ValueError, RuntimeError) as error:
        raise PublishError(f"Transformers cannot load its form of this model: {one_line(error)}") from error
    return float(np.abs(torch.softmax(logits.float(), dim=-1).numpy() - expected).max())


def _model_class(form: TransformersForm) -> Any:
    """What loads it. Its own code is that of this library, which transformers would copy into its cache."""
    if form == "own_code":
        from genreflow.families.encoder.modeling_genreflow import GenreflowForAudioClassification

        return GenreflowForAudioClassification
    from transformers import AutoModelForAudioClassification

    return AutoModelForAudioClassification
