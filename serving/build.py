"""The bento of a registered model: its packaged files under a pinned tag, the service, the core library."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml

import genreflow
from genreflow import registry, steps
from genreflow.core import home, progress
from genreflow.core.digests import code_digest, file_digest, text_digest
from genreflow.core.documents import PackagedDocument
from genreflow.core.errors import ModelError
from genreflow.inference.backends import AUTO, BACKENDS, backend
from genreflow.inference.loading import choose_runtime
from genreflow.inference.package_files import MODEL_FOLDER
from serving import recipe
from serving.recipe import DIGEST_CHARACTERS, NAME

CODE_CHARACTERS = 8
CODE_ENDINGS = (".py", ".css", ".js", ".yaml")
SERVICE = "serving.service:GenreClassifier"
PAGELESS = "-no-page"
"""The end of the tags of bentos without the web page."""
EXPORTED = "genreflow.tar"
"""Not `.bento`: that is compressed by xz, which takes minutes for weights and makes them no smaller."""
LOCK_FILE = "genreflow.lock"

log = logging.getLogger("genreflow")


def import_model(model: str = "champion", runtime: str = AUTO) -> bentoml.Model:
    """The registered model of that alias or version in BentoML's model store, imported where it is missing.

    Args:
        runtime: see `loading.choose_runtime`.

    Raises:
        RegistryError: there is no such model, or genreflow did not register it.
        ModelError: that runtime does not serve it.
    """
    registered = registry.version(model)  # once: the alias may move meanwhile
    digest = registry.content_digest(registered.version, registered.tags)
    plain = f"{NAME}:v{registered.version}-{digest[:DIGEST_CHARACTERS]}"
    tags: dict[str, str] = {name: plain + _ending(name) for name in BACKENDS}
    with _build_lock():
        # what is there is neither fetched nor digested again
        there = {name: stored for name, tag in tags.items() if (stored := _stored(bentoml.models, tag))}
        folder = next((Path(stored.path) for stored in there.values()), None)
        document = PackagedDocument.read(folder or registry.fetch(registered.version))
        chosen = choose_runtime(document, runtime)
        return there.get(chosen) or _imported(registered, tags[chosen], chosen)


def _ending(runtime: str) -> str:
    """The end of the tags of what a runtime serves that reads native files; `-no-page` comes after it."""
    return f"-{runtime}" if backend(runtime).reads_native_files else ""


def _imported(registered: registry.Version, tag: str, runtime: str) -> bentoml.Model:
    folder = registry.fetch(registered.version)
    document = PackagedDocument.read(folder)
    labels = {
        "version": registered.version,
        "digest": document.digest,
        "family": document.model.family,
        "protocol": document.model.protocol,
        "corpus_fingerprint": document.model.corpus_fingerprint,
        "synthetic": str(document.model.synthetic).lower(),
        recipe.RUNTIME_LABEL: runtime,
    }
    facts: dict[str, Any] = {"reason": registered.tags.get("decision_reason")}
    if "accuracy_ci95" in registered.tags:
        facts["accuracy"] = float(registered.tags["accuracy"])
        facts["accuracy_ci95"] = json.loads(registered.tags["accuracy_ci95"])
    # An exported model goes without the weights that PyTorch would read: they are half of it.
    unread = shutil.ignore_patterns(*(() if backend(runtime).reads_native_files else (MODEL_FOLDER,)))
    with bentoml.models.create(tag, labels=labels, metadata=facts) as stored:
        shutil.copytree(folder, stored.path, dirs_exist_ok=True, ignore=unread)
    return stored


def build(model: str = "champion", page: bool = True, runtime: str = AUTO) -> bentoml.Bento:
    """Build the bento of a registered model, or return it where it is built already.

    Args:
        page: whether it has the web page; without, its image is smaller by Gradio and Matplotlib.
        runtime: see `loading.choose_runtime`; PyTorch's bento has torch and the weights.

    Raises:
        RegistryError: there is no such model.
        ModelError: that runtime does not serve it, or BentoML refuses to build it.
    """
    stored = import_model(model, runtime)
    here = Path(__file__).parent
    # The service's code is part of the bento: the same model under changed code is another bento.
    code_files = sorted(path for path in here.rglob("*") if path.suffix in CODE_ENDINGS)
    chosen = recipe.runtime_of(stored, AUTO)
    packages = recipe.packages(chosen, page)
    code = text_digest([code_digest(), *(file_digest(path) for path in code_files), *packages])
    ending = _ending(chosen)
    version = f"{str(stored.tag.version).removesuffix(ending)}-{code[:CODE_CHARACTERS]}"
    tag = f"{NAME}:{version}{ending}{'' if page else PAGELESS}"
    with _build_lock():
        bento: bentoml.Bento | None = _stored(bentoml.bentos, tag)
        return bento or _built(tag, str(stored.tag), page, chosen)


def _built(tag: str, model: str, page: bool, runtime: str) -> bentoml.Bento:
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        library = Path(str(genreflow.__file__)).parent
        for package in (library, Path(__file__).parent):
            shutil.copytree(package, context / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        # A process of its own: in this one the package `serving` is already imported, from elsewhere.
        argv = [sys.executable, "-m", "bentoml", "build", SERVICE, "--version", tag.partition(":")[2]]
        environment = os.environ | {
            recipe.TAG_VARIABLE: model,
            recipe.PAGE_VARIABLE: recipe.WORDS[page],
            recipe.RUNTIME_VARIABLE: runtime,
        }
        done = subprocess.run(argv, cwd=context, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
            full = os.strerror(errno.ENOSPC)
            if full in done.stderr + done.stdout:
                raise ModelError(_unwritable(full))
            raise ModelError(f"BentoML could not build {tag}: {lines[-1] if lines else 'it printed nothing'}")
    return bentoml.bentos.get(tag)


@contextlib.contextmanager
def _build_lock() -> Iterator[None]:
    """One process at a time reads and writes: BentoML's stores are not locked, and not written at once."""
    folder = home.bentoml_home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK_FILE).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise ModelError(_unwritable(home.os_reason(error))) from error


def _unwritable(reason: str) -> str:
    return (
        f"BentoML's stores in {home.bentoml_home()} cannot be written ({reason}): make room there, or name "
        "another folder by BENTOML_HOME."
    )


def _stored(store: Any, tag: str) -> Any:
    """What a store has under a tag, or None; what a killed process left half written is deleted."""
    try:
        return store.get(tag)
    except bentoml.exceptions.NotFound:
        return None
    except bentoml.exceptions.BentoMLException as error:
        log.warning("%s is incomplete (%s): making it anew.", tag, error)
        store.delete(tag)
        return None


def build_step(version: str, export_to: Path | None, runtime: str = AUTO) -> str:
    """The pipeline's step: the bento of a registered version, noted with the version last.

    Args:
        export_to: a folder for the bento as one file with its model, for `bentoml import`.
        runtime: see `loading.choose_runtime`.

    Returns:
        The bento's tag.
    """

    def make() -> str:
        bento = build(version, runtime=runtime)
        if export_to is not None:
            export_to.mkdir(parents=True, exist_ok=True)
            bento.export(str(export_to / EXPORTED), output_format="tar")
        registry.record_bento(version, str(bento.tag))
        return str(bento.tag)

    with steps.report_step("build"):
        tag = steps.retry_mlflow("build", make)
        progress.report("build", f"{tag} is built", result=tag)
    return tag
