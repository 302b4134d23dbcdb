"""The service's response types, with the examples that its OpenAPI page shows."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from genreflow.core.genres import GENRES

_PROBABILITIES = dict.fromkeys(GENRES, 0.02) | {"jazz": 0.71, "blues": 0.13}
_LINEAGE = {
    "model": "genreflow:v3-0f3a9c2b7d41",
    "version": "3",
    "run_id": "5f2c1e7a9b6d4a0f8c3e2b1d7a6f5e4c",
    "digest": "0f3a9c2b7d41" + 52 * "0",
    "corpus_fingerprint": "c0ffee" + 58 * "0",
    "protocol": "fault-filtered",
    "synthetic": False,
    "runtime": "openvino",
    "precision": "bf16",
}
_STRETCH = {"start": 0.0, "end": 61.5, "genre": "jazz", "probability": 0.74}


def _example(value: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"example": value}, extra="forbid")


class Lineage(BaseModel):
    """The model behind an answer, and what it was made from."""

    model_config = _example(_LINEAGE)
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


_ANSWER = {
    "genre": "jazz",
    "confidence": 0.71,
    "probabilities": _PROBABILITIES,
    "vote": "jazz",
    "seconds": 214.6,
    "windows": 22,
    "unsure": False,
    "threshold": 0.5,
    "reason": None,
    "lineage": _LINEAGE,
}


class Answer(BaseModel):
    """The genre of one clip."""

    model_config = _example(_ANSWER)
    genre: str
    confidence: float = Field(description="mean calibrated probability of `genre` over the windows, 0 to 1")
    probabilities: dict[str, float]
    vote: str = Field(description="the genre on top in most windows")
    seconds: float = Field(description="seconds of audio analysed")
    windows: int
    unsure: bool = Field(description="do not rely on `genre`: `reason` says why")
    threshold: float = Field(description="a confidence below it is unsure")
    reason: str | None = Field(
        description="why: `silence`, `noise`, `a steady tone`, or the low confidence; null where sure"
    )
    lineage: Lineage


class Segment(BaseModel):
    """A part of a song with one predicted genre; times in seconds."""

    model_config = _example(_STRETCH)
    start: float
    end: float
    genre: str
    probability: float = Field(description="mean probability of `genre` over the segment's windows")


class Timeline(BaseModel):
    """The genres of a song over time."""

    model_config = _example(
        {
            "genres": list(_PROBABILITIES),
            "starts": [0.0],
            "ends": [61.5],
            "probabilities": [list(_PROBABILITIES.values())],
            "segments": [_STRETCH],
            "lineage": _LINEAGE,
        }
    )
    genres: list[str]
    starts: list[float] = Field(description="window starts in seconds")
    ends: list[float] = Field(description="window ends in seconds")
    probabilities: list[list[float]] = Field(description="(windows, genres)")
    segments: list[Segment]
    lineage: Lineage


_PROBLEM = {"error": "song.wav is empty: it holds no bytes."}


class ErrorResponse(BaseModel):
    """The body of every error: one sentence on what was wrong and what to do."""

    model_config = _example(_PROBLEM)
    error: str


class BatchAnswer(BaseModel):
    """The answer for one file of many: `answer`, or the `error` that this file alone has."""

    model_config = _example({"file": "song.mp3", "answer": _ANSWER, "error": None})
    file: str = Field(description="the name it was uploaded under")
    answer: Answer | None
    error: str | None


class ModelCard(BaseModel):
    """The model in service, its evaluation, and why it is served."""

    model_config = _example(
        {
            "lineage": _LINEAGE,
            "accuracy": 0.81,
            "accuracy_ci95": [0.76, 0.85],
            "corpus": _LINEAGE["corpus_fingerprint"],
            "protocol": "fault-filtered",
            "leaky": False,
            "synthetic": False,
            "reason": "better by 4.1 points (95 % interval 0.9 to 7.3) on 290 unseen clips",
            "registry": "connected",
            "runtime": "openvino",
            "precision": "bf16",
            "notes": [],
        }
    )
    lineage: Lineage
    accuracy: float | None = Field(
        description="share of test clips predicted correctly; null where not evaluated"
    )
    accuracy_ci95: tuple[float, float] | None = Field(description="its 95 % interval")
    corpus: str = Field(description="fingerprint of the corpus it was trained and tested on")
    protocol: str = Field(description="how clips were split")
    leaky: bool = Field(description="the split lets the test look better than new music would")
    synthetic: bool
    reason: str | None = Field(description="why it was made champion")
    registry: str = Field(
        description="`connected`, or a sentence on why the registry is not followed; it keeps serving"
    )
    runtime: str
    precision: str
    notes: list[str] = Field(description="what an operator should know, a sentence each")
