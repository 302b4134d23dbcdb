"""The registered model as MLflow loads it (models from code): audio files in, genres out.

MLflow runs this file from the model's own folder, with the library as it was when the model was registered.
"""

from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from genreflow import runtime
from genreflow.errors import AudioError


class ServedClassifier(PythonModel):
    """Column `audio` (binary, a whole file) → `genre`, `confidence`, `p_<genre>` for every genre."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the packaged model and check its reference windows on this processor."""
        self.classifier = runtime.load_checked(context.artifacts["packaged"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row a file; an undecodable file is the caller's error and names its row."""
        rows = []
        for row, audio in enumerate(model_input["audio"]):
            try:
                answer = self.classifier.classify(bytes(audio))
            except AudioError as error:
                raise MlflowException(f"Row {row}: {error}", error_code=INVALID_PARAMETER_VALUE) from error
            probabilities = {f"p_{genre}": share for genre, share in answer.probabilities.items()}
            rows.append({"genre": answer.genre, "confidence": answer.confidence, **probabilities})
        columns = ["genre", "confidence", *(f"p_{genre}" for genre in self.classifier.document.genres)]
        return pd.DataFrame(rows, columns=columns)


set_model(ServedClassifier())
