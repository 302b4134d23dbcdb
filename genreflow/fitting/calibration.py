"""Clip-level likelihood of window logits, and the softmax temperature that fits it."""

import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas
from numpy.typing import NDArray

from genreflow.core.errors import TrainingError

if TYPE_CHECKING:
    from transformers.trainer_utils import EvalPrediction

TEMPERATURE_BOUNDS = (0.2, 10.0)
TEMPERATURE_SPREAD = 0.5
"""Standard deviation of the preference for log T = 0, which counts where clips are few."""


class ClipMetrics:
    """Clip-level figures of windows: a clip's probabilities are the mean over its windows'."""

    def __init__(self, clips: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        self.clips, self.labels = clips, labels
        """Clip number and label of each window, in the order of the rows."""
        self.clip_labels = np.zeros(int(clips.max()) + 1, dtype=np.int64)
        self.clip_labels[clips] = labels
        self.logits: NDArray[np.float32] | None = None
        """Logits (windows, genres) of the last evaluation."""

    @classmethod
    def of(cls, validation: pandas.DataFrame) -> Self:
        """For the rows of an index."""
        clips = validation["clip_id"].astype("category").cat.codes.to_numpy(dtype=np.int64)
        return cls(clips, validation["label"].to_numpy(dtype=np.int64))

    def negative_log_likelihood(self, logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
        """Of each clip's true genre: (clips,)."""
        return -self.log_probabilities(logits, temperature)[
            np.arange(len(self.clip_labels)), self.clip_labels
        ]

    def log_probabilities(self, logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
        """Logarithm of each clip's mean probabilities: (clips, genres)."""
        from scipy.special import log_softmax

        windows = log_softmax(logits.astype(np.float64) / temperature, axis=1)
        order = np.argsort(self.clips, kind="stable")
        starts = np.searchsorted(self.clips[order], np.arange(len(self.clip_labels)))
        counts = np.diff(starts, append=len(order))
        sums = np.logaddexp.reduceat(windows[order], starts, axis=0)
        return sums - np.log(counts)[:, None]

    def __call__(self, prediction: "EvalPrediction") -> dict[str, float]:
        from scipy.special import log_softmax

        logits = np.asarray(prediction.predictions, dtype=np.float32)
        if not np.array_equal(np.asarray(prediction.label_ids), self.labels):
            raise TrainingError("The validation windows came back in another order than they were given in.")
        self.logits = logits
        clips = self.log_probabilities(logits)
        loss = float(self.negative_log_likelihood(logits).mean())
        accuracy = float((clips.argmax(axis=1) == self.clip_labels).mean())
        windows = log_softmax(logits.astype(np.float64), axis=1)
        return {
            "loss": loss,
            "accuracy": accuracy,
            "window_loss": float(-windows[np.arange(len(windows)), self.labels].mean()),
            "window_accuracy": float((logits.argmax(axis=1) == self.labels).mean()),
            # more clips right is better, and among equals the lower loss
            "score": accuracy * len(self.clip_labels) - loss / (1 + loss)
            if math.isfinite(loss)
            else -math.inf,
        }

    def temperature(self, logits: NDArray[np.float32]) -> float:
        """The softmax temperature that makes the clips' probabilities most likely (Guo et al. 2017)."""
        from scipy.optimize import minimize_scalar

        def cost(log_temperature: float) -> float:
            likelihood = self.negative_log_likelihood(logits, math.exp(log_temperature)).sum()
            return float(likelihood + 0.5 * (log_temperature / TEMPERATURE_SPREAD) ** 2)

        low, high = TEMPERATURE_BOUNDS
        found = minimize_scalar(cost, bounds=(math.log(low), math.log(high)), method="bounded")
        return float(math.exp(found.x))
