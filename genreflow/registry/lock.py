"""A lock in the MLflow store itself: one process at a time changes the registry."""

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from genreflow.registry.store import MODEL_NAME

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_NAME = f"{MODEL_NAME}.lock"
HOLDER_TAG = "held_by"
STALE_SECONDS = 60.0
"""A lock held for longer was left by a process that was killed: the work takes a second or two."""
POLL_SECONDS = (0.1, 0.4)
TAKEN = ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST")
"""MLflow's error codes for the second process; the latter where the first had just released the lock."""

log = logging.getLogger("genreflow")


@contextmanager
def registry_lock(client: "MlflowClient") -> Iterator[None]:
    """Hold the registry's lock for the block: other holders wait.

    MLflow has neither transactions nor a compare-and-set. But of all who create a registered model of the
    same name just one succeeds, in every store: the process that creates `LOCK_NAME` has the lock, and
    deletes it in the end. One that a killed process left behind is removed by the next process that waited
    `STALE_SECONDS` for it; no clock is compared with another.
    """
    me = f"{socket.gethostname()} {os.getpid()} {threading.get_ident()}"
    _acquire(client, me)
    try:
        yield
    finally:
        _release(client, me)


def _acquire(client: "MlflowClient", me: str) -> None:
    seen, since = None, time.monotonic()
    while not _try_create(client, me):
        held = _holder(client)
        if held is not None and held[0] == me:
            return  # by a request whose answer was lost, or before MLflow went away
        if held != seen:
            seen, since = held, time.monotonic()
            log.info("The registry is being changed by %s: waiting.", held and held[0])
        elif held is not None and time.monotonic() - since > STALE_SECONDS:
            log.warning(
                "%s has held the lock for a minute and is considered dead: the lock is removed.",
                held[0],
            )
            _delete(client)
        else:
            time.sleep(random.uniform(*POLL_SECONDS))


def _try_create(client: "MlflowClient", me: str) -> bool:
    from mlflow.exceptions import MlflowException

    why = "Held for a second while a version is registered or promoted; it may be deleted where it stays."
    try:
        client.create_registered_model(LOCK_NAME, tags={HOLDER_TAG: me}, description=why)
    except MlflowException as error:
        if error.error_code not in TAKEN:
            raise
        return False
    return True


def _holder(client: "MlflowClient") -> tuple[str, int] | None:
    """The lock's holder and the store's time of its creation; None where it is free."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(LOCK_NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return found.tags.get(HOLDER_TAG, "an unknown process"), found.creation_timestamp


def _release(client: "MlflowClient", me: str) -> None:
    """Delete the lock; a failure is logged only, since the work under it is done."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        held = _holder(client)
        if held is not None and held[0] == me:
            _delete(client)
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        log.warning("The lock %s stays for %g seconds: %s", LOCK_NAME, STALE_SECONDS, error)


def _delete(client: "MlflowClient") -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.delete_registered_model(LOCK_NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
