"""scikit-learn and XGBoost: a family's native files through its own `load`, on the CPU, in f32."""

from pathlib import Path
from typing import ClassVar

from genreflow.core.documents import ModelDocument
from genreflow.core.errors import ModelError
from genreflow.inference.backends import Backend, Predict
from genreflow.inference.backends.native import load_native
from genreflow.inference.package_files import MODEL_FOLDER
from genreflow.inference.parity import Precision


class ScikitLearn(Backend):
    """scikit-learn on the CPU, of the exact version that wrote the files."""

    name: ClassVar[str] = "sklearn"
    title: ClassVar[str] = "scikit-learn"
    reads_native_files: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("scikit-learn", "skops", "threadpoolctl", "xgboost-cpu")
    modules: ClassVar[tuple[str, ...]] = ("sklearn", "skops", "threadpoolctl")

    def precisions(self, device: str = "auto") -> tuple[Precision, ...]:
        return ("f32",)

    def device(self, wanted: str = "auto") -> str:
        return "cpu"

    def load(self, folder: Path, document: ModelDocument, precision: Precision, device: str) -> Predict:
        try:
            return load_native(folder / MODEL_FOLDER, document, precision, "cpu")
        except ImportError as error:
            raise ModelError(f"scikit-learn is not installed here ({error}).") from error
