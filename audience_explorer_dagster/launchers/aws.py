"""Errors of AWS's, as all launchers on AWS take them."""

from botocore.exceptions import BotoCoreError, ClientError


def is_refusal(error: BotoCoreError | ClientError) -> bool:
    """Whether AWS refused a request, and did not merely fail to answer it."""
    return isinstance(error, ClientError) and error.response["ResponseMetadata"]["HTTPStatusCode"] < 500


def is_unauthorized(error: BotoCoreError | ClientError) -> bool:
    """Whether EC2 says that the caller may not do this."""
    return isinstance(error, ClientError) and error.response["Error"]["Code"] == "UnauthorizedOperation"
