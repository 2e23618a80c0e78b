"""Starting an instance: what is asked of EC2, and where it may be asked for."""

import shlex
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnection
from tenacity import RetryCallState, retry, stop_after_delay, wait_random_exponential

from ami.images import Image
from ami.instances import PROFILE_SECONDS, Instance, Market, as_tags, instance_of, is_profile_unknown
from audience_explorer_dagster.launchers.ec2.errors import NoCapacity
from audience_explorer_dagster.launchers.ec2.settings import EC2Settings
from audience_explorer_dagster.launchers.launch_store import LaunchTags
from spark_jobs.launch.aws import PROJECT

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import ReservationResponseTypeDef

# What EC2 answers where another type, subnet or market may have what this one has not.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
NO_CAPACITY = {
    "InsufficientAddressCapacity",
    "InsufficientCapacity",
    "InsufficientCapacityOnHost",
    "InsufficientFreeAddressesInSubnet",
    "InsufficientHostCapacity",
    "InsufficientInstanceCapacity",
    "InsufficientReservedInstanceCapacity",
    "InsufficientVolumeCapacity",  # of the zone's, for the root volume
    "InstanceLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "ReservationCapacityExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
    "Unsupported",  # the type is not offered in the subnet's zone
    "VcpuLimitExceeded",
}
# Name and code. A new account's are 5 vCPUs each.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-resource-limits.html
QUOTAS: dict[Market, tuple[str, str]] = {
    "spot": ("All Standard Spot Instance Requests", "L-34B43A08"),
    "on-demand": ("Running On-Demand Standard instances", "L-1216C47A"),
}
_MARKET_OF_QUOTA: dict[str, Market] = {"MaxSpotInstanceCountExceeded": "spot", "VcpuLimitExceeded": "on-demand"}
_THROTTLED = {"RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException"}


@dataclass(frozen=True)
class LaunchOption:
    """One of the places where an instance may be had."""

    instance_type: str
    subnet: str | None
    market: Market

    def __str__(self) -> str:
        return f"{self.instance_type} ({self.market}{f', {self.subnet}' if self.subnet else ''})"


def launch_options(instance_types: Sequence[str], subnets: Sequence[str | None], market: str) -> list[LaunchOption]:
    """Where to ask for an instance, in the order of preference: all of a market, type by type, before the next."""
    markets: tuple[Market, ...] = ("spot", "on-demand")
    return [
        LaunchOption(instance_type, subnet, of)
        for of in markets
        if market in (of, "spot-then-on-demand")
        for instance_type in instance_types
        for subnet in subnets or [None]
    ]


def user_data(region: str, folder: str) -> str:
    """What an instance starts with: no more than where its launch is described."""
    region = shlex.quote(region)
    exports = f"export AWS_REGION={region} AWS_DEFAULT_REGION={region}"
    # boto3 asks the metadata service once, for a second, and an answer may be late where many processes ask.
    patience = "export AWS_METADATA_SERVICE_TIMEOUT=5 AWS_METADATA_SERVICE_NUM_ATTEMPTS=5"
    return f"#!/bin/sh\n{exports}\n{patience}\nexec audience-explorer-boot {shlex.quote(folder)}\n"


def start_instance(
    ec2: "EC2Client",
    settings: EC2Settings,
    options: Iterable[LaunchOption],
    token: str,
    tags: Mapping[str, str],
    image: Image,
    folder: str,
) -> tuple[Instance, LaunchOption]:
    """Start an instance by the first option that has one.

    Args:
        ec2: A client that repeats no request: this is done here.
        settings: What instances are like.
        options: Where to ask, in this order.
        token: Begins the client tokens, up to 60 characters. A request that is repeated, also by boto3 because the
            answer was lost, starts no second instance.
        tags: Of the instance, its volume and its spot request.
        image: What it starts from.
        folder: The S3 folder of its launch.

    Raises:
        NoCapacity: No option had one.
    """
    refused, quotas = [], set()
    for number, option in enumerate(options):
        request = launch_request(settings, ec2.meta.region_name, option, tags, image, folder)
        request["ClientToken"] = f"{token}-{number}"
        try:
            answer = _run_instances(ec2, request)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code not in NO_CAPACITY:
                raise
            refused.append(f"{option}: {code}")
            quotas |= {_MARKET_OF_QUOTA[code]} if code in _MARKET_OF_QUOTA else set()
        else:
            return instance_of(answer["Instances"][0]), option  # type: ignore[arg-type]
    raise NoCapacity("; ".join(refused) + _way_out(quotas))


