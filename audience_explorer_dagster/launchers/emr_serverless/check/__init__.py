"""Whether the launcher `emr-serverless` would work as it is configured: checks in the order in which people set things
up."""

import os

from audience_explorer_dagster.launchers import aws_checks
from audience_explorer_dagster.launchers.aws_checks import Result, home_region
from audience_explorer_dagster.launchers.emr_serverless.check.application import (
    Application,
    check_application,
    find_application,
)
from audience_explorer_dagster.launchers.emr_serverless.check.archive import check_archive
from audience_explorer_dagster.launchers.emr_serverless.check.capacity import check_capacity, check_quota
from audience_explorer_dagster.launchers.emr_serverless.check.network import check_network
from audience_explorer_dagster.launchers.emr_serverless.check.rights import POLICIES, Rights, check_role, rights_of
from audience_explorer_dagster.launchers.emr_serverless.check.tags import check_tags
from audience_explorer_dagster.launchers.emr_serverless.launcher import EMRServerlessLauncher
from audience_explorer_dagster.launchers.emr_serverless.settings import EMRServerlessSettings
from spark_jobs.errors import InputError
from spark_jobs.launch.aws import client

_ATTEMPTS = 3  # a person waits


def run_checks() -> list[Result]:
    """Check the launcher that AUDIENCE_EXPLORER_EMR_… variables and AUDIENCE_EXPLORER_ROOT configure.

    What needs something that is red is left out, and a last result says so.
    """
    settings, results = _settings()
    region = configured_region(settings)
    home = home_region(region)
    results += aws_checks.identity(client("sts", home, _ATTEMPTS), POLICIES)
    if results[-1].state != "failed":
        results += aws_checks.region(client("ec2", home, _ATTEMPTS), region, POLICIES)
    if region is None or results[-1].state == "failed":
        return [*results, _left_out("everything else")]
    locations = [os.environ.get("AUDIENCE_EXPLORER_ROOT", ""), settings.launches if settings else ""]
    on_s3 = [location for location in locations if location.startswith("s3://")]
    buckets = aws_checks.buckets(client("s3", region, _ATTEMPTS), on_s3, region, POLICIES)
    results += buckets
    if settings is None:
        return [*results, _left_out("application, tags, workers, quota, role, rights, archive")]
    rights = rights_of(home, _ATTEMPTS)
    application, found = _launcher(settings, region, rights)
    if any(result.state == "failed" for result in buckets):
        return [*results, *found, _left_out("archive")]
    return [*results, *found, *check_archive(rights, settings, application or {})]


def configured_region(settings: EMRServerlessSettings | None) -> str | None:
    """The region of launches; None if nothing names one."""
    import boto3  # slow to import, and command lines should not be

    named = settings.region if settings else os.environ.get("AUDIENCE_EXPLORER_EMR_REGION")
    return named or os.environ.get("AWS_REGION") or boto3.Session().region_name or None


def _settings() -> tuple[EMRServerlessSettings | None, list[Result]]:
    root = os.environ.get("AUDIENCE_EXPLORER_ROOT", "")
    results = []
    if not root.startswith("s3://"):
        finding = f"AUDIENCE_EXPLORER_ROOT is {root}" if root else "AUDIENCE_EXPLORER_ROOT is not set"
        to_do = "export AUDIENCE_EXPLORER_ROOT=s3://bucket/prefix"
        results = [Result("root", "failed", f"{finding}: AWS's machines reach S3 only", to_do)]
    try:
        return EMRServerlessLauncher.from_environment(), [*results, Result("settings", "ok", "they make sense")]
    except InputError as error:
        return None, [*results, Result("settings", "failed", str(error), "Set these variables: docs/spark.md.")]


def _launcher(settings: EMRServerlessSettings, region: str, rights: Rights) -> tuple[Application | None, list[Result]]:
    emr = client("emr-serverless", region, _ATTEMPTS)
    application, results = find_application(emr, settings.application)
    if application:
        results += check_application(application)
        results += check_network(client("ec2", region, _ATTEMPTS), application)
    results += check_tags(emr, settings)
    results += check_capacity(settings, application or {})
    results += check_quota(client("service-quotas", region, _ATTEMPTS), settings)
    results += check_role(rights, settings)
    return application, results


def _left_out(what: str) -> Result:
    return Result(what, "unseen", "not checked yet", "Mend what is red above, then check again.")
