"""Loading: a packaged model with the runtime and precision that it declares, verified before use."""

import logging
from pathlib import Path

from genreflow.core.documents import ModelDocument, PackagedDocument, RuntimeReport, Served
from genreflow.core.errors import ModelError, SettingsError
from genreflow.inference.backends import AUTO, FALLBACK, REFERENCE, RUNTIMES, Backend, backend
from genreflow.inference.classifier import Classifier
from genreflow.inference.package_files import package_differences, refuse_pickles
from genreflow.inference.parity import PARITY, Precision

log = logging.getLogger("genreflow")


def load_classifier(
    folder: Path | str,
    runtime: str = AUTO,
    precision: Precision | None = None,
    device: str = "auto",
) -> Classifier:
    """Load a packaged model (`packaged.json`), verified first, or a trained one (`genreflow.json`).

    Args:
        runtime: `auto` is what the packaged model declares to be served with.
        precision: `f32`, `bf16` or `int8`; where None, the declared one, or of another runtime than the
            declared one its fastest that passed parity. Where that cannot run here, `fallback` does, with a
            note.
        device: of PyTorch: `auto`, `cpu` or `cuda`.

    Raises:
        ModelError: the folder is no model, was altered, or has no runtime that works as requested.
        SettingsError: there is no such runtime, precision or device.
    """
    return _load(Path(folder), runtime, precision, device, check=False)


def load_checked_classifier(folder: Path | str, runtime: str = AUTO) -> Classifier:
    """Load a packaged model as a service does: its reference windows are predicted again on this processor.

    Where the probabilities are too far from the packaged ones, `fallback` is loaded, with a note.

    Raises:
        ModelError: the model cannot be loaded, or the fallback's probabilities are too far off, too.
    """
    return _load(Path(folder), runtime, None, "auto", check=True)


def choose_runtime(document: PackagedDocument, wanted: str) -> str:
    """The runtime that a packaged model is to be served with: the declared one where `wanted` is `auto`.

    Raises:
        SettingsError: there is no such runtime.
        ModelError: that runtime does not serve this model.
    """
    check_runtime(wanted)
    if wanted == AUTO:
        return document.served.runtime
    native = native_runtime(document.runtimes)
    if wanted != native and not _usable(document.runtimes, wanted):
        raise ModelError(f"{_refusal(document.runtimes, wanted)}: choose the runtime {native} or {AUTO}.")
    return wanted


def native_runtime(reports: tuple[RuntimeReport, ...]) -> str:
    """Of a packaged model's runtimes, the one that reads the family's own files."""
    return next((one.name for one in reports if backend(one.name).reads_native_files), REFERENCE)


def exported_runtime(reports: tuple[RuntimeReport, ...]) -> str:
    """Of a packaged model's runtimes, the one that reads its exported form."""
    return next((one.name for one in reports if not backend(one.name).reads_native_files), FALLBACK)


def fallback(document: PackagedDocument) -> Served:
    """What serves a model where its declared runtime or precision cannot.

    Its exported form in f32 (OpenVINO or ONNX); its native files in f32 where that does not serve it.
    """
    name = exported_runtime(document.runtimes)
    usable = any(one.precision == "f32" for one in _usable(document.runtimes, name))
    return Served(runtime=name if usable else native_runtime(document.runtimes), precision="f32")


def check_installed(document: PackagedDocument, wanted: str = AUTO) -> None:
    """Nothing where a packaged model's runtime, or what serves it in its place, is installed here.

    Raises:
        SettingsError: there is no such runtime.
        ModelError: it is not, or that runtime does not serve this model.
    """
    chosen = choose_runtime(document, wanted)
    others = {fallback(document).runtime} if wanted == AUTO else set()
    missing = backend(chosen).missing()
    if missing and all(backend(name).missing() for name in others):
        raise ModelError(
            f"This model is served by {backend(chosen).title}, which is not installed here "
            f"({', '.join(missing)}): serve it by a bento of its own, which has what it needs (genreflow "
            "build), or by an image with these packages (docs/serving.md, A model in a folder)."
        )


def check_runtime(name: str) -> None:
    """Refuse what is neither `auto` nor a runtime.

    Raises:
        SettingsError: names those that there are.
    """
    if name not in RUNTIMES:
        raise SettingsError(f"There is no runtime {name!r}; there are {', '.join(RUNTIMES)}.")


def _load(folder: Path, runtime: str, precision: Precision | None, device: str, check: bool) -> Classifier:
    check_runtime(runtime)
    if precision is not None and precision not in PARITY:
        raise SettingsError(f"There is no precision {precision!r}; there are {', '.join(PARITY)}.")
    if not folder.is_dir():
        raise ModelError(f"There is no folder {folder}: name the folder of a trained or packaged model.")
    refuse_pickles(folder)
    if (folder / PackagedDocument.file_name).is_file():
        return _load_packaged(folder, runtime, precision, device, check)
    if not (folder / ModelDocument.file_name).is_file():
        names = f"neither {PackagedDocument.file_name} nor {ModelDocument.file_name}"
        raise ModelError(f"{folder} is no model: it has {names}.")
    trained = ModelDocument.read(folder)
    native = _native_backend(trained)
    if check or runtime not in (AUTO, native.name):
        raise ModelError(
            f"{folder} is a trained model that is not packaged yet: package it, or use {native.title}."
        )
    return load_trained(folder, trained, precision or "f32", device)


