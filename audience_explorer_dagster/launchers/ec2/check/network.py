"""Whether instances get from their subnets to S3, without which none gives a sign of life."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from audience_explorer_dagster.launchers.aws_checks import Result, State, looked
from audience_explorer_dagster.launchers.ec2.settings import EC2Settings

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

AWSDict = Mapping[str, Any]  # a part of an answer of EC2's

_ANYWHERE = "0.0.0.0/0"


def check_network(ec2: "EC2Client", settings: EC2Settings) -> list[Result]:
    """Whether there are subnets, and a way to S3 from each."""
    return looked("network", lambda: _network(ec2, settings))


def zone_of(ec2: "EC2Client", settings: EC2Settings) -> str:
    """A zone in which instances may be; a likely one if that can't be seen."""
    try:
        found = _subnets(ec2, settings)
    except (BotoCoreError, ClientError):
        found = []
    return str(found[0]["AvailabilityZone"]) if found else f"{ec2.meta.region_name}a"


def _network(ec2: "EC2Client", settings: EC2Settings) -> list[Result]:
    subnets = _subnets(ec2, settings)
    if not subnets and not settings.subnets:
        to_do = "aws ec2 create-default-vpc (free), or name subnets: AUDIENCE_EXPLORER_EC2_SUBNETS."
        return [Result("network", "failed", "no subnet is configured, and there is no default network", to_do)]
    there = {subnet["SubnetId"] for subnet in subnets}
    to_do = "Name others: AUDIENCE_EXPLORER_EC2_SUBNETS."
    results = [
        Result(f"network {name}", "failed", f"{ec2.meta.region_name} has no such subnet", to_do)
        for name in settings.subnets
        if name not in there
    ]
    if not subnets:
        return results
    vpcs = [{"Name": "vpc-id", "Values": sorted({subnet["VpcId"] for subnet in subnets})}]
    tables = _listed(ec2, "describe_route_tables", "RouteTables", vpcs)
    service = {"Name": "service-name", "Values": [f"com.amazonaws.{ec2.meta.region_name}.s3"]}
    endpoints = _listed(ec2, "describe_vpc_endpoints", "VpcEndpoints", [*vpcs, service])
    ways: dict[tuple[State, str, str], list[str]] = {}
    for subnet in subnets:
        way = way_to_s3(subnet, _table_of(subnet, tables), endpoints, ec2.meta.region_name)
        ways.setdefault(way, []).append(subnet["SubnetId"])
    is_whole_default = not settings.subnets and len(ways) == 1
    for (state, finding, to_do), names in ways.items():
        where = f"default network, {len(names)} subnets" if is_whole_default else ", ".join(names)
        each = f" (and so for {', '.join(names[1:])})" if "SUBNET" in to_do and names[1:] else ""
        results.append(Result("network", state, f"{where}: {finding}", to_do.replace("SUBNET", names[0]) + each))
    return results


def _subnets(ec2: "EC2Client", settings: EC2Settings) -> list[AWSDict]:
    """The subnets of launches that are there: those that are configured, or the default network's."""
    if settings.subnets:
        return _listed(ec2, "describe_subnets", "Subnets", [{"Name": "subnet-id", "Values": settings.subnets}])
    return _listed(ec2, "describe_subnets", "Subnets", [{"Name": "default-for-az", "Values": ["true"]}])


def _listed(ec2: "EC2Client", request: Any, what: str, filters: Sequence[AWSDict]) -> list[AWSDict]:
    pages: Any = ec2.get_paginator(request).paginate(Filters=filters)
    return [found for page in pages for found in page[what]]


def _table_of(subnet: AWSDict, tables: Sequence[AWSDict]) -> AWSDict:
    """The route table of a subnet: its own, or else its network's main one."""
    of_network = [table for table in tables if table["VpcId"] == subnet["VpcId"]]
    own = [t for t in of_network for of in t.get("Associations", []) if of.get("SubnetId") == subnet["SubnetId"]]
    main = [t for t in of_network for of in t.get("Associations", []) if of.get("Main")]
    return [*own, *main, {"RouteTableId": "", "Routes": []}][0]


def way_to_s3(subnet: AWSDict, table: AWSDict, endpoints: Sequence[AWSDict], region: str) -> tuple[State, str, str]:
    """How instances of a subnet get to S3: state, finding, and what to do (in which SUBNET stands for its id).

    Args:
        subnet: As EC2 describes it, as what follows.
        table: Its route table.
        endpoints: The endpoints for S3 of its network, and of others.
        region: Its region.
    """
    of_network = [of for of in endpoints if of["VpcId"] == subnet["VpcId"] and of["State"].lower() == "available"]
    for endpoint in of_network:
        if table["RouteTableId"] in endpoint.get("RouteTableIds", []):
            return "ok", f"to S3 by its endpoint {endpoint['VpcEndpointId']}", ""
        if _has_private_names(endpoint):
            return "ok", f"to S3 by the interface {endpoint['VpcEndpointId']}", ""
    make_endpoint = (
        f"aws ec2 create-vpc-endpoint --vpc-id {subnet['VpcId']} --service-name com.amazonaws.{region}.s3"
        f" --route-table-ids {table['RouteTableId']} (free)"
    )
    outward = [of for of in table["Routes"] if of.get("DestinationCidrBlock") == _ANYWHERE]
    route: AWSDict = next((of for of in outward if of.get("State") == "active"), {})
    gateway = route.get("GatewayId", "")
    if nat := route.get("NatGatewayId") or route.get("NetworkInterfaceId"):
        return "ok", f"to S3 through {nat}", ""
    if gateway.startswith("igw-"):
        if subnet.get("MapPublicIpOnLaunch"):
            return "ok", f"to S3 through {gateway}, with a public address", ""
        to_do = f"{make_endpoint}, or aws ec2 modify-subnet-attribute --subnet-id SUBNET --map-public-ip-on-launch"
        return "failed", f"no way to S3: {gateway} serves public addresses only, and instances get none", to_do
    if other := gateway or route.get("TransitGatewayId") or route.get("CoreNetworkArn"):
        return "unseen", f"whether {other} leads to S3 can't be seen", f"If it doesn't: {make_endpoint}"
    return "failed", "no way to S3: no endpoint, and no route out of the network", make_endpoint


def _has_private_names(endpoint: AWSDict) -> bool:
    """Whether an interface endpoint answers in the place of S3 to all of its network."""
    only_inbound = endpoint.get("DnsOptions", {}).get("PrivateDnsOnlyForInboundResolverEndpoint", False)
    return bool(endpoint.get("PrivateDnsEnabled")) and not only_inbound
