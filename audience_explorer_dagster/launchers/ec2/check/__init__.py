"""Whether the launcher `ec2` would work as it is configured: checks in the order in which people set things up."""

import os

from audience_explorer_dagster.launchers import aws_checks
from audience_explorer_dagster.launchers.aws_checks import Result, home_region
from audience_explorer_dagster.launchers.ec2.check.launching import check_image, check_launches, check_prices, find
from audience_explorer_dagster.launchers.ec2.check.network import check_network, zone_of
from audience_explorer_dagster.launchers.ec2.check.quotas import check_quotas
from audience_explorer_dagster.launchers.ec2.launcher import EC2StepLauncher
from audience_explorer_dagster.launchers.ec2.settings import EC2Settings
from spark_jobs.errors import InputError
from spark_jobs.launch.aws import client

_ATTEMPTS = 3  # a person waits


def run_checks() -> list[Result]:
    """Check the launcher that AUDIENCE_EXPLORER_EC2_… variables and AUDIENCE_EXPLORER_ROOT configure.

    What needs something that is red is left out, and a last result says so.
    """
    settings, results = _settings()
    region = configured_region(settings)
    home = home_region(region)
    results += aws_checks.identity(client("sts", home, _ATTEMPTS))
    if results[-1].state != "failed":
        results += aws_checks.region(client("ec2", home, _ATTEMPTS), region)
    if region is None or results[-1].state == "failed":
        return [*results, _left_out("everything else")]
    locations = [os.environ.get("AUDIENCE_EXPLORER_ROOT", ""), settings.launches if settings else ""]
    on_s3 = [location for location in locations if location.startswith("s3://")]
    results += aws_checks.buckets(client("s3", region, _ATTEMPTS), on_s3, region)
    if settings is None:
        return [*results, _left_out("quotas, image, launches, network, prices")]
    return results + _launcher(settings, region)


def configured_region(settings: EC2Settings | None) -> str | None:
    """The region of launches; None if nothing names one."""
    import boto3  # slow to import, and command lines should not be

    named = settings.region if settings else os.environ.get("AUDIENCE_EXPLORER_EC2_REGION")
    return named or os.environ.get("AWS_REGION") or boto3.Session().region_name or None


def _settings() -> tuple[EC2Settings | None, list[Result]]:
    root = os.environ.get("AUDIENCE_EXPLORER_ROOT", "")
    results = []
    if not root.startswith("s3://"):
        finding = f"AUDIENCE_EXPLORER_ROOT is {root}" if root else "AUDIENCE_EXPLORER_ROOT is not set"
        to_do = "export AUDIENCE_EXPLORER_ROOT=s3://bucket/prefix"
        results = [Result("root", "failed", f"{finding}: instances reach S3 only", to_do)]
    try:
        return EC2StepLauncher.from_environment(), [*results, Result("settings", "ok", "they make sense")]
    except InputError as error:
        return None, [*results, Result("settings", "failed", str(error), "Set these variables: docs/ec2.md.")]


def _launcher(settings: EC2Settings, region: str) -> list[Result]:
    ec2 = client("ec2", region, _ATTEMPTS)
    results = check_quotas(ec2, client("service-quotas", region, _ATTEMPTS), settings)
    results += check_image(ec2, settings)
    results += check_network(ec2, settings)
    results += check_launches(ec2, settings, find(ec2, settings))
    return results + check_prices(ec2, settings, zone_of(ec2, settings))


def _left_out(what: str) -> Result:
    return Result(what, "unseen", "not checked yet", "Mend what is red above, then check again.")
