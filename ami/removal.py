"""Removing old images, with their snapshots, and what killed builds left."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from ami import instances
from ami.images import Image
from ami.instances import Instance

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

LEFT_OVER = timedelta(days=1)  # a builder that is older is one of a build that was killed


def dispensable(images: Sequence[Image], keep: int, spared: Iterable[str]) -> list[Image]:
    """The images that may go: all but the newest `keep`, and those that are spared by id.

    Args:
        images: The newest first. One that is not available counts for nothing, and stays: it may be in the making.
        keep: How many stay.
        spared: Ids of images that stay, too, such as those that instances use.
    """
    available = [image for image in images if image.state == "available"]
    return [image for image in available[keep:] if image.id not in set(spared)]


def discard(ec2: "EC2Client", image: str) -> None:
    """Remove an image and its snapshots, which EC2 would leave."""
    wanted = [{"Name": "image-id", "Values": [image]}]
    found: list[Any] = list(ec2.describe_images(Owners=["self"], Filters=wanted)["Images"])  # type: ignore[arg-type]
    disks = [disk for each in found for disk in each.get("BlockDeviceMappings", [])]
    ec2.deregister_image(ImageId=image)
    for disk in disks:
        if snapshot := disk.get("Ebs", {}).get("SnapshotId"):
            ec2.delete_snapshot(SnapshotId=snapshot)


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
