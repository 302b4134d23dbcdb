"""From a trained model to what is served: runtimes, their parity with the weights, latency, a digest."""

import logging
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genreflow.core import progress
from genreflow.core.digests import code_version, file_digest
from genreflow.core.documents import (
    ModelDocument,
    PackagedDocument,
    PackagingSettings,
    RuntimeReport,
    Served,
)
from genreflow.core.errors import ModelError
from genreflow.corpus.splitting import open_corpus
from genreflow.families import family
from genreflow.inference.backends import AUTO, backend
from genreflow.inference.backends.openvino import OpenVino
from genreflow.inference.classifier import Classifier
from genreflow.inference.loading import check_runtime, native_runtime
from genreflow.inference.package_files import (
    MODEL_FOLDER,
    REFERENCE_FILE,
    model_digest,
    refuse_pickles,
)
from genreflow.inference.parity import Precision
from genreflow.inference.processor import processor
from genreflow.packaging.export import export
from genreflow.packaging.measurement import measure, unusable
from genreflow.packaging.quantization import quantize_where_better
from genreflow.packaging.windows import real_windows

PARITY_WINDOWS = 32
"""Real windows on which each runtime is compared with the trained weights in fp32."""
REFERENCE_WINDOWS = 8
"""Of these, how many lie in the package for a service to check itself at start-up."""
EQUALLY_FAST = 1.25
"""Latencies of fifteen repeats within this factor count as equal."""
NARROWEST_FIRST = ("int8", "bf16", "f32")

log = logging.getLogger("genreflow")


def package(
    model: Path,
    corpus: Path,
    split: Path,
    out: Path,
    settings: PackagingSettings | None = None,
    runtime: str = AUTO,
) -> PackagedDocument:
    """Package a trained model: native files, exported form, reference windows, parity and latency, digest.

    A runtime that cannot be made, or whose probabilities on real windows differ from the trained weights' in
    fp32 by more than `parity.PARITY` allows, is kept in the document with its reason and never served. Of the
    others the fastest is declared: the model is evaluated, compared by the gate and served with it.

    Args:
        model: a folder with `genreflow.json` and the family's native files.
        corpus: where real windows are taken from.
        split: of that corpus: validation clips are taken, or training clips where there are none.
        out: the folder to write; created where missing.
        runtime: the one to be declared in its fastest precision; `auto` is the fastest of all.

    Raises:
        ModelError: the model cannot be loaded or holds a pickle, or `runtime` does not serve it.
        CorpusError: the corpus has no clips to take windows from.
        SettingsError: there is no such runtime.
    """
    check_runtime(runtime)
    model, out = Path(model), Path(out)
    settings = settings or PackagingSettings()
    refuse_pickles(model)
    document = ModelDocument.read(model)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copytree(model, out / MODEL_FOLDER, dirs_exist_ok=True)

    progress.report("package", "choosing real windows for parity")
    clips = open_corpus(corpus, split)
    inputs = real_windows(document, clips, PARITY_WINDOWS)
    native = family(document.family).native_runtime
    progress.report("package", f"predicting {len(inputs)} windows with {backend(native).title} in fp32")
    reference = _load(out, document, native, "f32")
    expected = reference.probabilities(reference.logits(inputs))
    if not np.isfinite(expected).all():
        raise ModelError(
            f"The model in {model} predicts values for real music that are no numbers: train it anew."
        )
    np.savez(
        out / REFERENCE_FILE,
        inputs=inputs[:REFERENCE_WINDOWS],
        probabilities=expected[:REFERENCE_WINDOWS],
    )

    reports = [measure(lambda: reference, native, "f32", inputs, expected)]
    if "bf16" in backend(native).precisions():
        progress.report("package", "measuring PyTorch in bf16 on CUDA")
        reports.append(
            measure(lambda: _load(out, document, native, "bf16", "cuda"), native, "bf16", inputs, expected)
        )
    reports += _exported(out, document, inputs, expected)
    if settings.int8:
        reports.append(quantize_where_better(out, document, clips, reports, reference))
    for report in reports:
        _report(report)
    served = declared(tuple(reports), runtime)
    progress.report("package", f"to be served with {served.label}")

    names = sorted(
        path for path in out.rglob("*") if path.is_file() and path.name != PackagedDocument.file_name
    )
    files = {path.relative_to(out).as_posix(): file_digest(path) for path in names}
    packaged = PackagedDocument(
        digest=model_digest(document, files),
        model=document,
        files=files,
        runtimes=tuple(reports),
        served=served,
        processor=processor(),
        code_version=code_version(),
    )
    packaged.write(out)
    return packaged


def declared(reports: tuple[RuntimeReport, ...], runtime: str = AUTO) -> Served:
    """The runtime and precision to be served: the fastest that passed parity.

    The native runtime's f32 is among them only where no exported form serves the model: measured in passing
    to have a reference, it needs PyTorch or scikit-learn installed wherever the model is served.

    Raises:
        ModelError: `runtime` does not serve the model.
    """
    usable = [one for one in reports if one.usable and runtime in (AUTO, one.name)]
    native = native_runtime(reports)
    if runtime == AUTO and any(one.name != native for one in usable):
        usable = [one for one in usable if (one.name, one.precision) != (native, "f32")]
    if not usable:
        reasons = "; ".join(f"{one.name} {one.precision}: {one.reason}" for one in reports if one.reason)
        raise ModelError(f"The runtime {runtime} does not serve this model ({reasons}): set another one.")
    fastest = min(usable, key=lambda one: one.latency_ms_p50)
    # of what is measured as good as equally fast, the precision that does less work: a model is declared the
    # same however busy the machine was
    close = [
        one
        for one in usable
        if one.name == fastest.name and one.latency_ms_p50 <= EQUALLY_FAST * fastest.latency_ms_p50
    ]
    chosen = min(close, key=lambda one: NARROWEST_FIRST.index(one.precision))
    return Served(runtime=chosen.name, precision=chosen.precision)


def _load(
    out: Path, document: ModelDocument, name: str, precision: Precision, device: str = "cpu"
) -> Classifier:
    predict = backend(name).load(out, document, precision, device)
    return Classifier(document, predict, name, precision, device)


def _exported(
    out: Path, document: ModelDocument, inputs: NDArray[np.float32], expected: NDArray[np.float32]
) -> list[RuntimeReport]:
    """The model in its family's exported form, in f32 and, of OpenVINO, bf16."""
    name = family(document.family).exported_runtime
    title = backend(name).title
    progress.report("package", f"exporting to {title}")
    precisions: tuple[Precision, ...] = ("f32", "bf16") if name == OpenVino.name else ("f32",)
    try:
        export(out / MODEL_FOLDER, document, inputs, out)
    except ModelError as error:
        log.warning("This model is not served by %s: %s.", title, error)
        return [unusable(name, precision, str(error)) for precision in precisions]
    native = backend(name).precisions()
    reports = []
    for precision in precisions:
        if precision not in native:
            reason = f"the processor that packaged it has no {precision}"
            reports.append(unusable(name, precision, reason))
            continue
        progress.report("package", f"measuring {title} in {precision}")

        def load(precision: Precision = precision) -> Classifier:
            return _load(out, document, name, precision)

        reports.append(measure(load, name, precision, inputs, expected))
    return reports


def _report(report: RuntimeReport) -> None:
    where = f"{report.name} {report.precision}"
    if report.usable:
        text = (
            f"{where}: {report.latency_ms_p50:.1f} ms a window, probabilities within "
            f"{report.max_probability_difference:.1g} of fp32"
        )
    else:
        text = f"{where} is not served: {report.reason}"
    progress.report("package", text)
