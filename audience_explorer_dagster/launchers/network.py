"""How instances get from their subnets to S3, without which none gives a sign of life."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from audience_explorer_dagster.launchers.aws_checks import State

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

AWSDict = Mapping[str, Any]  # a part of an answer of EC2's

_ANYWHERE = "0.0.0.0/0"
_PUBLIC_IP = "AUDIENCE_EXPLORER_EC2_PUBLIC_IP"


@dataclass(frozen=True)
class Way:
    """How instances of a subnet get to S3: what was found, and what to do, in which SUBNET stands for its id."""

    subnet: str
    state: State
    finding: str
    to_do: str


def dead_ends(ec2: "EC2Client", names: Sequence[str], public_ip: bool | None) -> dict[str | None, str]:
    """The subnets of launches from which no way leads to S3, as far as can be seen, with what to do; None stands for
    the default network, if that is so for all of it.

    Raises:
        BotoCoreError, ClientError: AWS does not say.
    """
    ways = find_ways(ec2, find_subnets(ec2, names), public_ip)
    closed: dict[str | None, str] = {
        way.subnet: f"{way.finding}. {way.to_do.replace('SUBNET', way.subnet)}" for way in ways if way.state == "failed"
    }
    if names:
        return closed
    return {None: next(iter(closed.values()))} if closed and len(closed) == len(ways) else {}


def find_ways(ec2: "EC2Client", subnets: Sequence[AWSDict], public_ip: bool | None) -> list[Way]:
    """The way to S3 from each of some subnets, as EC2 describes these; for `public_ip`, see `way_to_s3`."""
    if not subnets:
        return []
    vpcs = [{"Name": "vpc-id", "Values": sorted({subnet["VpcId"] for subnet in subnets})}]
    tables = _listed(ec2, "describe_route_tables", "RouteTables", vpcs)
    region = ec2.meta.region_name
    service = {"Name": "service-name", "Values": [f"com.amazonaws.{region}.s3"]}
    endpoints = _listed(ec2, "describe_vpc_endpoints", "VpcEndpoints", [*vpcs, service])
    return [
        Way(subnet["SubnetId"], *way_to_s3(subnet, _table_of(subnet, tables), endpoints, region, public_ip))
        for subnet in subnets
    ]


def find_subnets(ec2: "EC2Client", names: Sequence[str]) -> list[AWSDict]:
    """Those of some subnets that are there; without any, the default network's."""
    if names:
        return _listed(ec2, "describe_subnets", "Subnets", [{"Name": "subnet-id", "Values": list(names)}])
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


def way_to_s3(
    subnet: AWSDict, table: AWSDict, endpoints: Sequence[AWSDict], region: str, public_ip: bool | None = None
) -> tuple[State, str, str]:
    """How instances of a subnet get to S3: state, finding, and what to do (in which SUBNET stands for its id).

    Args:
        subnet: As EC2 describes it, as what follows.
        table: Its route table.
        endpoints: The endpoints for S3 of its network, and of others.
        region: Its region.
        public_ip: Whether instances ask for a public address; None if the subnet decides.
    """
    of_network = [of for of in endpoints if of["VpcId"] == subnet["VpcId"] and of["State"].lower() == "available"]
    for endpoint in of_network:
        if table["RouteTableId"] in endpoint.get("RouteTableIds", []):
            return "ok", f"to S3 by its endpoint {endpoint['VpcEndpointId']}", ""
        if _has_private_names(endpoint):
            return "ok", f"to S3 by the interface {endpoint['VpcEndpointId']}", ""
    make_endpoint = (
        f"aws ec2 create-vpc-endpoint --vpc-id {subnet['VpcId']} --service-name com.amazonaws.{region}.s3"
        f" --route-table-ids {table['RouteTableId']}  # free"
    )
    outward = [of for of in table["Routes"] if of.get("DestinationCidrBlock") == _ANYWHERE]
    route: AWSDict = next((of for of in outward if of.get("State") == "active"), {})
    gateway = route.get("GatewayId", "")
    if nat := route.get("NatGatewayId") or route.get("NetworkInterfaceId"):
        return "ok", f"to S3 through {nat}", ""
    if gateway.startswith("igw-"):
        if subnet.get("MapPublicIpOnLaunch") if public_ip is None else public_ip:
            return "ok", f"to S3 through {gateway}, with a public address", ""
        to_do = (
            f"{make_endpoint}, or {_PUBLIC_IP}=true (half a cent an hour),"
            " or aws ec2 modify-subnet-attribute --subnet-id SUBNET --map-public-ip-on-launch"
        )
        return "failed", f"no way to S3: {gateway} serves public addresses only, and instances get none", to_do
    if other := gateway or _other_network(table["Routes"]):
        return "unseen", f"whether {other} leads to S3 can't be seen", f"If it doesn't: {make_endpoint}"
    return "failed", "no way to S3: no endpoint, and no route out of the network", make_endpoint


def _other_network(routes: Sequence[AWSDict]) -> str:
    """What leads to another network, which may have an endpoint for S3; empty if nothing does."""
    kinds = ("TransitGatewayId", "CoreNetworkArn", "VpcPeeringConnectionId")
    active = [route for route in routes if route.get("State") == "active"]
    found = [route[kind] for route in active for kind in kinds if route.get(kind)]
    found += [of["GatewayId"] for of in active if of.get("GatewayId", "").startswith("vgw-")]
    return str(found[0]) if found else ""


def _has_private_names(endpoint: AWSDict) -> bool:
    """Whether an interface endpoint answers in the place of S3 to all of its network."""
    only_inbound = endpoint.get("DnsOptions", {}).get("PrivateDnsOnlyForInboundResolverEndpoint", False)
    return bool(endpoint.get("PrivateDnsEnabled")) and not only_inbound
