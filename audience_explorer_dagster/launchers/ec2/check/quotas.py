"""Whether the account's quotas have room for the types of instances that are configured."""

import re
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from ami.instances import Market
from audience_explorer_dagster.launchers.aws_checks import Result, looked
from audience_explorer_dagster.launchers.ec2.settings import EC2Settings
from audience_explorer_dagster.launchers.ec2.start import QUOTAS, launch_options

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

# The families of Standard instances, which share a quota. https://docs.aws.amazon.com/ec2/latest/instancetypes/
_STANDARD = {"a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"}


def check_quotas(ec2: "EC2Client", service_quotas: Any, settings: EC2Settings) -> list[Result]:
    """Whether EC2 knows the types, and a quota for each market that is configured."""
    return looked("instance types", lambda: _quotas(ec2, service_quotas, settings))


def _quotas(ec2: "EC2Client", service_quotas: Any, settings: EC2Settings) -> list[Result]:
    types = settings.instance_types
    filters: Any = [{"Name": "instance-type", "Values": types}]
    pages = ec2.get_paginator("describe_instance_types").paginate(Filters=filters)
    found = {str(of["InstanceType"]): of["VCpuInfo"]["DefaultVCpus"] for page in pages for of in page["InstanceTypes"]}
    known = {name: found[name] for name in types if name in found}
    unknown = [name for name in types if name not in found]
    vcpus = {name: count for name, count in known.items() if _family(name) in _STANDARD}
    of_types = Result("instance types", "ok", ", ".join(f"{name} ({count} vCPUs)" for name, count in known.items()))
    if unknown:
        to_do = "Name others: AUDIENCE_EXPLORER_EC2_INSTANCE_TYPES."
        finding = f"{ec2.meta.region_name} has no {', '.join(unknown)}"
        of_types = Result("instance types", "failed", finding, to_do)
    markets = {option.market: None for option in launch_options(types, [], settings.market)}
    results = [found for market in markets for found in _market(service_quotas, market, vcpus)] if vcpus else []
    return [of_types, *_only_red_if_all_are(results), *_others([name for name in known if name not in vcpus])]


def _family(instance_type: str) -> str:
    """The letters before the generation: `m` of `m7i.xlarge`, `im` of `im4gn.large`."""
    letters = re.match(r"[a-z]*", instance_type)
    return letters[0] if letters else ""


def _market(service_quotas: Any, market: Market, vcpus: dict[str, int]) -> list[Result]:
    check = f"quota {market}"
    return looked(check, lambda: [_compared(check, market, _value(service_quotas, market), vcpus)])


def _value(service_quotas: Any, market: Market) -> float | None:
    """A market's quota in vCPUs at a time; None if AWS names none."""
    try:
        answer = service_quotas.get_service_quota(ServiceCode="ec2", QuotaCode=QUOTAS[market][1])
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchResourceException":
            return None
        raise
    return float(answer["Quota"]["Value"])


def _compared(check: str, market: Market, quota: float | None, vcpus: dict[str, int]) -> Result:
    name, code = QUOTAS[market]
    if quota is None:
        return Result(check, "unseen", f"AWS names no value of {code}", f"Look for “{name}” in AWS's Service Quotas.")
    larger = [of for of, count in vcpus.items() if count > quota]
    if not larger:
        return Result(check, "ok", f"{quota:.0f} vCPUs at a time")
    wanted = max(vcpus.values())
    ask = f"aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code}"
    to_do = f"{ask} --desired-value {wanted}  # free: “{name}”"
    if len(larger) == len(vcpus):
        return Result(check, "failed", f"{quota:.0f} vCPUs at a time: too few for any type", to_do)
    fitting = ", ".join(of for of in vcpus if of not in larger)
    return Result(check, "warning", f"{quota:.0f} vCPUs at a time: enough for {fitting} only", to_do)


def _only_red_if_all_are(results: list[Result]) -> list[Result]:
    """The same, but where one market has room the others may have none: launches pass them over."""
    if all(result.state == "failed" for result in results):
        return results
    return [
        Result(of.check, "warning", f"{of.finding}, so launches pass it over", of.to_do) if of.state == "failed" else of
        for of in results
    ]


def _others(types: list[str]) -> list[Result]:
    if not types:
        return []
    finding = f"{', '.join(types)}: such types have quotas of their own"
    return [Result("other quotas", "unseen", finding, "Look for them in AWS's Service Quotas, under EC2.")]
