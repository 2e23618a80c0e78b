"""Whether an object on S3 does not exist, also for those who may not list the whole bucket.

S3 answers 404 only to those who may list the bucket without a condition. To those who may list it by prefix, as the
policies of this project have it, it answers 403: as if they might not read what is not there.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
"""

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from spark_jobs import kms

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def is_missing(s3: "S3Client", bucket: str, key: str, error: ClientError) -> bool:
    """Whether an object does not exist, after a request to read it failed.

    Args:
        s3: The client that made the request.
        bucket: The object's bucket.
        key: Its key.
        error: What the request failed with.
    """
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status == 404:
        return error.response["Error"]["Code"] != "NoSuchBucket"
    if status != 403 or kms.is_denied(error.response["Error"].get("Message", "")):
        return False
    try:
        # Of the keys that begin with it, a key itself is the first.
        found = s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
    except (BotoCoreError, ClientError):
        return False
    return all(listed["Key"] != key for listed in found.get("Contents", []))
