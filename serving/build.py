"""The bento of a registered model: its packaged files under a pinned tag, the service, the core library."""

import shutil
import tempfile
from importlib.metadata import requires, version
from pathlib import Path

import bentoml
from packaging.requirements import Requirement

import genreflow
from genreflow import registry
from genreflow.artifacts import PackagedDocument, code_digest, file_digest, text_digest
from genreflow.registry.registration import pytorch_requirements

NAME = "genreflow"
DIGEST_CHARACTERS = 12
CODE_CHARACTERS = 8
MODEL_TAG_FILE = "MODEL_TAG"
SERVICE = "service:GenreClassifier"
"""In the bento the service is a module of its own, beside the library that it stands on."""


def import_model(model: str = "champion") -> bentoml.Model:
    """The registered model of that alias or version in BentoML's model store, imported where it is missing.

    Raises:
        RegistryError: there is no such model.
    """
    registered = registry.version(model)  # once: the alias may move meanwhile
    folder = registry.fetch(registered.version)
    document = PackagedDocument.read(folder)
    tag = f"{NAME}:v{registered.version}-{document.digest[:DIGEST_CHARACTERS]}"
    labels = {
        "version": registered.version,
        "digest": document.digest,
        "family": document.model.family,
        "protocol": document.model.protocol,
        "corpus_fingerprint": document.model.corpus_fingerprint,
        "synthetic": str(document.model.synthetic).lower(),
    }
    try:
        return bentoml.models.get(tag)
    except bentoml.exceptions.NotFound:
        with bentoml.models.create(tag, labels=labels) as stored:
            shutil.copytree(folder, stored.path, dirs_exist_ok=True)
        return stored


def build(model: str = "champion") -> bentoml.Bento:
    """Build the bento of a registered model, or return it where it is built already.

    It carries no torch and no transformers where OpenVINO serves the model, and both where only PyTorch does.

    Raises:
        RegistryError: there is no such model.
    """
    stored = import_model(model)
    # The service's code is part of the bento: the same model under changed code is another bento.
    service = Path(__file__).parent / "service.py"
    requirements = [Requirement(line) for line in requires("genreflow") or []]
    core = [f"{need.name}=={version(need.name)}" for need in requirements if need.marker is None]
    packages = [*core, *pytorch_requirements(PackagedDocument.read(Path(stored.path)))]
    code = text_digest([code_digest(), file_digest(service), *packages])
    tag = f"{NAME}:{stored.tag.version}-{code[:CODE_CHARACTERS]}"
    try:
        return bentoml.bentos.get(tag)
    except bentoml.exceptions.NotFound:
        pass
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        library = Path(str(genreflow.__file__)).parent
        shutil.copytree(library, context / library.name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(service, context)
        (context / MODEL_TAG_FILE).write_text(str(stored.tag) + "\n")
        return bentoml.build(
            SERVICE,
            name=NAME,
            version=tag.partition(":")[2],
            labels=dict(stored.info.labels),
            include=["genreflow/**", "service.py", MODEL_TAG_FILE],
            python={"packages": [*packages, f"bentoml=={version('bentoml')}"], "lock_packages": False},
            models=[str(stored.tag)],
            build_ctx=str(context),
        )
