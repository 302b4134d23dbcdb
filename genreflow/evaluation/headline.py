"""The headline metrics as `evaluate.Metric`.

Imported only where a model is evaluated: `evaluate` imports transformers' pipelines, which takes seconds.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score

from genreflow.evaluation import metrics


class _Metric(evaluate.Metric):
    """An `evaluate.Metric` that lives here: no hub, no download, nothing written to a cache folder."""

    description = ""
    of_probabilities = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"keep_in_memory": True, **options})

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("int64")
        answer = datasets.List(datasets.Value("float64")) if self.of_probabilities else label
        taken = "probabilities (n, genres)" if self.of_probabilities else "label ids (n,)"
        return evaluate.MetricInfo(
            description=self.description,
            citation="",
            inputs_description=f"predictions: {taken}; references: label ids (n,)",
            features=datasets.Features({"predictions": answer, "references": label}),
        )


class Accuracy(_Metric):
    """`evaluate.Metric`: share of correct predictions."""

    description = "Share of correct predictions."

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class MacroF1(_Metric):
    """`evaluate.Metric`: mean F1 over the genres that are present or predicted."""

    description = "Mean F1 over the genres that are present or predicted."

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"macro_f1": metrics.macro_f1(np.asarray(references), np.asarray(predictions))}


class MacroAuc(_Metric):
    """`evaluate.Metric`: mean one-against-the-rest AUC over the genres where it is defined, else None."""

    description = "Mean one-against-the-rest area under the ROC curve over the genres where it is defined."
    of_probabilities = True

    def _compute(
        self, predictions: Sequence[Sequence[float]], references: Sequence[int]
    ) -> dict[str, float | None]:
        return {"macro_auc": metrics.macro_auc(np.asarray(references), np.asarray(predictions))}
