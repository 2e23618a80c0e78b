"""Whether a launcher on AWS would work as it is configured: what a check finds, and the checks that all of them share.

Nothing is made or changed, and nothing costs.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from spark_jobs.errors import as_clause

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_s3 import S3Client

# `warning` works, but not as well as it could. `unseen` may or may not work: it could not be looked at.
State = Literal["ok", "warning", "unseen", "failed"]

_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
# The actions of requests that are not named after them.
_ACTIONS = {
    "GetApplication": "emr-serverless:GetApplication",
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "GetRole": "iam:GetRole",
    "GetServiceQuota": "servicequotas:GetServiceQuota",
    "ListObjectsV2": "s3:ListBucket",
    "SimulatePrincipalPolicy": "iam:SimulatePrincipalPolicy",
}
_NEEDED = {"ec2:DescribeImages", "emr-serverless:GetApplication"}  # by launches themselves
_OF_EC2 = "ami/iam"  # the folder of the policies of the launcher `ec2`


@dataclass(frozen=True)
class Result:
    """What a check has found.

    Attributes:
        check: What was checked.
        state: Whether it would work.
        finding: What was found, in a line.
        to_do: What to do about it; empty if it is fine.
    """

    check: str
    state: State
    finding: str
    to_do: str = ""


def looked(check: str, look: Callable[[], list[Result]], policies: str = _OF_EC2) -> list[Result]:
    """The results of a check, or the one result that AWS did not let it look.

    Args:
        check: Its name.
        look: Does it.
        policies: The folder of the launcher's policies, which what to do names; here, and below.
    """
    try:
        return look()
    except ClientError as error:
        if error.response["Error"]["Code"] in _DENIED:
            action = _ACTIONS.get(error.operation_name, f"ec2:{error.operation_name}")
            if action in _NEEDED:
                to_do = f"Allow {action}, as {policies}/launcher.json does."
                return [Result(check, "failed", f"launches need {action}, which is not allowed", to_do)]
            to_do = f"Allow {action}, as {policies}/check.json does, or look yourself."
            return [Result(check, "unseen", f"can't be seen: needs {action}", to_do)]
        return [Result(check, "failed", f"AWS refuses {error.operation_name}: {message_of(error)}", "See its message.")]
    except BotoCoreError as error:
        return [Result(check, "failed", as_clause(" ".join(str(error).split())), "Mend that, then check again.")]


def message_of(error: ClientError) -> str:
    """The code of an error of AWS's, and what it says, without what only AWS can read."""
    said = error.response["Error"]
    message = re.sub(r"\s*Encoded authorization failure message:.*", "", said.get("Message", ""), flags=re.DOTALL)
    return f"{said['Code']}: {as_clause(' '.join(message.split()))}"


def home_region(region: str | None) -> str:
    """The region of a partition that every account of it has, which answers for the others."""
    homes = {"cn-": "cn-north-1", "us-gov-": "us-gov-west-1"}
    return next((home for prefix, home in homes.items() if (region or "").startswith(prefix)), "us-east-1")


def identity(sts: Any, policies: str = _OF_EC2) -> list[Result]:
    """Who asks. AWS answers that to anybody with valid credentials."""
    try:
        caller = sts.get_caller_identity()
    except ClientError as error:
        to_do = "Sign in again, or make new keys. If they are right, compare this machine's clock."
        return [Result("identity", "failed", f"AWS does not accept the credentials: {message_of(error)}", to_do)]
    except BotoCoreError as error:
        to_do = "Give credentials: aws configure, aws sso login, AWS_PROFILE, or a role of this machine."
        return [Result("identity", "failed", as_clause(error), to_do)]
    who = f"{caller['Arn']}, account {caller['Account']}"
    if caller["Arn"].endswith(":root"):
        to_do = f"Use a role with {policies}/launcher.json: nothing can be denied to this one, so it proves no rights."
        return [Result("identity", "warning", f"{who}: the account's root user", to_do)]
    return [Result("identity", "ok", who)]


def region(ec2: "EC2Client", name: str | None, policies: str = _OF_EC2) -> list[Result]:
    """Whether a region is one of EC2's, and enabled.

    Args:
        ec2: A client of the partition's home region: in one that is not enabled, no credentials are valid.
        name: The region that is configured; None if none is.
        policies: See `looked`.
    """
    if not name:
        return [Result("region", "failed", "no region is configured", "Name one: export AWS_REGION=eu-west-1")]
    return looked("region", lambda: [_region(ec2, name)], policies)


