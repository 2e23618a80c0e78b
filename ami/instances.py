"""This project's instances, as EC2 describes them: jobs' and images' builders. No others are ever seen or ended."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

from spark_jobs.launch.aws import PROJECT

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

Market = Literal["spot", "on-demand"]

ENDED = {"terminated", "stopped"}
PROFILE_SECONDS = 120.0  # how long EC2 may not know an instance profile: it takes a while to learn of a new one
_ALIVE = ["pending", "running", "shutting-down", "stopping", "stopped"]


@dataclass(frozen=True)
class Instance:
    """An instance, as EC2 describes it."""

    id: str
    type: str
    zone: str
    market: Market
    state: str
    launched_at: datetime
    tags: dict[str, str]
    reason: str = ""  # why it ended: EC2's code, such as Server.SpotInstanceTermination
    explanation: str = ""  # of that, in EC2's words
    address: str = ""  # inside its network
    image: str = ""
    key_pair: str = ""


def describe(ec2: "EC2Client", instance: str) -> Instance | None:
    """An instance as it is now; None if EC2 knows none such, be it not yet or not any more."""
    try:
        answer = ec2.describe_instances(InstanceIds=[instance])
    except ClientError as error:
        if error.response["Error"]["Code"] == "InvalidInstanceID.NotFound":
            return None
        raise
    found = [of for reservation in answer["Reservations"] for of in reservation["Instances"]]
    return instance_of(found[0]) if found else None  # type: ignore[arg-type]


def find(ec2: "EC2Client", tags: Mapping[str, str] | None = None, ended: bool = False) -> list[Instance]:
    """This project's instances that have all the tags, the oldest first; those that ended as well, if wanted."""
    wanted = {**PROJECT, **(tags or {})}
    filters = [{"Name": f"tag:{name}", "Values": [value]} for name, value in wanted.items()]
    states = [*_ALIVE, *(["terminated"] if ended else [])]
    filters.append({"Name": "instance-state-name", "Values": states})
    pages = ec2.get_paginator("describe_instances").paginate(Filters=filters)  # type: ignore[arg-type]
    found = [
        instance_of(of)  # type: ignore[arg-type]
        for page in pages
        for reservation in page["Reservations"]
        for of in reservation["Instances"]
    ]
    return sorted(found, key=lambda instance: (instance.launched_at, instance.id))


def terminate(ec2: "EC2Client", instances: Iterable[str]) -> set[str]:
    """End instances, of which some may have ended already; give back those that EC2 does not know, or not yet."""
    unknown = set()
    for instance in instances:
        try:
            ec2.terminate_instances(InstanceIds=[instance])
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidInstanceID.NotFound":
                raise
            unknown.add(instance)
    return unknown


def is_profile_unknown(error: BaseException) -> bool:
    """Whether EC2 does not know an instance profile, or no role in it: for a minute or so after these are made."""
    if not isinstance(error, ClientError) or error.response["Error"]["Code"] != "InvalidParameterValue":
        return False
    message = error.response["Error"].get("Message", "")
    return "Invalid IAM Instance Profile" in message or "has no associated IAM Roles" in message


def as_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags in EC2's form."""
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def instance_of(described: dict[str, Any]) -> Instance:
    """An instance, from EC2's description."""
    return Instance(
        id=described["InstanceId"],
        type=described["InstanceType"],
        zone=described.get("Placement", {}).get("AvailabilityZone", ""),
        market="spot" if described.get("InstanceLifecycle") == "spot" else "on-demand",
        state=described["State"]["Name"],
        launched_at=described["LaunchTime"],
        tags={tag["Key"]: tag["Value"] for tag in described.get("Tags", [])},
        reason=described.get("StateReason", {}).get("Code", ""),
        explanation=described.get("StateReason", {}).get("Message", ""),
        address=described.get("PrivateIpAddress", ""),
        image=described.get("ImageId", ""),
        key_pair=described.get("KeyName", ""),
    )
