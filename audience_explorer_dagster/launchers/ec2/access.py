"""Reaching AWS: clients that ride out its short failures, and where things are if nobody says."""

import os
from typing import TYPE_CHECKING, Literal, overload

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_emr_serverless import EMRServerlessClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_ssm import SSMClient

# At a request that is throttled, or meets an error of the server's or a lost connection; with growing waits.
_ATTEMPTS = 10


@overload
def client(service: Literal["ec2"], region: str | None, once: bool = False) -> "EC2Client": ...
@overload
def client(service: Literal["emr-serverless"], region: str | None, once: bool = False) -> "EMRServerlessClient": ...
@overload
def client(service: Literal["s3"], region: str | None, once: bool = False) -> "S3Client": ...
@overload
def client(service: Literal["ssm"], region: str | None, once: bool = False) -> "SSMClient": ...
def client(
    service: Literal["ec2", "emr-serverless", "s3", "ssm"], region: str | None, once: bool = False
) -> "EC2Client | EMRServerlessClient | S3Client | SSMClient":
    """A client of a region, by default that of AWS's usual settings.

    Args:
        service: Which.
        region: Its name.
        once: Repeat no request that fails.
    """
    import boto3  # takes its time, which command lines have not
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": 1 if once else _ATTEMPTS}
    config = Config(retries=retries, connect_timeout=5, read_timeout=30)  # type: ignore[arg-type]
    # boto3 knows AWS_DEFAULT_REGION only, most others AWS_REGION.
    region = region or os.environ.get("AWS_REGION") or None
    return boto3.client(service, region_name=region, config=config)


def launches_of_root() -> str | None:
    """Where launches are kept if nobody says: below the root, if that is on S3."""
    root = os.environ.get("AUDIENCE_EXPLORER_ROOT", "")
    return f"{root.rstrip('/')}/launches" if root.startswith("s3://") else None