def _region(ec2: "EC2Client", name: str) -> Result:
    regions = {of["RegionName"]: of for of in ec2.describe_regions(AllRegions=True)["Regions"]}
    if name not in regions:
        near = difflib.get_close_matches(name, regions, n=1)
        guess = f", such as {near[0]}" if near else ""
        return Result("region", "failed", f"{name} is not one of EC2's regions", f"Name another: AWS_REGION{guess}.")
    if regions[name].get("OptInStatus") == "not-opted-in":
        to_do = f"aws account enable-region --region-name {name} (it takes some minutes), or name another."
        return Result("region", "failed", f"{name} is not enabled in this account", to_do)
    return Result("region", "ok", name)


def buckets(s3: "S3Client", locations: Sequence[str], region_name: str, policies: str = _OF_EC2) -> list[Result]:
    """Whether the buckets of some locations (`s3://bucket/prefix`) are there, in a region, and can be listed; and by
    which keys they encrypt."""
    prefixes: dict[str, list[str]] = {}
    for location in locations:
        bucket, _, prefix = location.removeprefix("s3://").partition("/")
        of_bucket = prefixes.setdefault(bucket, [])
        of_bucket += [prefix.strip("/")] if prefix.strip("/") not in of_bucket else []
    return [result for bucket, of in prefixes.items() for result in _bucket(s3, bucket, of, region_name, policies)]


def _bucket(s3: "S3Client", name: str, prefixes: Sequence[str], region_name: str, policies: str) -> list[Result]:
    check = f"bucket {name}"
    found = looked(check, lambda: [_place(s3, check, name, region_name)], policies)
    if found[0].state != "ok":
        return found
    listed = looked(check, lambda: _listed(s3, check, name, prefixes, policies), policies)
    return [*(listed or found), *looked(f"{check}, encryption", lambda: [_encryption(s3, name)], policies)]


def _place(s3: "S3Client", check: str, name: str, region_name: str) -> Result:
    """Whether a bucket is there, and in which region: S3 says so also to those who may not look into it."""
    try:
        answer: Any = s3.head_bucket(Bucket=name)["ResponseMetadata"]
    except ClientError as error:
        answer = error.response["ResponseMetadata"]
        if answer["HTTPStatusCode"] == 404:
            to_do = f"aws s3 mb s3://{name} --region {region_name}"
            return Result(check, "failed", "there is no such bucket", to_do)
        if answer["HTTPStatusCode"] != 403:
            raise
    place = answer["HTTPHeaders"].get("x-amz-bucket-region", region_name)
    if place != region_name:
        to_do = f"Make one in {region_name}, or launch in {place}: between regions every byte costs."
        return Result(check, "failed", f"it is in {place}, and launches are in {region_name}", to_do)
    return Result(check, "ok", f"it is there, in {place}")


def _listed(s3: "S3Client", check: str, name: str, prefixes: Sequence[str], policies: str) -> list[Result]:
    """What can't be listed, though launches need it."""
    refused = []
    for prefix in prefixes:
        try:
            s3.list_objects_v2(Bucket=name, Prefix=f"{prefix}/" if prefix else "", MaxKeys=1)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _DENIED:
                raise
            refused.append(f"s3://{name}/{prefix}")
    if not refused:
        return []
    to_do = (
        f"Allow s3:ListBucket there, as {policies}/launcher.json does. If the bucket is somebody else's, make your own."
    )
    return [Result(check, "failed", f"{' and '.join(refused)} can't be listed", to_do)]


def _encryption(s3: "S3Client", name: str) -> Result:
    """By which key a bucket encrypts. https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html"""
    check = f"bucket {name}, encryption"
    try:
        rules = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ServerSideEncryptionConfigurationNotFoundError":
            raise
        rules = []
    applied = [rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in rules]
    for by_default in applied:
        key = by_default.get("KMSMasterKeyID", "alias/aws/s3")
        if not by_default.get("SSEAlgorithm", "").startswith("aws:kms"):
            continue
        if key.endswith("alias/aws/s3"):
            return Result(check, "ok", "by the account's KMS key for S3, which needs no rights of its own")
        to_do = (
            "Allow kms:GenerateDataKey and kms:Decrypt on that key to all roles that use the bucket (launcher,"
            " instances, image builder), here and in the key's own policy: the policies of this project don't."
        )
        return Result(check, "warning", f"by a KMS key of your own, {key}", to_do)
    return Result(check, "ok", "by S3's own keys, which need no rights")
