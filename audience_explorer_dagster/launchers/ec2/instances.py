"""Instances: asking EC2 for one, looking at it, ending it. Only this project's are ever seen or touched."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnection
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random_exponential

from audience_explorer_dagster.launchers.ec2.errors import NoCapacity
from audience_explorer_dagster.launchers.ec2.images import PROJECT, Image

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import ReservationResponseTypeDef

Market = Literal["spot", "on-demand"]

# What EC2 answers where another type, subnet or market may have what this one has not.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
NO_CAPACITY = {
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientFreeAddressesInSubnet",
    "InstanceLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "Unsupported",  # the type is not offered in the subnet's zone
    "VcpuLimitExceeded",
}
_THROTTLED = {"RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException"}

ENDED = {"terminated", "stopped"}
_ALIVE = ["pending", "running", "shutting-down", "stopping", "stopped"]


@dataclass(frozen=True)
class Offer:
    """One of the places where an instance may be had."""

    instance_type: str
    subnet: str | None
    market: Market

    def __str__(self) -> str:
        return f"{self.instance_type} ({self.market}{f', {self.subnet}' if self.subnet else ''})"


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
    address: str = ""  # inside its network
    image: str = ""
    key_pair: str = ""


def offers(instance_types: Sequence[str], subnets: Sequence[str | None], market: str) -> list[Offer]:
    """Where to ask for an instance, in the order of preference: all of a market, type by type, before the next."""
    markets: tuple[Market, ...] = ("spot", "on-demand")
    return [
        Offer(instance_type, subnet, of)
        for of in markets
        if market in (of, "spot-then-on-demand")
        for instance_type in instance_types
        for subnet in subnets or [None]
    ]


def user_data(folder: str) -> str:
    """What an instance starts with: no more than where its launch is described."""
    return f"#!/bin/sh\nexec audience-explorer-boot {shlex.quote(folder)}\n"


def run_one(
    ec2: "EC2Client",
    asked: Iterable[Offer],
    token: str,
    tags: Mapping[str, str],
    image: Image,
    folder: str,
    *,
    security_groups: Sequence[str] = (),
    instance_profile: str,
    volume_gb: int,
    volume_type: str,
    key_pair: str | None,
) -> tuple[Instance, Offer]:
    """Start an instance at the first offer that has one.

    Args:
        ec2: A client that repeats no request: this is done here.
        asked: Where to ask, in this order.
        token: Begins the client tokens, up to 60 characters. A request that is repeated, be it by boto3 because the
            answer was lost, starts no second instance.
        tags: Of the instance, its volume and its spot request.
        image: What it starts from.
        folder: The S3 folder of its launch.
        security_groups: Their ids; the network's default if there are none.
        instance_profile: Its name or ARN.
        volume_gb: The size of the root volume, which is encrypted.
        volume_type: Its type, such as gp3.
        key_pair: The name of an SSH key pair, for debugging.

    Raises:
        NoCapacity: No offer had one.
    """
    kind = "Arn" if instance_profile.startswith("arn:") else "Name"
    refused = []
    for number, offer in enumerate(asked):
        tagged = ["instance", "volume", *(["spot-instances-request"] if offer.market == "spot" else [])]
        request: dict[str, Any] = {
            "ImageId": image.id,
            "InstanceType": offer.instance_type,
            "MinCount": 1,
            "MaxCount": 1,
            "ClientToken": f"{token}-{number}",
            "UserData": user_data(folder),
            "InstanceInitiatedShutdownBehavior": "terminate",
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
            "IamInstanceProfile": {kind: instance_profile},
            "BlockDeviceMappings": [
                {
                    "DeviceName": image.root_device,
                    "Ebs": {
                        "VolumeSize": volume_gb,
                        "VolumeType": volume_type,
                        "Encrypted": True,
                        "DeleteOnTermination": True,
                    },
                }
            ],
            "TagSpecifications": [{"ResourceType": kind, "Tags": as_tags(tags)} for kind in tagged],
            **({"SubnetId": offer.subnet} if offer.subnet else {}),
            **({"SecurityGroupIds": list(security_groups)} if security_groups else {}),
            **({"KeyName": key_pair} if key_pair else {}),
        }
        if offer.market == "spot":
            options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
            request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": options}
        try:
            answer = _run_instances(ec2, request)
        except ClientError as error:
            if error.response["Error"]["Code"] not in NO_CAPACITY:
                raise
            refused.append(f"{offer}: {error.response['Error']['Code']}")
        else:
            return _instance(answer["Instances"][0]), offer  # type: ignore[arg-type]
    raise NoCapacity("; ".join(refused))


def _passes(error: BaseException) -> bool:
    """Whether an error may pass if a request is repeated."""
    if not isinstance(error, ClientError):
        # Connections that break, fail, or give no answer in time.
        return isinstance(error, (HTTPClientError, NoConnection))
    code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    return code not in NO_CAPACITY and (code in _THROTTLED or status >= 500)


@retry(
    retry=retry_if_exception(_passes),
    wait=wait_random_exponential(multiplier=0.5, max=20),
    stop=stop_after_delay(300),
    reraise=True,
)
def _run_instances(ec2: "EC2Client", request: dict[str, Any]) -> "ReservationResponseTypeDef":
    # Not left to boto3: it takes EC2's "no capacity", which comes with status 500, for an error that passes, and asks
    # for minutes before another type has its turn.
    return ec2.run_instances(**request)


def describe(ec2: "EC2Client", instance: str) -> Instance | None:
    """An instance as it is now; None if EC2 knows none such, be it not yet or not any more."""
    try:
        answer = ec2.describe_instances(InstanceIds=[instance])
    except ClientError as error:
        if error.response["Error"]["Code"] == "InvalidInstanceID.NotFound":
            return None
        raise
    found = [of for reservation in answer["Reservations"] for of in reservation["Instances"]]
    return _instance(found[0]) if found else None  # type: ignore[arg-type]


def find(ec2: "EC2Client", tags: Mapping[str, str] | None = None, ended: bool = False) -> list[Instance]:
    """This project's instances that have all the tags, the oldest first; those that ended as well, if wanted."""
    wanted = {**PROJECT, **(tags or {})}
    filters = [{"Name": f"tag:{name}", "Values": [value]} for name, value in wanted.items()]
    states = [*_ALIVE, *(["terminated"] if ended else [])]
    filters.append({"Name": "instance-state-name", "Values": states})
    pages = ec2.get_paginator("describe_instances").paginate(Filters=filters)  # type: ignore[arg-type]
    found = [
        _instance(of)  # type: ignore[arg-type]
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


def as_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags in EC2's form."""
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def _instance(described: dict[str, Any]) -> Instance:
    return Instance(
        id=described["InstanceId"],
        type=described["InstanceType"],
        zone=described.get("Placement", {}).get("AvailabilityZone", ""),
        market="spot" if described.get("InstanceLifecycle") == "spot" else "on-demand",
        state=described["State"]["Name"],
        launched_at=described["LaunchTime"],
        tags={tag["Key"]: tag["Value"] for tag in described.get("Tags", [])},
        reason=described.get("StateReason", {}).get("Code", ""),
        address=described.get("PrivateIpAddress", ""),
        image=described.get("ImageId", ""),
        key_pair=described.get("KeyName", ""),
    )
