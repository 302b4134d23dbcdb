"""The BentoML service: a packaged model behind `POST /classify` and `POST /timeline`.

It stands on the library's runtime and features alone: neither torch nor transformers is needed on a CPU. The
model's tag is pinned: by the file `MODEL_TAG` in a bento, by `GENREFLOW_MODEL_TAG` beside a checkout.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml.exceptions import InvalidArgument
from pydantic import Field

from genreflow import doubt, runtime
from genreflow.audio import decode
from genreflow.errors import AudioError, SettingsError
from serving.answers import Answer, Curve, Lineage

TAG_FILE = Path(__file__).parent / "MODEL_TAG"
TAG_VARIABLE = "GENREFLOW_MODEL_TAG"
MAX_SECONDS_OF_A_REQUEST = 300


def pinned_tag() -> str:
    """The model tag this service was built for; `:latest` would be whatever was imported last here."""
    return TAG_FILE.read_text().strip() if TAG_FILE.is_file() else os.environ[TAG_VARIABLE]


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
            audio = decode(file)
            heard = self.classifier.classify_samples(audio.samples, audio.sample_rate)
        except AudioError as error:
            raise InvalidArgument(str(error)) from error
        reason = doubt.reason(audio.samples, heard.confidence)
        return Answer(
            **heard.to_dict(),
            unsure=reason is not None,
            threshold=doubt.UNSURE_BELOW,
            reason=reason,
            lineage=self.lineage,
        )

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
