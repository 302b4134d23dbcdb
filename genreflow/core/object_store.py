"""Buckets of an object store: the client, and its errors as sentences.

The endpoint and the credentials are boto3's: `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, profiles, roles.
"""

import os
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from genreflow.core.errors import HOW_TO_INSTALL_TRAINING, ObjectStoreError, one_line

CONNECT_SECONDS, READ_SECONDS = 10, 30


def parts(address: str) -> tuple[str, str]:
    """Bucket and prefix of `s3://BUCKET/PREFIX`, the prefix without slashes at its ends.

    Raises:
        ObjectStoreError: it names no bucket.
    """
    bucket = urlsplit(address).netloc
    if not bucket or not address.startswith("s3://"):
        raise ObjectStoreError(f"{address} names no bucket: s3://BUCKET/PREFIX does.")
    return bucket, address.removeprefix(f"s3://{bucket}").strip("/")


def client(address: str, connections: int, attempts: int) -> Any:
    """A boto3 client for an address.

    Args:
        address: for the sentence where there can be none.
        connections: that are open at once.
        attempts: of one request, with growing pauses, unless `AWS_MAX_ATTEMPTS` says another number.

    Raises:
        ObjectStoreError: boto3 is not installed, or its settings make no client.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise ObjectStoreError(f"s3:// needs boto3: {HOW_TO_INSTALL_TRAINING}.") from error
    retries = {} if "AWS_MAX_ATTEMPTS" in os.environ else {"mode": "standard", "total_max_attempts": attempts}
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=connections,
        retries=retries,
        user_agent_extra="genreflow",
    )
    try:
        return boto3.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise ObjectStoreError(f"{address} cannot be opened: {one_line(error)}") from error


def error_types() -> tuple[type[Exception], ...]:
    """What boto3 raises where a request went wrong."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return (ClientError, BotoCoreError, Boto3Error)


def code(error: Exception) -> str:
    """The store's own code of an error, such as `NoSuchKey`; empty where it gave none."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def describe_error(error: Exception, address: str, endpoint: str, what: str) -> tuple[str, str]:
    """What went wrong with a bucket, and what the reader can do about it, as sentences.

    Args:
        error: one of `errors()`.
        address: `s3://BUCKET/PREFIX`.
        endpoint: the client's URL.
        what: what could not be done to it: "listed".

    Returns:
        A sentence, and another or nothing.
    """
    from botocore.exceptions import (
        ConnectionError as Unreachable,
    )
    from botocore.exceptions import (
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    where = f"{address} at {endpoint}"
    # the transfer manager wraps what went wrong the last time
    error = getattr(error, "last_exception", None) or error
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return (
            f"{address} needs credentials:",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
        )
    if isinstance(error, (Unreachable, HTTPClientError)):
        return f"{where} does not answer ({one_line(error)}).", "Check AWS_ENDPOINT_URL, and run again."
    error_code = code(error)
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    if error_code == "NoSuchBucket":
        return f"There is no bucket {parts(address)[0]} at {endpoint}.", ""
    if error_code == "RequestTimeTooSkewed":
        now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        return (
            f"{where} cannot be {what}: the clock here ({now}) and the store's differ by too much "
            f"({error_code}).",
            "Set it right, and run again.",
        )
    if status in (401, 403):
        return f"{where} cannot be {what}: the credentials are refused ({error_code}).", ""
    if error_code in ("SlowDown", "Throttling", "RequestLimitExceeded", "503") or status in (429, 503):
        return f"{where} limits the request rate ({error_code}) and keeps doing so.", "Run again later."
    return f"{where} cannot be {what}: {one_line(error)}", ""


def _response(error: Exception) -> dict[str, Any]:
    """What the store answered; nothing where it did not."""
    return getattr(error, "response", None) or {}
