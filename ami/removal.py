"""Removing old images, with their snapshots, and what killed builds left."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from ami import instances
from ami.images import BOOT_TAG, NAME, Image
from ami.instances import Instance
from spark_jobs.launch.aws import PROJECT

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

LEFT_OVER = timedelta(days=1)  # a builder, or a snapshot without an image, that is older is of a build that was killed

# The snapshot is gone already; or EC2 still counts it to an image that was just deregistered: a later prune deletes it.
_LEFT_FOR_LATER = {"InvalidSnapshot.NotFound", "InvalidSnapshot.InUse"}


@dataclass(frozen=True)
class Snapshot:
    """The snapshot of an image's disk, as EC2 describes it; `name` is the image's."""

    id: str
    name: str
    gigabytes: int
    made_at: datetime


def dispensable(images: Sequence[Image], keep: int, spared: Iterable[str]) -> list[Image]:
    """The images that may go: all but the newest `keep`, and those that are spared by id.

    Args:
        images: The newest first. One that is not available counts for nothing, and stays: it may be in the making.
        keep: How many stay.
        spared: Ids of images that stay, too, such as those that instances use.
    """
    available = [image for image in images if image.state == "available"]
    return [image for image in available[keep:] if image.id not in set(spared)]


def discard(ec2: "EC2Client", image: str, name: str) -> None:
    """Remove an image and its snapshots, which EC2 would leave.

    An image that is still being made may not list its snapshots yet: they are known by its name, with which they are
    tagged.
    """
    wanted = [{"Name": "image-id", "Values": [image]}]
    found: list[Any] = list(ec2.describe_images(Owners=["self"], Filters=wanted)["Images"])  # type: ignore[arg-type]
    disks = [disk for each in found for disk in each.get("BlockDeviceMappings", [])]
    listed = {disk["Ebs"]["SnapshotId"] for disk in disks if disk.get("Ebs", {}).get("SnapshotId")}
    tagged = {snapshot.id for snapshot in _snapshots(ec2, name)}
    ec2.deregister_image(ImageId=image)
    delete_snapshots(ec2, sorted(listed | (tagged - _used_snapshots(ec2))))


def delete_snapshots(ec2: "EC2Client", snapshots: Iterable[str]) -> None:
    """Delete snapshots, but for what EC2 says is in use by an image."""
    for snapshot in snapshots:
        try:
            ec2.delete_snapshot(SnapshotId=snapshot)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _LEFT_FOR_LATER:
                raise


def left_over_snapshots(ec2: "EC2Client") -> list[Snapshot]:
    """Snapshots that builds made and no image of this account has: of builds that were killed, the oldest first."""
    now = datetime.now(timezone.utc)
    found = [snapshot for snapshot in _snapshots(ec2, f"{NAME}*") if now - snapshot.made_at > LEFT_OVER]
    used = _used_snapshots(ec2) if found else set()
    return sorted((one for one in found if one.id not in used), key=lambda one: (one.made_at, one.id))


def _snapshots(ec2: "EC2Client", name: str) -> list[Snapshot]:
    """The snapshots of this account that builds made, by the name of their image, which may be a pattern.

    Builds tag them as they tag the image. Whoever copies a disk by hand hardly gives all three tags.
    """
    filters: list[Any] = [{"Name": f"tag:{key}", "Values": [value]} for key, value in {**PROJECT, "Name": name}.items()]
    filters.append({"Name": "tag-key", "Values": [BOOT_TAG]})
    pages = ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=filters)
    return [
        Snapshot(
            id=found["SnapshotId"],
            name=next(tag["Value"] for tag in found["Tags"] if tag["Key"] == "Name"),
            gigabytes=found["VolumeSize"],
            made_at=found["StartTime"],
        )
        for page in pages
        for found in page["Snapshots"]
    ]


def _used_snapshots(ec2: "EC2Client") -> set[str]:
    """The snapshots of all images of this account, whatever they are for, also the disabled ones."""
    images: list[Any] = list(ec2.describe_images(Owners=["self"], IncludeDisabled=True)["Images"])
    disks = [disk for image in images for disk in image.get("BlockDeviceMappings", [])]
    return {disk["Ebs"]["SnapshotId"] for disk in disks if disk.get("Ebs", {}).get("SnapshotId")}


def left_over_builders(ec2: "EC2Client") -> list[Instance]:
    """Builders of builds that were killed, and could not end them."""
    now = datetime.now(timezone.utc)
    builders = instances.find(ec2, {"role": "image-builder"})
    return [builder for builder in builders if now - builder.launched_at > LEFT_OVER]


def users(ec2: "EC2Client", images: Sequence[Image]) -> dict[str, list[str]]:
    """The ids of the instances that are not terminated, whosever they are, by the id of the image that they use."""
    found: dict[str, list[str]] = {}
    if not images:  # which would be no filter
        return found
    filters = [{"Name": "image-id", "Values": [image.id for image in images]}]
    pages = ec2.get_paginator("describe_instances").paginate(Filters=filters)  # type: ignore[arg-type]
    for instance in (of for page in pages for reservation in page["Reservations"] for of in reservation["Instances"]):
        if instance["State"]["Name"] != "terminated":
            found.setdefault(instance["ImageId"], []).append(instance["InstanceId"])
    return found
