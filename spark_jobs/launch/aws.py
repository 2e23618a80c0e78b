"""Reaching AWS: clients that ride out its short failures, and where launches are kept by default."""

import os
from typing import TYPE_CHECKING, Any, Literal, overload

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_emr_serverless import EMRServerlessClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_ssm import SSMClient

PROJECT = {"project": "audience-explorer"}  # the tag of all that is this project's

# At a request that is throttled, or meets a server error or a lost connection; with growing waits.
_ATTEMPTS = 10


@overload
def client(service: Literal["ec2"], region: str | None, attempts: int = _ATTEMPTS) -> "EC2Client": ...
@overload
def client(
    service: Literal["emr-serverless"], region: str | None, attempts: int = _ATTEMPTS
) -> "EMRServerlessClient": ...
@overload
def client(service: Literal["s3"], region: str | None, attempts: int = _ATTEMPTS) -> "S3Client": ...
@overload
def client(service: Literal["ssm"], region: str | None, attempts: int = _ATTEMPTS) -> "SSMClient": ...
@overload
def client(service: Literal["iam", "service-quotas", "sts"], region: str | None, attempts: int = _ATTEMPTS) -> Any: ...
def client(
    service: Literal["ec2", "emr-serverless", "iam", "s3", "service-quotas", "ssm", "sts"],
    region: str | None,
    attempts: int = _ATTEMPTS,
) -> "EC2Client | EMRServerlessClient | S3Client | SSMClient | Any":
    """A client of a region, by default that of AWS's usual settings.

    Args:
        service: Which.
        region: Its name.
        attempts: How often a request that fails is made, all in all.
    """
    import boto3  # slow to import, and command lines should not be
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": attempts}
    config = Config(retries=retries, connect_timeout=5, read_timeout=30)  # type: ignore[arg-type]
    # boto3 knows AWS_DEFAULT_REGION only, most others AWS_REGION.
    region = region or os.environ.get("AWS_REGION") or None
    return boto3.client(service, region_name=region, config=config)


def launches_of_root() -> str | None:
    """Where launches are kept by default: below the root, if that is on S3."""
    root = os.environ.get("AUDIENCE_EXPLORER_ROOT", "")
    return f"{root.rstrip('/')}/launches" if root.startswith("s3://") else None
