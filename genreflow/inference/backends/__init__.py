"""Runtimes that a packaged model can be served by, one file each.

A backend is a module of its name here, with a subclass of `Backend`; adding its name to `RuntimeName` and
`RuntimeChoice` makes it known to packaging, loading, evaluation, settings and serving.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from genreflow.core.documents import ModelDocument
from genreflow.core.errors import SettingsError
from genreflow.inference.parity import Precision

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(n, *input shape) float32 → (n, genres) logits."""

RuntimeName = Literal["openvino", "pytorch", "onnxruntime", "sklearn"]
RuntimeChoice = Literal["auto", "openvino", "pytorch", "onnxruntime", "sklearn"]
BACKENDS: tuple[RuntimeName, ...] = get_args(RuntimeName)
AUTO: RuntimeChoice = "auto"
"""The runtime that a packaged model declares."""
RUNTIMES: tuple[RuntimeChoice, ...] = get_args(RuntimeChoice)
FALLBACK: RuntimeName = "openvino"
"""What most families are exported to; in f32, it serves where the declared runtime or precision cannot."""
REFERENCE: RuntimeName = "pytorch"
"""What runs most families' weights as trained; in f32, every runtime and precision is compared with it."""

_registered: "dict[str, type[Backend]]" = {}


class Backend(ABC):
    """One runtime. Stateless: folder and precision come in with every call."""

    name: ClassVar[str]
    title: ClassVar[str]
    """As its makers write it."""
    reads_native_files: ClassVar[bool] = False
    """Whether it reads the family's own files; an exported model is enough where it does not."""
    for_cpu: ClassVar[bool] = True
    """Whether a service on a CPU is meant to use it: it is small and fast there."""
    packages: ClassVar[tuple[str, ...]] = ()
    """What has to be installed for it beside the library's core."""
    modules: ClassVar[tuple[str, ...]] = ()
    """What it imports of that for every model."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _registered[cls.name] = cls

    def missing(self) -> tuple[str, ...]:
        """Those of `modules` that are not installed here; nothing is imported."""
        return tuple(name for name in self.modules if find_spec(name) is None)

    @abstractmethod
    def precisions(self, device: str = "auto") -> tuple[Precision, ...]:
        """What this machine computes natively, fastest first; `f32` is always among them.

        Raises:
            ModelError: the runtime is not installed here.
        """

    @abstractmethod
    def device(self, wanted: str = "auto") -> str:
        """The device that it would predict on: `cpu` or `cuda`."""

    @abstractmethod
    def load(self, folder: Path, document: ModelDocument, precision: Precision, device: str) -> Predict:
        """Load a packaged model for prediction.

        Args:
            folder: the packaged model's folder.
            document: what the model is.
            precision: one of `precisions`.
            device: `auto`, `cpu` or `cuda`.

        Raises:
            ModelError: files are missing or do not fit, or the runtime is not installed.
        """


def backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        SettingsError: there is none.
    """
    if name not in BACKENDS:
        raise SettingsError(f"There is no runtime {name!r}; there are {', '.join(BACKENDS)}.")
    importlib.import_module(f"{__name__}.{name}")
    return _registered[name]()