def load_trained(
    folder: Path, document: ModelDocument, precision: Precision = "f32", device: str = "auto"
) -> Classifier:
    """A classifier over the native files of `folder`, which is not packaged.

    Raises:
        ModelError: PyTorch (or scikit-learn) is not installed, or the files do not fit.
        SettingsError: there is no such device here.
    """
    from genreflow.inference.backends.native import load_native

    native = _native_backend(document)
    place = native.device(device)
    predict = load_native(folder, document, precision, place)
    return Classifier(document, predict, native.name, precision, place)


def _native_backend(document: ModelDocument) -> Backend:
    from genreflow.families import family

    return backend(family(document.family).native_runtime)


def _load_packaged(
    folder: Path, runtime: str, precision: Precision | None, device: str, check: bool
) -> Classifier:
    document = PackagedDocument.read(folder)
    choices = _choices(document, runtime, precision, device)
    notes: list[str] = []
    for choice, alternative in zip(choices, [*choices[1:], None], strict=True):
        native = backend(choice.runtime).reads_native_files
        wrong = next(package_differences(folder, document, native=native), None)
        if wrong is not None:
            raise ModelError(
                f"The packaged model in {folder} is not what it was: {wrong}. Fetch or package it anew."
            )
        try:
            classifier = _start(folder, document, choice, device, check)
        except ModelError as error:
            if alternative is None:
                raise
            note = f"{choice.label} is not used here, as {str(error).rstrip('.')}: using {alternative.label}."
            log.warning("%s: %s", folder, note)
            notes.append(note)
            continue
        notes += _deviations(document, classifier, runtime, precision)
        classifier.notes = tuple(notes)
        return classifier
    raise AssertionError("there is always a choice")


def _choices(
    document: PackagedDocument, runtime: str, precision: Precision | None, device: str
) -> list[Served]:
    """What to load, the first that runs here; a runtime or precision that was named has no alternative."""
    name = choose_runtime(document, runtime)
    if precision is not None:
        return [Served(runtime=name, precision=precision)]
    if runtime == AUTO:
        wanted = [document.served, fallback(document)]
    else:
        native = backend(name).precisions(device)
        usable = [one for one in _usable(document.runtimes, name) if one.precision in native]
        fastest = min(usable, key=lambda one: one.latency_ms_p50, default=None)
        wanted = [
            document.served
            if document.served.runtime == name
            else Served(runtime=name, precision=fastest.precision if fastest else "f32"),
            Served(runtime=name, precision="f32"),
        ]
    return list(dict.fromkeys(wanted))


def _start(folder: Path, document: PackagedDocument, choice: Served, device: str, check: bool) -> Classifier:
    """The classifier of one choice.

    Raises:
        ModelError: that runtime or precision does not serve the model, or not on this machine.
    """
    runtime = backend(choice.runtime)
    if choice.runtime != native_runtime(document.runtimes) or choice.precision == "int8":
        report = next(
            (
                one
                for one in document.runtimes
                if (one.name, one.precision) == (runtime.name, choice.precision)
            ),
            None,
        )
        if report is None:
            raise ModelError(f"the model was not packaged for {choice.label}")
        if not report.usable:
            raise ModelError(f"{choice.label} is not served: {report.reason}")
    try:
        place = runtime.device(device)
    except ImportError as error:
        raise ModelError(f"{runtime.title} is not installed here ({error})") from error
    if choice.precision not in runtime.precisions(place):
        raise ModelError(f"{runtime.title} has no {choice.precision} on this machine")
    precision: Precision = choice.precision
    predict = runtime.load(folder, document.model, precision, place)
    classifier = Classifier(document.model, predict, runtime.name, precision, place)
    if check:
        difference = classifier.check_reference(folder)
        if not difference <= PARITY[precision].probability_difference:  # NaN is not
            raise ModelError(
                f"{folder} does not reproduce its packaged probabilities on this processor: with "
                f"{choice.label} one is {difference:.4f} off. Package it anew here."
            )
    return classifier


def _deviations(
    document: PackagedDocument, classifier: Classifier, runtime: str, precision: Precision | None
) -> list[str]:
    """What a person should know who named a runtime that is not the declared one; nothing otherwise."""
    if runtime == AUTO or precision is not None:
        return []
    found = []
    used = Served(runtime=classifier.runtime, precision=classifier.precision)
    if runtime == REFERENCE and classifier.device == "cpu" and _usable(document.runtimes, FALLBACK):
        found.append("PyTorch finds no CUDA device here and runs on the CPU, in f32.")
    if used != document.served:
        found.append(
            f"Served with {used.label}, as set; the model was evaluated with {document.served.label}."
        )
    for note in found:
        log.warning("%s", note)
    return found


def _usable(reports: tuple[RuntimeReport, ...], runtime: str) -> list[RuntimeReport]:
    return [one for one in reports if one.name == runtime and one.usable]


def _refusal(reports: tuple[RuntimeReport, ...], runtime: str) -> str:
    reasons = [f"in {one.precision}, {one.reason}" for one in reports if one.name == runtime]
    title = backend(runtime).title
    return f"{title} does not serve this model ({'; '.join(reasons) or 'it was not packaged for it'})"
