"""The library's own errors. Each message is a sentence for the reader: what was wrong, where, what to do."""

from collections.abc import Sequence
from typing import ClassVar

LONGEST_REASON = 300
"""Characters of another library's text that are shown."""

HOW_TO_INSTALL_TRAINING = "install it with pip install -e '.[train]' in a checkout"


class GenreflowError(Exception):
    """Base of every error that genreflow raises on purpose; the command line prints it with no traceback."""

    permanent: ClassVar[bool] = False
    """Whether the same step with the same arguments ends in it again, whenever and wherever it is run."""


class NewerDocumentError(GenreflowError):
    """A document whose schema version is newer than this genreflow reads."""


class AudioError(GenreflowError):
    """A file or waveform that is not usable audio; `reason` is a short code that quarantines count by."""

    def __init__(self, message: str, reason: str = "not-audio") -> None:
        super().__init__(message)
        self.reason = reason


class CorpusError(GenreflowError):
    """A source or corpus that cannot be trained or evaluated on."""


class ArtifactMissingError(GenreflowError):
    """An artifact of an earlier step that is missing or incomplete where another step reads it."""


class GenreCountError(CorpusError):
    """A source with too few clips of some genres: `short` names them."""

    def __init__(self, message: str, short: Sequence[str]) -> None:
        super().__init__(message)
        self.short = tuple(short)


class FetchError(CorpusError):
    """A file or object of a source that could not be fetched."""


class ObjectStoreError(GenreflowError):
    """A bucket that cannot be reached, read or written."""


class SettingsError(GenreflowError):
    """A setting, profile or option that does not exist or does not fit."""


class ModelError(GenreflowError):
    """A backbone, checkpoint or packaged model that cannot be loaded or is not what it claims to be."""


class TrainingError(GenreflowError):
    """A training run that cannot go on."""


class DivergedError(TrainingError):
    """A training run whose loss is no longer a number."""

    permanent = True


class FailedBeforeError(TrainingError):
    """An earlier attempt of the same step ended in an error that is permanent; the message is its own."""

    permanent = True


class PublishError(GenreflowError):
    """A model that cannot be published, or a published one that cannot be fetched."""


class RegistryError(GenreflowError):
    """The MLflow registry cannot do what was requested."""


class NoRegistryError(RegistryError):
    """The state folder has no MLflow store yet."""


class RegistryUnavailableError(RegistryError):
    """MLflow does not respond, or the connection was lost: the same request may succeed later."""


class ChampionChangedError(RegistryError):
    """Another version became champion while a candidate was compared with the one before."""


class RequestError(GenreflowError):
    """A request that the service does not answer; `status` is the HTTP status it is refused with."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def one_line(error: BaseException | str, first: bool = False, longest: int = LONGEST_REASON) -> str:
    """Another library's error as one line of printable characters, to be put into a sentence.

    Args:
        error: an exception, or a text; an exception without a text is given as the name of its type.
        first: only its first line: libraries add a query, a trace or a location in the lines after it.
        longest: characters; what is longer ends in an ellipsis.
    """
    text = str(error).strip()
    if first:
        text = text.partition("\n")[0]
    words = " ".join(text.split())
    words = "".join(character for character in words if character.isprintable())
    if not words and isinstance(error, BaseException):
        return type(error).__name__
    return words if len(words) <= longest else f"{words[: longest - 1].rstrip()}…"
