"""Whether the workers that are configured exist, and fit into the application's limit and the account's quota."""

import re
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from audience_explorer_dagster.launchers.aws_checks import Result, looked
from audience_explorer_dagster.launchers.emr_serverless.check.rights import POLICIES
from audience_explorer_dagster.launchers.emr_serverless.settings import EMRServerlessSettings

# A worker's memory by its vCPUs, in GB: from, to, in steps of.
# https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/app-behavior.html#worker-configs
WORKERS = {1: (2, 8, 1), 2: (4, 16, 1), 4: (8, 30, 1), 8: (16, 60, 4), 16: (32, 120, 8)}
# https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/endpoints-quotas.html; 16 in a new account
QUOTA = ("Max concurrent vCPUs per account", "L-D05C8A75")

_SMALLER = "lower AUDIENCE_EXPLORER_EMR_MAX_EXECUTORS or …_EXECUTOR_CORES"


def vcpus_of(settings: EMRServerlessSettings) -> tuple[int, int]:
    """The vCPUs of a launch with one executor, and with as many as it may have."""
    driver, executor = settings.driver_cores, settings.executor_cores
    return driver + executor, driver + settings.max_executors * executor


def check_capacity(settings: EMRServerlessSettings, application: Mapping[str, Any]) -> list[Result]:
    """Whether EMR has workers of these sizes, and the application may have as many.

    Args:
        settings: The launcher's.
        application: As GetApplication describes it; empty if it is not known.
    """
    sizes = {
        "driver": (settings.driver_cores, settings.driver_memory_gb),
        "executors": (settings.executor_cores, settings.executor_memory_gb),
    }
    results = [_size(f"size of {who}", cores, memory) for who, (cores, memory) in sizes.items()]
    limit = application.get("maximumCapacity", {})
    return results + ([_limit(settings, application["applicationId"], limit)] if limit else [])


def _size(check: str, cores: int, memory: int) -> Result:
    finding = f"{cores} vCPUs and {memory} GB"
    if cores not in WORKERS:
        to_do = f"Name one of {', '.join(map(str, WORKERS))}: AUDIENCE_EXPLORER_EMR_DRIVER_CORES, …_EXECUTOR_CORES."
        return Result(check, "failed", f"{finding}: EMR has no workers of {cores} vCPUs", to_do)
    least, most, step = WORKERS[cores]
    if memory not in range(least, most + 1, step):
        to_do = "Set AUDIENCE_EXPLORER_EMR_DRIVER_MEMORY_GB or …_EXECUTOR_MEMORY_GB, as docs/spark.md has them."
        of = f"EMR's workers of {cores} vCPUs have {least} to {most} GB, in steps of {step}"
        return Result(check, "failed", f"{finding}: {of}", to_do)
    return Result(check, "ok", finding)


def _limit(settings: EMRServerlessSettings, application: str, limit: Mapping[str, str]) -> Result:
    """What all job runs of an application together may take."""
    driver, executor, most = settings.driver_memory_gb, settings.executor_memory_gb, settings.max_executors
    (least_cpu, cpu), (least_memory, memory) = vcpus_of(settings), (driver + executor, driver + most * executor)
    has_cpu, has_memory = (_number(limit.get(of)) for of in ("cpu", "memory"))
    finding = f"the application may take {has_cpu} vCPUs and {has_memory} GB in all"
    if cpu <= has_cpu and memory <= has_memory:
        return Result("limit of the application", "ok", finding)
    to_do = (
        f"aws emr-serverless update-application --application-id {application} --maximum-capacity"
        f" cpu={max(cpu, has_cpu)}vCPU,memory={max(memory, has_memory)}GB (while it is stopped), or {_SMALLER}."
    )
    if least_cpu <= has_cpu and least_memory <= has_memory:
        fewer = f"{finding}, and a launch up to {cpu} and {memory}: it gets fewer executors"
        return Result("limit of the application", "warning", fewer, to_do)
    return Result("limit of the application", "failed", f"{finding}: too little for a driver and an executor", to_do)


def _number(text: str | None) -> int:
    """How much `400 GB` or the like is, as a number; a very large one if nothing is said."""
    found = re.match(r"\d+", text or "")
    return int(found[0]) if found else 10**9


def check_quota(service_quotas: Any, settings: EMRServerlessSettings) -> list[Result]:
    """Whether the account may have the vCPUs of a launch at a time."""
    return looked("quota", lambda: [_quota(service_quotas, settings)], POLICIES)


def _quota(service_quotas: Any, settings: EMRServerlessSettings) -> Result:
    name, code = QUOTA
    _, wanted = vcpus_of(settings)
    try:
        answer = service_quotas.get_service_quota(ServiceCode="emr-serverless", QuotaCode=code)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchResourceException":
            raise
        return Result("quota", "unseen", f"AWS names no value of {code}", f"Look for “{name}” in AWS's Service Quotas.")
    quota = float(answer["Quota"]["Value"])
    if wanted <= quota:
        return Result("quota", "ok", f"{quota:.0f} vCPUs at a time, and a launch takes up to {wanted}")
    to_do = (
        "aws service-quotas request-service-quota-increase --service-code emr-serverless"
        f" --quota-code {code} --desired-value {wanted} (free; “{name}”), or {_SMALLER}."
    )
    # A job run is ended as soon as it asks for a worker beyond the quota: ServiceQuotaExceededException.
    finding = f"{quota:.0f} vCPUs at a time, and a launch takes up to {wanted}: EMR ends it when it asks for more"
    return Result("quota", "failed", finding, to_do)
