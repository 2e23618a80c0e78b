"""Whether workers get to S3, if the application has a network of the account's."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from audience_explorer_dagster.launchers.aws_checks import Result, looked
from audience_explorer_dagster.launchers.emr_serverless.check.rights import POLICIES
from audience_explorer_dagster.launchers.network import find_subnets, find_ways

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


def check_network(ec2: "EC2Client", application: Mapping[str, Any]) -> list[Result]:
    """Whether each subnet of an application has a way to S3; without any, workers are in a network of AWS's."""
    names = application.get("networkConfiguration", {}).get("subnetIds", [])
    if not names:
        return [Result("network", "ok", "AWS's own, which reaches S3")]
    return looked("network", lambda: [_subnet(ec2, name) for name in names], POLICIES)


def _subnet(ec2: "EC2Client", name: str) -> Result:
    found = find_subnets(ec2, [name])
    if not found:
        to_do = "aws emr-serverless update-application --network-configuration … with subnets that are there."
        return Result("network", "failed", f"{ec2.meta.region_name} has no {name}", to_do)
    # Workers get no public address, whatever the subnet gives to instances.
    # https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/vpc-access.html
    (way,) = find_ways(ec2, found, public_ip=False)
    finding, to_do = way.finding, way.to_do
    if "public addresses only" in finding:
        finding, to_do = finding.replace("instances get none", "workers get none"), to_do.partition(", or ")[0]
    return Result("network", way.state, f"{name}: {finding}", to_do)
