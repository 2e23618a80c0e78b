"""The images that there are: listing them, and removing the old ones with their snapshots."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from audience_explorer_dagster.launchers.ec2 import instances
from audience_explorer_dagster.launchers.ec2.images import NAME, PROJECT, misfits
from audience_explorer_dagster.launchers.ec2.instances import Instance

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

LEFT_OVER = timedelta(days=1)  # a builder that is older is one of a build that was killed


@dataclass(frozen=True)
class ImageSeen:
    """An image of this project's, as EC2 describes it."""

    id: str
    name: str
    state: str
    created: str
    gigabytes: int
    tags: dict[str, str]
    used_by: tuple[str, ...]  # ids of instances that are not terminated, whosever they are

    @property
    def misfits(self) -> list[str]:
        """Why this project's jobs would not run on it; nothing if they would."""
        return misfits(self.tags)


def ours(ec2: "EC2Client") -> list[ImageSeen]:
    """This project's images, the newest first."""
    filters = [{"Name": f"tag:{name}", "Values": [value]} for name, value in PROJECT.items()]
    filters.append({"Name": "name", "Values": [f"{NAME}*"]})
    found = ec2.describe_images(Owners=["self"], Filters=filters)["Images"]  # type: ignore[arg-type]
    users = _users(ec2, [image["ImageId"] for image in found])
    seen = [
        ImageSeen(
            id=image["ImageId"],
            name=image["Name"],
            state=image["State"],
            created=image["CreationDate"],
            gigabytes=sum(disk.get("Ebs", {}).get("VolumeSize", 0) for disk in image.get("BlockDeviceMappings", [])),
            tags={tag["Key"]: tag["Value"] for tag in image.get("Tags", [])},
            used_by=tuple(users[image["ImageId"]]),
        )
        for image in found
    ]
    return sorted(seen, key=lambda image: (image.created, image.name), reverse=True)


def dispensable(images: Sequence[ImageSeen], keep: int, spared: Iterable[str] = ()) -> list[ImageSeen]:
    """The images that may go: all but the newest `keep`, those that instances use, and those that are spared by id.

    Args:
        images: The newest first. One that is not available counts for nothing, and stays: it may be in the making.
        keep: How many stay.
        spared: Ids of images that stay, too.
    """
    available = [image for image in images if image.state == "available"]
    return [image for image in available[keep:] if not image.used_by and image.id not in set(spared)]


def discard(ec2: "EC2Client", image: str) -> None:
    """Remove an image and its snapshots, which EC2 would leave."""
    found: list[Any] = list(ec2.describe_images(Filters=[{"Name": "image-id", "Values": [image]}])["Images"])
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


def _users(ec2: "EC2Client", images: Sequence[str]) -> dict[str, list[str]]:
    """The instances of each image that are not terminated."""
    users: dict[str, list[str]] = {image: [] for image in images}
    if not images:  # which would be no filter
        return users
    pages = ec2.get_paginator("describe_instances").paginate(Filters=[{"Name": "image-id", "Values": images}])
    for instance in (of for page in pages for reservation in page["Reservations"] for of in reservation["Instances"]):
        if instance["State"]["Name"] != "terminated":
            users[instance["ImageId"]].append(instance["InstanceId"])
    return users
