"""The recipe of this service's bento: its model and runtime, its page or none, its packages, its labels.

In a bento all of that is fixed, and read from `bento.yaml`. In a checkout it follows the environment, so
`bentoml build` typed there makes what `genreflow build` makes: `GENREFLOW_MODEL_TAG` names the model,
`GENREFLOW_PAGE=no` leaves the page out, and `GENREFLOW_RUNTIME` names the runtime, by default (`auto`) that
which the model was imported for. In the service's image, which has no model, `GENREFLOW_MODEL_PATH` names a
folder with a packaged one (`serving.fetch`).
"""

import os
from collections.abc import Iterable
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import bentoml
import yaml
from bentoml.exceptions import BentoMLException
from bentoml.images import Image

from genreflow.core.documents import Frozen, PackagedDocument
from genreflow.core.errors import GenreflowError
from genreflow.inference.backends import AUTO, FALLBACK, RUNTIMES, backend
from genreflow.inference.loading import check_installed, choose_runtime

NAME = "genreflow"
"""Of bentos and models in BentoML's stores."""
DIGEST_CHARACTERS = 12
"""Of a model's digest in its tag."""
TAG_VARIABLE = "GENREFLOW_MODEL_TAG"
PATH_VARIABLE = "GENREFLOW_MODEL_PATH"
PAGE_VARIABLE = "GENREFLOW_PAGE"
RUNTIME_VARIABLE = "GENREFLOW_RUNTIME"
PAGE_LABEL = "page"
RUNTIME_LABEL = "runtime"
"""Of a bento, and of an imported model: only what is imported for PyTorch has the weights that it reads."""
PYTHON = "3.11"
NEEDED = ("bentoml", "fastapi", "packaging", "python-multipart", "pyyaml")
"""What the service needs beside the library's core."""
PAGE_NEEDED = ("gradio", "matplotlib")
ENVIRONMENT = [
    {"name": "UV_NO_CACHE", "value": "1"},
    {"name": "PIP_NO_CACHE_DIR", "value": "1"},
    {"name": "OPENBLAS_NUM_THREADS", "value": "1"},
]
"""What was downloaded to install stays out of the container's layers. NumPy's threads, which wait for work in
a loop, stay out of the model's way."""
WORDS = {True: "yes", False: "no"}


class Recipe(Frozen):
    """Which bento this is, or is to be."""

    model: str
    """BentoML tag of the model: `:latest` would be whatever was imported last on a machine.

    Empty where `folder` has the model.
    """
    page: bool
    """Whether it has the web page."""
    runtime: str
    """What predicts; in a checkout also `auto`: what the model was imported for."""
    built: bool
    """Whether this code lies in a bento."""
    folder: Path | None = None
    """A packaged model that is served as it lies there, without a BentoML store."""


@lru_cache
def recipe() -> Recipe:
    """The recipe of the bento that this code lies in; in a checkout, the one that the environment names.

    Raises:
        BentoMLException: no model is named or there, what serves it is not installed, or `GENREFLOW_PAGE` or
            `GENREFLOW_RUNTIME` has a value that does not exist.
    """
    source = Path(__file__).parent.parent
    file = source.parent / "bento.yaml"
    if source.name == "src" and file.is_file():
        # LibYAML, where it is: the file describes the whole API, and every process of the service reads it
        bento = yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        (model,) = {entry["tag"] for service in bento["services"] for entry in service["models"]}
        labels = bento["labels"]
        return Recipe(
            model=model, page=labels[PAGE_LABEL] == WORDS[True], runtime=labels[RUNTIME_LABEL], built=True
        )
    model, folder = os.environ.get(TAG_VARIABLE, ""), _model_folder()
    if not model and folder is None:
        raise BentoMLException(
            f"Which model is to be served? Set {TAG_VARIABLE} to a tag that `bentoml models list` shows; "
            "`genreflow build` imports the champion there and builds its bento at once."
        )
    page = os.environ.get(PAGE_VARIABLE, WORDS[True])
    if page not in WORDS.values():
        raise BentoMLException(f"{PAGE_VARIABLE} is yes or no, not {page!r}.")
    runtime = os.environ.get(RUNTIME_VARIABLE, AUTO)
    if runtime not in RUNTIMES:
        raise BentoMLException(f"{RUNTIME_VARIABLE} is {', '.join(RUNTIMES)}, not {runtime!r}.")
    if folder is not None:
        try:
            check_installed(PackagedDocument.read(folder), runtime)
        except GenreflowError as error:
            raise BentoMLException(str(error)) from None
    return Recipe(model=model, page=page == WORDS[True], runtime=runtime, built=False, folder=folder)


