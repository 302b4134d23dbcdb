"""The document of an evaluation, beside predictions, plots and report."""

from typing import ClassVar

from genreflow.core.documents import Document, Frozen

PREDICTIONS = "predictions.parquet"
"""The predictions beside the document."""

Interval = tuple[float, float]
"""Lower and upper end of a 95 % interval."""


class GenreScores(Frozen):
    """One genre against the rest, per clip. None where a figure is undefined, never a made-up zero."""

    support: int
    """Test clips of the genre."""
    predicted: int
    """Test clips predicted as the genre."""
    precision: float | None
    """None where no clip was predicted as the genre."""
    recall: float | None
    """None where the test split has no clip of the genre."""
    recall_ci95: Interval | None
    """Wilson interval of the recall."""
    f1: float | None
    """None where the genre is neither present nor predicted."""
    auc: float | None
    """Area under the ROC curve of the genre's probability; None where all clips or none are of the genre."""


class Confusion(Frozen):
    """Clips per true genre (rows) and predicted genre (columns), both in label order."""

    genres: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]


class ConfusedPair(Frozen):
    """A true genre that was predicted as another."""

    genre: str
    predicted: str
    count: int
    share: float
    """Of the genre's test clips."""
    examples: tuple[str, ...]
    """Ids of such clips, the surest mistakes first, at most five."""


class ReliabilityBin(Frozen):
    """Clips whose confidence lies in (lower, upper]."""

    lower: float
    upper: float
    count: int
    confidence: float | None
    """Mean confidence; None in an empty bin."""
    accuracy: float | None
    """Share of right answers; None in an empty bin."""


class Calibration(Frozen):
    """Calibration of the probabilities, per clip (mean over windows, after temperature)."""

    ece: float
    """Expected calibration error over equal-width bins of the top probability (Guo et al. 2017), 0 to 1."""
    brier: float
    """Mean over clips of the summed squared error of all genres' probabilities (Brier 1950), 0 to 2."""
    nll: float
    """Mean negative log-likelihood of the true genre, in nats."""
    mean_confidence: float
    bins: tuple[ReliabilityBin, ...]


class ModelIdentity(Frozen):
    """Which model was evaluated."""

    family: str
    pretrained: str | None
    """The backbone it began from; None where trained from scratch."""
    weights_digest: str
    """sha256 over the names and bytes of the model's native files."""
    features_fingerprint: str
    corpus_fingerprint: str
    """The corpus it was trained on."""
    code_version: str
    run_id: str | None
    packaged_digest: str | None = None
    """Of the packaged model; None of an evaluation by version 0.1.0, which was of the trained one."""


class FallbackScores(Frozen):
    """The same model on the same clips with the runtime and precision that serve as its fallback."""

    runtime: str
    precision: str
    accuracy: float
    accuracy_ci95: Interval
    macro_f1: float
    equal_decisions: float
    """Share of test clips with the same predicted genre as with the declared runtime and precision."""

    @property
    def label(self) -> str:
        """Runtime and precision, as reports show them."""
        return f"{self.runtime} {self.precision}"


class EvaluationDocument(Document):
    """How good a model is on a test split. Beside it: `predictions.parquet`, `report.html`, `plots/`."""

    file_name: ClassVar[str] = "evaluation.json"
    accuracy: float
    """Share of test clips whose mean window probabilities put the true genre first."""
    accuracy_ci95: Interval
    """Wilson interval; clips with the same recording count once in its width."""
    macro_f1: float
    """Mean F1 over the genres that are present or predicted (scikit-learn's default)."""
    macro_f1_ci95: Interval
    """Percentile bootstrap over clips, those with the same recording drawn together."""
    macro_auc: float | None = None
    """Mean one-against-the-rest AUC over the genres where it is defined."""
    vote_accuracy: float
    """Share of test clips that the majority of windows predicts correctly."""
    window_accuracy: float
    """Share of single windows predicted correctly."""
    per_genre: dict[str, GenreScores]
    confusion: Confusion
    most_confused: tuple[ConfusedPair, ...]
    calibration: Calibration
    clips: int
    windows: int
    genres: tuple[str, ...]
    """Label order of the model."""
    model: ModelIdentity
    corpus_fingerprint: str
    """The corpus of the test clips."""
    split_fingerprint: str | None = None
    """None of an evaluation by version 0.1.0, whose corpora held the split."""
    source: str
    protocol: str
    fold: int | None
    leaky: bool
    leak_reason: str | None
    seen_clips: int
    """Test clips whose file or audio was used in training or selection; 0 on a leak-free split."""
    synthetic: bool
    pretrained: str | None
    pretraining: str | None = None
    """What the backbone was trained on and under which licence, where known."""
    seconds: float
    """Wall-clock seconds for predicting the test split, with the fallback where there is one."""
    code_version: str
    runtime: str = "pytorch"
    """What predicted: the one that the packaged model declares to be served with, where it runs here."""
    precision: str = "f32"
    instruction_set: str | None = None
    """Of the processor that predicted (`genreflow.inference.processor.instruction_set`); None of 0.1.0."""
    fallback: FallbackScores | None = None
    """None where the fallback itself was scored."""

    @property
    def scored_with(self) -> str:
        """Runtime and precision, as reports show them."""
        return f"{self.runtime} {self.precision}"

    @property
    def measured(self) -> bool:
        """Whether any clip was new to the model; where none was, the figures say nothing of it."""
        return self.seen_clips < self.clips

    @property
    def headline(self) -> str:
        """How good, in a line."""
        if not self.measured:
            return f"Not measured: all {self.clips} clips were trained on."
        low, high = self.accuracy_ci95
        return (
            f"Accuracy {self.accuracy * 100:.1f} % on {self.clips} test clips "
            f"(95 % interval {low * 100:.1f} % to {high * 100:.1f} %), macro F1 {self.macro_f1:.3f}."
        )

    def scalars(self) -> dict[str, float]:
        """The headline figures under flat names, for MLflow and KFP `Metrics`; none where not measured."""
        if not self.measured:
            return {"test_clips": 0.0}
        figures = {
            "accuracy": self.accuracy,
            "accuracy_ci95_low": self.accuracy_ci95[0],
            "accuracy_ci95_high": self.accuracy_ci95[1],
            "macro_f1": self.macro_f1,
            "macro_f1_ci95_low": self.macro_f1_ci95[0],
            "macro_f1_ci95_high": self.macro_f1_ci95[1],
            "vote_accuracy": self.vote_accuracy,
            "window_accuracy": self.window_accuracy,
            "ece": self.calibration.ece,
            "brier": self.calibration.brier,
            "nll": self.calibration.nll,
            "test_clips": float(self.clips),
        }
        if self.macro_auc is not None:
            figures["macro_auc"] = self.macro_auc
        for genre, scores in self.per_genre.items():
            for name in ("precision", "recall", "f1", "auc"):
                value = getattr(scores, name)
                if value is not None:
                    figures[f"{name}_{genre}"] = value
        return figures
