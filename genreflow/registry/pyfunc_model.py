"""The registered model as MLflow loads it (models from code): from audio files to genres.

MLflow runs this file from the model's own folder, with the library as it was when the model was registered.
"""

from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from genreflow.core.errors import AudioError
from genreflow.inference.loading import load_checked_classifier

COLUMNS = ("genre", "confidence", "unsure", "reason")
"""Before one column `p_<genre>` for every genre; `reason` is null where the prediction can be relied on."""


class PyfuncClassifier(PythonModel):
    """From the column `audio` (binary, a whole file) to `COLUMNS` and `p_<genre>` for every genre."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the packaged model and check its reference windows on this processor."""
        self.classifier = load_checked_classifier(context.artifacts["packaged"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row a file; an undecodable file is the caller's error and names its row."""
        rows = []
        for row, audio in enumerate(model_input["audio"]):
            try:
                found = self.classifier.classify(bytes(audio))
            except AudioError as error:
                raise MlflowException(f"Row {row}: {error}", error_code=INVALID_PARAMETER_VALUE) from error
            probabilities = {f"p_{genre}": share for genre, share in found.probabilities.items()}
            rows.append(
                {
                    "genre": found.genre,
                    "confidence": found.confidence,
                    "unsure": found.unsure,
                    "reason": found.reason,
                    **probabilities,
                }
            )
        columns = [*COLUMNS, *(f"p_{genre}" for genre in self.classifier.document.genres)]
        return pd.DataFrame(rows, columns=columns)


set_model(PyfuncClassifier())
