"""The classifier: a loaded model that predicts genres from audio; what every way to predict goes through."""

import logging
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genreflow.audio import Audio, decode, resample
from genreflow.core.documents import ModelDocument
from genreflow.features import BATCH_WINDOWS, iter_window_batches
from genreflow.inference.answers import (
    Classification,
    Timeline,
    build_timeline,
    check_hop,
    classify_windows,
    softmax,
)
from genreflow.inference.backends import Predict
from genreflow.inference.package_files import read_reference

log = logging.getLogger("genreflow")


class Classifier:
    """A loaded model: its document, its runtime, and `predict` from inputs to logits."""

    def __init__(
        self,
        document: ModelDocument,
        predict: Predict,
        runtime: str,
        precision: str,
        device: str = "cpu",
    ) -> None:
        self.document = document
        self.runtime = runtime
        self.precision = precision
        self.device = device
        self.notes: tuple[str, ...] = ()
        """Deviations from what was requested on loading, a sentence each."""
        self.best_seconds_per_window = float("inf")
        """The shortest time that a window took so far: without anything else on the machine."""
        self._predict = predict

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, *input shape) float32 → (n, genres) float32, in batches of at most `BATCH_WINDOWS`."""
        batches = []
        for start in range(0, len(inputs), BATCH_WINDOWS):
            batch = np.ascontiguousarray(inputs[start : start + BATCH_WINDOWS])
            began = time.perf_counter()
            batches.append(np.asarray(self._predict(batch), dtype=np.float32))
            seconds = (time.perf_counter() - began) / len(batch)
            self.best_seconds_per_window = min(self.best_seconds_per_window, seconds)
        return np.concatenate(batches)

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """softmax(logits / temperature) over the last axis."""
        return softmax(logits / self.document.temperature)

    def window_logits(
        self, samples: NDArray[np.float32], sample_rate: int, hop_seconds: float | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Logits of a waveform's windows.

        Args:
            samples: (n,) float32 mono at `sample_rate` Hz.
            hop_seconds: from window to window; the model's own where None.

        Returns:
            (windows, genres) logits, and the windows' starts in seconds (windows,).
        """
        batches = [
            (self.logits(inputs), starts)
            for inputs, starts in iter_window_batches(
                self.document.input_spec, samples, sample_rate, hop_seconds
            )
        ]
        return np.concatenate([logits for logits, _ in batches]), np.concatenate(
            [starts for _, starts in batches]
        )

    def classify(self, file: Path | str | bytes) -> Classification:
        """The genre of an audio file, given by its path or its bytes.

        Raises:
            AudioError: the file is missing or is not audio.
        """
        audio = _decoded(file, self.document.input_spec.sample_rate)
        return self.classify_samples(audio.samples, audio.sample_rate)

    def classify_samples(self, samples: NDArray[np.float32], sample_rate: int) -> Classification:
        """The genre of a waveform (n,) at `sample_rate` Hz."""
        waveform = resample(samples, sample_rate, self.document.input_spec.sample_rate)
        logits, _ = self.window_logits(waveform, self.document.input_spec.sample_rate)
        seconds = len(samples) / sample_rate
        return classify_windows(self.probabilities(logits), self.document.genres, waveform, seconds)

    def timeline(self, file: Path | str | bytes, hop_seconds: float | None = None) -> Timeline:
        """A song's genre over time, a window every `hop_seconds`.

        Raises:
            AudioError: the file is missing or is not audio.
        """
        audio = _decoded(file, self.document.input_spec.sample_rate)
        return self.timeline_samples(audio.samples, audio.sample_rate, hop_seconds)

    def timeline_samples(
        self, samples: NDArray[np.float32], sample_rate: int, hop_seconds: float | None = None
    ) -> Timeline:
        """The timeline of a waveform (n,) at `sample_rate` Hz."""
        seconds = len(samples) / sample_rate
        check_hop(hop_seconds, seconds)
        logits, starts = self.window_logits(samples, sample_rate, hop_seconds)
        window_seconds = self.document.input_spec.window_seconds
        return build_timeline(
            self.probabilities(logits), starts, window_seconds, self.document.genres, seconds
        )

    def check_reference(self, folder: Path) -> float:
        """Largest absolute difference, on this processor, to a packaged folder's reference probabilities.

        Raises:
            ModelError: the folder has no readable reference windows.
        """
        inputs, expected = read_reference(folder)
        return float(np.abs(self.probabilities(self.logits(inputs)) - expected).max())


def _decoded(file: Path | str | bytes, rate: int) -> Audio:
    """A file's audio at `rate` Hz; what was left out, joined or chosen in it is logged."""
    audio = decode(file, sample_rate=rate)
    for note in audio.notes:
        log.warning("%s: %s", "the audio" if isinstance(file, bytes) else file, note)
    return audio
