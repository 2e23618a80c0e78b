"""Whether the packed archive of the jobs is where job runs fetch it, or would come there."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from audience_explorer_dagster.launchers import LaunchFailed, packing
from audience_explorer_dagster.launchers.aws_checks import Result, looked
from audience_explorer_dagster.launchers.emr_serverless.check.rights import POLICIES, Rights
from audience_explorer_dagster.launchers.emr_serverless.settings import EMRServerlessSettings


def check_archive(rights: Rights, settings: EMRServerlessSettings, application: Mapping[str, Any]) -> list[Result]:
    """Whether the archive for the application's processors is on S3, or can be made here and uploaded.

    Args:
        rights: The caller's.
        settings: The launcher's.
        application: As GetApplication describes it; empty if it is not known.
    """
    architecture: packing.Architecture = "aarch64" if application.get("architecture") == "ARM64" else "x86_64"
    check = f"archive for {architecture}"
    try:
        name, can_be_built = packing.name(architecture), packing.can_be_built(architecture)
    except LaunchFailed as error:
        return [Result(check, "failed", "it can't be made: a package is missing", str(error))]
    return looked(check, lambda: [_archive(rights, settings, check, name, can_be_built)], POLICIES)


def _archive(rights: Rights, settings: EMRServerlessSettings, check: str, name: str, can_be_built: bool) -> Result:
    if settings.launch_store.keeps(name):
        return Result(check, "ok", "it is on S3")
    if not can_be_built:
        return Result(
            check, "failed", "it is not on S3 yet, and this Python has no pip to make it", "Install pip here."
        )
    place = urlsplit(settings.launches)
    folder = "/".join(part for part in (place.netloc, place.path.strip("/"), "code") if part)
    put = f"arn:{rights.partition}:s3:::{folder}/{name}"
    (decision,) = rights.decide(["s3:PutObject"], put).values()
    if decision == "allowed":
        return Result(check, "ok", "it is not on S3 yet: the first launch makes and uploads it, 140 MB")
    finding = "it is not on S3 yet, and the caller may not upload it"
    to_do = f"Allow s3:PutObject on arn:{rights.partition}:s3:::{folder}/*, as {POLICIES}/launcher.json does."
    if decision == "implicitDeny":
        return Result(check, "warning", f"{finding}, unless the bucket's own policy allows it", to_do)
    return Result(check, "failed", finding, to_do)
