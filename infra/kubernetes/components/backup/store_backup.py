"""Store a dump of the registry's database in a bucket, named by its time; delete the oldest beyond some."""

import argparse
import logging
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import boto3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dump", type=Path)
    parser.add_argument("to", help="s3://BUCKET/PREFIX")
    parser.add_argument("--keep", type=int, default=30, help="how many backups are kept")
    given = parser.parse_args()
    size = given.dump.stat().st_size
    if size == 0:
        raise SystemExit(f"{given.dump} is empty: nothing is stored, and no backup is deleted.")
    place = urlsplit(given.to)
    bucket, prefix = place.netloc, place.path.strip("/")
    client = boto3.client("s3")
    key = f"{prefix}/registry-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.dump"
    client.upload_file(str(given.dump), bucket, key)
    stored = client.head_object(Bucket=bucket, Key=key)["ContentLength"]
    if stored != size:
        raise SystemExit(f"s3://{bucket}/{key} has {stored} bytes instead of {size}: no backup is deleted.")
    logging.info("Stored s3://%s/%s, %d bytes.", bucket, key, size)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/registry-")
    keys = sorted(found["Key"] for page in pages for found in page.get("Contents", []))
    for old in keys[: -max(given.keep, 1)]:
        client.delete_object(Bucket=bucket, Key=old)
        logging.info("Deleted s3://%s/%s.", bucket, old)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
