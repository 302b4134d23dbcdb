"""Create the buckets that are named as arguments; those that exist stay as they are."""

import logging
import sys

import boto3


def main(buckets: list[str]) -> None:
    client = boto3.client("s3")
    existing = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for bucket in buckets:
        if bucket not in existing:
            client.create_bucket(Bucket=bucket)
            logging.info("Created the bucket %s.", bucket)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(sys.argv[1:])
