"""The BentoML service: a packaged model behind `POST /classify` and `POST /timeline`.

It stands on the library's runtime and features alone: neither torch nor transformers is needed on a CPU. The
model's tag is pinned: by the file `MODEL_TAG` in a bento, by `GENREFLOW_MODEL_TAG` beside a checkout.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml.exceptions import InvalidArgument
from pydantic import BaseModel, Field

from genreflow import runtime
from genreflow.errors import AudioError, SettingsError

TAG_FILE = Path(__file__).parent / "MODEL_TAG"
TAG_VARIABLE = "GENREFLOW_MODEL_TAG"
MAX_SECONDS_OF_A_REQUEST = 300


def pinned_tag() -> str:
    """The model tag this service was built for; `:latest` would be whatever was imported last here."""
    return TAG_FILE.read_text().strip() if TAG_FILE.is_file() else os.environ[TAG_VARIABLE]


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


AudioFile = Annotated[Path, Field(description="wav, au, flac, mp3, ogg, opus, m4a, webm or mp4, any rate")]


@bentoml.service(name="genreflow", traffic={"timeout": MAX_SECONDS_OF_A_REQUEST}, workers=1)
class GenreClassifier:
    """Classifies music by genre with the promoted model."""

    packaged = bentoml.models.BentoModel(pinned_tag())

    def __init__(self) -> None:
        stored: Any = self.packaged
        self.classifier = runtime.load_checked(Path(stored.path))
        labels = stored.info.labels
        document = self.classifier.document
        self.lineage = Lineage(
            model=str(stored.tag),
            version=labels["version"],
            run_id=document.run_id,
            digest=labels["digest"],
            corpus_fingerprint=document.corpus_fingerprint,
            protocol=document.protocol,
            synthetic=document.synthetic,
            runtime=self.classifier.runtime,
            precision=self.classifier.precision,
        )

    @bentoml.api
    def classify(self, file: AudioFile) -> Answer:
        """The genre of an audio file, all probabilities, and the lineage of the model that answered."""
        try:
            heard = self.classifier.classify(file)
        except AudioError as error:
            raise InvalidArgument(str(error)) from error
        return Answer(**heard.to_dict(), lineage=self.lineage)

    @bentoml.api
    def timeline(
        self,
        file: AudioFile,
        hop_seconds: Annotated[float | None, Field(description="seconds from window to window")] = None,
    ) -> Curve:
        """Probabilities over the song, and the stretches of one genre."""
        try:
            heard = self.classifier.timeline(file, hop_seconds)
        except (AudioError, SettingsError) as error:
            raise InvalidArgument(str(error)) from error
        return Curve(**heard.to_dict(), lineage=self.lineage)