def _model_folder() -> Path | None:
    """What `GENREFLOW_MODEL_PATH` names, unless a tag names the model.

    Raises:
        BentoMLException: there is no packaged model.
    """
    name = os.environ.get(PATH_VARIABLE)
    if not name or os.environ.get(TAG_VARIABLE):
        return None
    if not (Path(name) / PackagedDocument.file_name).is_file():
        raise BentoMLException(
            f"There is no packaged model in {name}, which {PATH_VARIABLE} names: mount one there, or fetch "
            f"one with python -m serving.fetch --from s3://BUCKET/PREFIX --digest SHA256 --to {name}."
        )
    return Path(name)


def labels() -> dict[str, str]:
    """The labels of the bento to be: the model's lineage, its runtime, and whether there is a page."""
    settled = recipe()
    if settled.built or settled.folder is not None:
        return {}
    stored = _stored(settled)
    own = {PAGE_LABEL: WORDS[settled.page], RUNTIME_LABEL: runtime_of(stored, settled.runtime)}
    return dict(stored.info.labels | own)


def runtime_of(stored: bentoml.Model, wanted: str) -> str:
    """The runtime that an imported model is served by: the one that is wanted, or that it was imported for.

    Raises:
        BentoMLException: the runtime that is wanted does not serve the model, or reads files that were left
            out when the model was imported.
    """
    imported = str(stored.info.labels.get(RUNTIME_LABEL, FALLBACK))
    if wanted in (AUTO, imported):
        return imported
    if backend(wanted).reads_native_files and not backend(imported).reads_native_files:
        raise BentoMLException(
            f"{stored.tag} was imported without the weights that {backend(wanted).title} reads: genreflow "
            f"build --runtime {wanted} imports them."
        )
    try:
        return choose_runtime(PackagedDocument.read(Path(stored.path)), wanted)
    except GenreflowError as error:
        raise BentoMLException(str(error)) from error


def image() -> Image | None:
    """The container of the bento to be; None in a bento, and where a folder has the model.

    Not BentoML's own Debian image: that installs a compiler and git, hundreds of megabytes, and nothing here
    has to be compiled.
    """
    settled = recipe()
    if settled.built or settled.folder is not None:
        return None
    runtime = runtime_of(_stored(settled), settled.runtime)
    plain = Image(
        base_image=f"python:{PYTHON}-slim", distro="", python_version=PYTHON, lock_python_packages=False
    )
    return plain.python_packages(*packages(runtime, settled.page))


def packages(runtime: str, page: bool) -> list[str]:
    """`name==version` of all that the service needs, as installed here; with torch only for PyTorch."""
    from packaging.requirements import Requirement

    core = [Requirement(line) for line in metadata.requires("genreflow") or []]
    named = [need.name for need in core if need.marker is None]
    named += [*NEEDED, *(PAGE_NEEDED if page else ())]
    named += backend(runtime).packages
    return pinned(named)


def pinned(names: Iterable[str]) -> list[str]:
    """`name==version` of packages and of all that they need in turn, as installed here, in order of name.

    What floats is resolved anew by every build of an image: one built next year would not be the one tested.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        need = waiting.pop()
        name = canonicalize_name(need.name)
        for extra in {"", *need.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            found[name] = metadata.version(name).partition("+")[0]  # no index has torch's +cpu
            inner = (Requirement(line) for line in metadata.requires(name) or [])
            waiting += [one for one in inner if one.marker is None or one.marker.evaluate({"extra": extra})]
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _stored(settled: Recipe) -> Any:
    try:
        return bentoml.models.get(settled.model)
    except bentoml.exceptions.NotFound as error:
        raise BentoMLException(
            f"There is no model {settled.model} in BentoML's store here: `bentoml models list` shows what "
            "there is, and `genreflow build` imports the champion."
        ) from error
