"""The library's own errors. Each message is a sentence for the reader: what was wrong, where, what to do."""

LONGEST_REASON = 300
"""Characters of another library's text that are shown."""

HOW_TO_INSTALL_TRAINING = "install it with pip install -e '.[train]' in a checkout"


class GenreflowError(Exception):
    """Base of every error that genreflow raises on purpose; the command line prints it with no traceback."""


class AudioError(GenreflowError):
    """A file or waveform that is not usable audio; `reason` is a short code that quarantines count by."""

    def __init__(self, message: str, reason: str = "not-audio") -> None:
        super().__init__(message)
        self.reason = reason


class CorpusError(GenreflowError):
    """A source or corpus from which no honest training or evaluation can be made."""


class FetchError(CorpusError):
    """A file or object of a source that could not be brought here."""


class ObjectStoreError(GenreflowError):
    """A bucket that cannot be reached, read or written."""


class SettingsError(GenreflowError):
    """A setting, profile or option that does not exist or does not fit."""


class ModelError(GenreflowError):
    """A backbone, checkpoint or packaged model that cannot be loaded or is not what it claims to be."""


class TrainingError(GenreflowError):
    """A training run that cannot go on."""


class PublishError(GenreflowError):
    """A model that cannot be published, or a published one that cannot be fetched."""


class RegistryError(GenreflowError):
    """The MLflow registry cannot do what was asked of it."""


class RegistryAwayError(RegistryError):
    """MLflow does not answer, or broke off: the same asked again later may go well."""


class ChampionChangedError(RegistryError):
    """Another version became champion while a candidate was compared with the one before."""


class RequestError(GenreflowError):
    """A request that the service does not answer; `status` is the HTTP status it is refused with."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def one_line(error: BaseException) -> str:
    """The text of another library's error as one line of printable characters; its name where it has none."""
    text = " ".join(str(error).split())[:LONGEST_REASON]
    return "".join(character for character in text if character.isprintable()) or type(error).__name__
