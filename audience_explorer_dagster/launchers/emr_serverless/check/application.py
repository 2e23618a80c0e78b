"""Whether the application is there, takes job runs, and has what jobs need."""

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from audience_explorer_dagster.launchers.aws_checks import Result, looked
from audience_explorer_dagster.launchers.emr_serverless.check.rights import POLICIES

if TYPE_CHECKING:
    from mypy_boto3_emr_serverless import EMRServerlessClient

Application = Mapping[str, Any]  # as GetApplication describes it

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# Of releases with Spark 4, by their first number.
# https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/release-versions.html
_PYTHONS = {"emr-spark-8": ("3.11", "3.13")}
_NEW = "Make another application: emr/README.md has the command."


def find_application(emr: "EMRServerlessClient", name: str) -> tuple[Application | None, list[Result]]:
    """The application of launches, or why there is none.

    Args:
        emr: The client of the region.
        name: The application's id.
    """
    found: list[Application] = []
    results = looked("application", lambda: _find(emr, name, found), POLICIES)
    return (found[0] if found else None), results


def _find(emr: "EMRServerlessClient", name: str, found: list[Application]) -> list[Result]:
    try:
        found.append(emr.get_application(applicationId=name)["application"])
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ResourceNotFoundException", "ValidationException"):
            raise
        finding = f"{emr.meta.region_name} has no application {name}"
        to_do = "Name another by its id: AUDIENCE_EXPLORER_EMR_APPLICATION; or make one: emr/README.md has the command."
        return [Result("application", "failed", finding, to_do)]
    return []


def check_application(application: Application) -> list[Result]:
    """Whether an application takes job runs, and has Spark 4 and the launcher's Python."""
    return [_state(application), _release(application)]


def _state(application: Application) -> Result:
    """https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/applications.html#application-states"""
    state, name = application["state"], application["applicationId"]
    finding = f"{application.get('name') or name} is {state}"
    if state == "TERMINATED":
        return Result("application", "failed", f"{finding}, for good", _NEW)
    if state == "CREATING":
        return Result(
            "application", "failed", f"{finding}, and takes no job runs yet", "Wait a minute, then check again."
        )
    starts = application.get("autoStartConfiguration", {}).get("enabled", True)
    if not starts and state not in ("STARTING", "STARTED"):
        to_do = (
            f"aws emr-serverless update-application --application-id {name} --auto-start-configuration enabled=true,"
            f" or start it before launches: aws emr-serverless start-application --application-id {name}"
        )
        return Result("application", "failed", f"{finding}, and does not start with a job run", to_do)
    return Result("application", "ok", finding)


def _release(application: Application) -> Result:
    label, kind = application["releaseLabel"], application["type"]
    if kind.upper() != "SPARK":
        return Result("release", "failed", f"the application is of the type {kind}, and jobs need SPARK", _NEW)
    if re.match(r"emr-\d", label):
        return Result("release", "failed", f"{label} has Spark 3, and jobs need Spark 4", _NEW)
    pythons = _PYTHONS.get(label.partition(".")[0])
    if pythons is None:
        finding = f"{label} is not known here: jobs need Spark 4 and Python {_PYTHON}, which is the launcher's"
        return Result("release", "unseen", finding, "Look for them in AWS's notes on that release.")
    if _PYTHON not in pythons:
        finding = f"{label} has Python {' and '.join(pythons)}, and the launcher has {_PYTHON}"
        return Result("release", "failed", finding, f"Run the launcher with Python {' or '.join(pythons)}.")
    return Result("release", "ok", f"{label}, with Python {_PYTHON} as here")
