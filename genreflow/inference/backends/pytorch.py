"""PyTorch: a family's native files through its own `load`, on CUDA (in bf16) or the CPU."""

from pathlib import Path
from typing import ClassVar

from genreflow.core import devices
from genreflow.core.documents import ModelDocument
from genreflow.inference.backends import Backend, Predict
from genreflow.inference.backends.native import load_native
from genreflow.inference.package_files import MODEL_FOLDER
from genreflow.inference.parity import Precision


class PyTorch(Backend):
    """PyTorch on CUDA or the CPU."""

    name: ClassVar[str] = "pytorch"
    title: ClassVar[str] = "PyTorch"
    reads_native_files: ClassVar[bool] = True
    for_cpu: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "safetensors")
    modules: ClassVar[tuple[str, ...]] = ("torch", "safetensors")

    def precisions(self, device: str = "auto") -> tuple[Precision, ...]:
        return ("bf16", "f32") if self.device(device) == "cuda" else ("f32",)

    def device(self, wanted: str = "auto") -> str:
        return devices.choose(wanted)

    def load(self, folder: Path, document: ModelDocument, precision: Precision, device: str) -> Predict:
        return load_native(folder / MODEL_FOLDER, document, precision, self.device(device))
