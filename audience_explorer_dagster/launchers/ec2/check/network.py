"""Whether instances get from their subnets to S3, as lines of the check."""

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from audience_explorer_dagster.launchers.aws_checks import Result, State, looked
from audience_explorer_dagster.launchers.ec2.explanations import NO_NETWORK
from audience_explorer_dagster.launchers.ec2.settings import EC2Settings
from audience_explorer_dagster.launchers.network import find_subnets, find_ways

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


def check_network(ec2: "EC2Client", settings: EC2Settings) -> list[Result]:
    """Whether there are subnets, and a way to S3 from each."""
    return looked("network", lambda: _network(ec2, settings))


def zone_of(ec2: "EC2Client", settings: EC2Settings) -> str:
    """A zone in which instances may be; a likely one if that can't be seen."""
    try:
        found = find_subnets(ec2, settings.subnets)
    except (BotoCoreError, ClientError):
        found = []
    return str(found[0]["AvailabilityZone"]) if found else f"{ec2.meta.region_name}a"


def _network(ec2: "EC2Client", settings: EC2Settings) -> list[Result]:
    subnets = find_subnets(ec2, settings.subnets)
    if not subnets and not settings.subnets:
        return [Result("network", "failed", "no subnet is configured, and there is no default network", NO_NETWORK)]
    there = {subnet["SubnetId"] for subnet in subnets}
    to_do = "Name others: AUDIENCE_EXPLORER_EC2_SUBNETS."
    results = [
        Result(f"network {name}", "failed", f"{ec2.meta.region_name} has no such subnet", to_do)
        for name in settings.subnets
        if name not in there
    ]
    if not subnets:
        return results
    ways: dict[tuple[State, str, str], list[str]] = {}
    for way in find_ways(ec2, subnets, settings.public_ip):
        ways.setdefault((way.state, way.finding, way.to_do), []).append(way.subnet)
    is_whole_default = not settings.subnets and len(ways) == 1
    for (state, finding, to_do), names in ways.items():
        where = f"default network, {len(names)} subnets" if is_whole_default else ", ".join(names)
        each = f" (and so for {', '.join(names[1:])})" if "SUBNET" in to_do and names[1:] else ""
        results.append(Result("network", state, f"{where}: {finding}", to_do.replace("SUBNET", names[0]) + each))
    return results
