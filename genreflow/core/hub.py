"""Hugging Face hubs: their errors, as sentences.

The hub is `HF_ENDPOINT`'s, the token `HF_TOKEN` or what `hf auth login` has kept.
"""

import contextlib
from collections.abc import Iterator

from genreflow.core.errors import HOW_TO_INSTALL_TRAINING, GenreflowError, one_line

REMEDIES = {
    401: "set HF_TOKEN to a valid token",
    403: "set HF_TOKEN to a token that may {verb} it",
    404: "it knows no such repository or file",
    409: "something of that name is there already, or is being changed: run again",
    412: "it was changed meanwhile: run again",
    413: "that is more than it accepts",
    429: "it limits the request rate; run again later",
}


@contextlib.contextmanager
def translate_errors(address: str, verb: str, kind: type[GenreflowError], otherwise: str) -> Iterator[None]:
    """Turn what the hub's library raises into sentences.

    Args:
        address: `hf://…`, as given.
        verb: what is done to it: "read".
        kind: the error to raise.
        otherwise: what to do about an answer that says nothing of its reason.
    """
    try:
        from huggingface_hub import constants, errors
    except ImportError as error:
        raise kind(f"hf:// needs huggingface_hub: {HOW_TO_INSTALL_TRAINING}.") from error
    hub = constants.ENDPOINT
    try:
        yield
    except errors.GatedRepoError as error:
        raise kind(f"{address} is gated: accept its conditions at {hub} and set HF_TOKEN.") from error
    except errors.RepositoryNotFoundError as error:
        raise kind(
            f"There is no {address} at {hub}, or it is private: then set HF_TOKEN to a token that may "
            f"{verb} it."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise kind(f"{address} has no such revision at {hub}.") from error
    except errors.OfflineModeIsEnabled as error:
        raise kind(f"{address} cannot be {_done(verb)}: HF_HUB_OFFLINE is set. Unset it.") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        remedy = REMEDIES.get(int(status), otherwise) if isinstance(status, int) else otherwise
        raise kind(f"{address}: {hub} answers {status}; {remedy.format(verb=verb)}.") from error
    except errors.HFValidationError as error:
        raise kind(f"{address} names no repository: {one_line(error)}") from error
    except (errors.LocalEntryNotFoundError, errors.HTTPError) as error:
        raise kind(
            f"{address}: {hub} does not answer ({one_line(error.__cause__ or error)}). "
            "Check HF_ENDPOINT and the network, and run again."
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        reason = one_line(error.__cause__ or error).rstrip(".")
        raise kind(f"{address} could not be {_done(verb)}: {reason}; {otherwise}.") from error


def _done(verb: str) -> str:
    return {"read": "fetched", "write": "written"}[verb]