def _way_out(markets: Set[Market]) -> str:
    """What to do about the quotas of markets that are too small."""
    if not markets:
        return ""
    quotas = sorted(f"{name} ({code})" for market, (name, code) in QUOTAS.items() if market in markets)
    return (
        f". The account may have too few vCPUs at a time: ask for more of “{'” and “'.join(quotas)}” in AWS's"
        " Service Quotas, or name smaller instance_types"
    )


def instance_tags(settings: EC2Settings, launch: LaunchTags) -> dict[str, str]:
    """The tags of a launch's instance, its volume and its spot request."""
    return {**settings.extra_tags, **PROJECT, "Name": f"audience-explorer {launch.label}", **asdict(launch)}


def launch_request(
    settings: EC2Settings, region: str, option: LaunchOption, tags: Mapping[str, str], image: Image, folder: str
) -> dict[str, Any]:
    """What EC2 is asked for an instance; the client token, by which a repeated request is known, comes to it."""
    profile = settings.instance_profile
    tagged = ["instance", "volume", *(["spot-instances-request"] if option.market == "spot" else [])]
    disk = {
        "VolumeSize": settings.volume_gb,
        "VolumeType": settings.volume_type,
        "Encrypted": True,
        "DeleteOnTermination": True,
    }
    request: dict[str, Any] = {
        "ImageId": image.id,
        "InstanceType": option.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
        "IamInstanceProfile": {"Arn" if profile.startswith("arn:") else "Name": profile},
        "BlockDeviceMappings": [{"DeviceName": image.root_device, "Ebs": disk}],
        "TagSpecifications": [{"ResourceType": kind, "Tags": as_tags(tags)} for kind in tagged],
        "UserData": user_data(region, folder),
        **_network(settings, option.subnet),
        **({"KeyName": settings.key_pair} if settings.key_pair else {}),
    }
    if option.market == "spot":
        one_time = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": one_time}
    return request


def _network(settings: EC2Settings, subnet: str | None) -> dict[str, Any]:
    """Where an instance is, and whether it gets a public address.

    Only a network interface can ask for an address or against one, and EC2 takes subnet and groups either of it or of
    the instance. Without a subnet it is in the default network, as an instance is.
    """
    groups = list(settings.security_groups)
    if settings.public_ip is None:
        return {**({"SubnetId": subnet} if subnet else {}), **({"SecurityGroupIds": groups} if groups else {})}
    interface = {"DeviceIndex": 0, "AssociatePublicIpAddress": settings.public_ip, "DeleteOnTermination": True}
    where = {**({"SubnetId": subnet} if subnet else {}), **({"Groups": groups} if groups else {})}
    return {"NetworkInterfaces": [{**interface, **where}]}


def _is_repeated(attempts: RetryCallState) -> bool:
    """Whether a request is made again after what became of it."""
    error = attempts.outcome.exception() if attempts.outcome else None
    if error is None:
        return False
    if is_profile_unknown(error):
        return (attempts.seconds_since_start or 0) < PROFILE_SECONDS
    return _passes(error)


def _passes(error: BaseException) -> bool:
    """Whether an error may pass if a request is repeated."""
    if not isinstance(error, ClientError):
        # Connections that break, fail, or give no answer in time.
        return isinstance(error, (HTTPClientError, NoConnection))
    code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    return code not in NO_CAPACITY and (code in _THROTTLED or status >= 500)


@retry(
    retry=_is_repeated,
    wait=wait_random_exponential(multiplier=0.5, max=20),
    stop=stop_after_delay(300),
    reraise=True,
)
def _run_instances(ec2: "EC2Client", request: dict[str, Any]) -> "ReservationResponseTypeDef":
    # Not left to boto3: it takes EC2's "no capacity", which comes with status 500, for an error that passes, and asks
    # for minutes before another type has its turn.
    return ec2.run_instances(**request)
