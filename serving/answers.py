"""What the service answers: the types of its API, with what each field means."""

from pydantic import BaseModel, Field


class Lineage(BaseModel):
    """Which model answered, and what it was made from."""

    model: str = Field(description="BentoML model tag")
    version: str = Field(description="version in the MLflow registry")
    run_id: str | None = Field(description="MLflow run that trained it")
    digest: str = Field(description="sha256 over the weights and what decides the answers")
    corpus_fingerprint: str
    protocol: str
    synthetic: bool = Field(
        description="trained on synthetic music: a demonstration, not a classifier of real music"
    )
    runtime: str
    precision: str


class Answer(BaseModel):
    """The genre of one clip."""

    genre: str
    confidence: float = Field(description="mean probability of `genre` over the windows, 0 to 1")
    probabilities: dict[str, float]
    vote: str = Field(description="the genre on top in most windows")
    seconds: float = Field(description="seconds of audio analysed")
    windows: int
    unsure: bool = Field(description="the genre is no more than a guess; `reason` says why")
    threshold: float = Field(description="below this confidence the answer is unsure")
    reason: str | None = Field(description="why the answer is unsure; null where it is not")
    lineage: Lineage


class Stretch(BaseModel):
    """A stretch of a song with one genre on top; times in seconds."""

    start: float
    end: float
    genre: str
    probability: float


class Curve(BaseModel):
    """The genres of a song over time."""

    genres: list[str]
    starts: list[float] = Field(description="window starts in seconds")
    ends: list[float] = Field(description="window ends in seconds")
    probabilities: list[list[float]] = Field(description="(windows, genres)")
    segments: list[Stretch]
    lineage: Lineage


class ModelCard(BaseModel):
    """The model that is served: how good it is, on what that was measured, and how it runs here."""

    lineage: Lineage
    accuracy: float | None = Field(description="share of test clips named right, 0 to 1; null: not measured")
    accuracy_ci95: tuple[float, float] | None = Field(description="95 % interval of the accuracy")
    corpus: str = Field(description="what it was trained and tested on")
    protocol: str = Field(description="how clips were split into training and test")
    leaky: bool = Field(description="the split flatters: test clips are too close to training clips")
    leak_reason: str | None = Field(description="why figures on this split flatter, in a sentence")
    synthetic: bool
    gate_reason: str | None = Field(description="why it became champion")
    registry: str = Field(description="`connected`, or a sentence on why the registry is not reached")
    runtime: str
    precision: str
    notes: list[str] = Field(description="what else a user should know, a sentence each")
