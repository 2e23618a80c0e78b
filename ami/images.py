"""This project's machine images: how they are named and tagged, and whether one fits the code that is to run on it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from spark_jobs import REQUIRES
from spark_jobs.launch.aws import PROJECT

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import ImageTypeDef

NAME = "audience-explorer-"  # what the names of images begin with
BOOT = "2"  # the version of what the image's boot program and the code of a launch agree on
OLD_DAYS = 90  # an image gets no security updates after its build

BOOT_TAG = "boot"  # which all images of this project have, and so have their snapshots
_PYTHON = "python"
_DEPENDENCY = "dependency:"


@dataclass(frozen=True)
class Image:
    """A machine image, as EC2 describes it."""

    id: str
    name: str
    tags: dict[str, str]
    root_device: str
    state: str = "available"
    created: str = ""
    gigabytes: int = 0

    @property
    def misfits(self) -> list[str]:
        """Why this project's jobs would not run on it; nothing if they would."""
        return misfits(self.tags)

    @property
    def days_old(self) -> int | None:
        """Its age in whole days; None if EC2 does not say when it was made."""
        if not self.created:
            return None
        made = datetime.fromisoformat(self.created.replace("Z", "+00:00"))
        if made.tzinfo is None:
            made = made.replace(tzinfo=timezone.utc)
        return (datetime.now(timezone.utc) - made).days

    @property
    def is_old(self) -> bool:
        """Whether it lacks the security updates of more than `OLD_DAYS` days."""
        return self.days_old is not None and self.days_old > OLD_DAYS

    @property
    def age_warning(self) -> str:
        """What to tell a person who uses it; nothing if it is not old."""
        if not self.is_old:
            return ""
        return (
            f"Image {self.name} ({self.id}) is {self.days_old} days old, and has had no security updates since."
            " Build a new one: python -m ami build"
        )


def tags_of(python: str, dependencies: Mapping[str, str]) -> dict[str, str]:
    """The tags of an image.

    Args:
        python: The version of its Python.
        dependencies: The version of each distribution of `spark_jobs.REQUIRES`, by name.
    """
    versions = {_DEPENDENCY + canonicalize_name(name): version for name, version in dependencies.items()}
    return {**PROJECT, BOOT_TAG: BOOT, _PYTHON: python, **versions}


def misfits(tags: Mapping[str, str]) -> list[str]:
    """What of an image does not fit this project, each in a few words; nothing if it fits."""
    found = []
    if tags.get(BOOT_TAG) != BOOT:
        found.append(f"its boot program is of version {tags.get(BOOT_TAG, 'unknown')}, {BOOT} is needed")
    for tag, name, wanted in _wanted():
        version = tags.get(tag)
        if version is None:
            found.append(f"it has no {name}")
        elif not wanted.contains(version, prereleases=True):
            found.append(f"it has {name} {version}, {name}{wanted} is needed")
    return found


def named(ec2: "EC2Client", wanted: str) -> list[Image]:
    """The image of an id, or those of this account whose names fit a pattern such as `audience-explorer-*`, the newest
    first."""
    if wanted.startswith("ami-"):
        return _newest_first(_with_id(ec2, wanted))
    filters = [{"Name": "name", "Values": [wanted]}, {"Name": "state", "Values": ["available"]}]
    return _newest_first(ec2.describe_images(Filters=filters, Owners=["self"])["Images"])  # type: ignore[arg-type]


def _with_id(ec2: "EC2Client", image: str) -> list["ImageTypeDef"]:
    """The image with an id, of any account; empty if it does not exist. A filter would search all public images."""
    try:
        return ec2.describe_images(ImageIds=[image])["Images"]
    except ClientError as error:
        if error.response["Error"]["Code"] in ("InvalidAMIID.NotFound", "InvalidAMIID.Malformed"):
            return []
        raise


def ours(ec2: "EC2Client") -> list[Image]:
    """This project's images, the newest first."""
    filters = [{"Name": f"tag:{name}", "Values": [value]} for name, value in PROJECT.items()]
    filters.append({"Name": "name", "Values": [f"{NAME}*"]})
    return _newest_first(ec2.describe_images(Owners=["self"], Filters=filters)["Images"])  # type: ignore[arg-type]


def _newest_first(described: Iterable["ImageTypeDef"]) -> list[Image]:
    images = [
        Image(
            id=image["ImageId"],
            name=image["Name"],
            tags={tag["Key"]: tag["Value"] for tag in image.get("Tags", [])},
            root_device=image.get("RootDeviceName", "/dev/xvda"),
            state=image["State"],
            created=image["CreationDate"],
            gigabytes=sum(disk.get("Ebs", {}).get("VolumeSize", 0) for disk in image.get("BlockDeviceMappings", [])),
        )
        for image in described
    ]
    return sorted(images, key=lambda image: (image.created, image.name), reverse=True)


def _wanted() -> list[tuple[str, str, SpecifierSet]]:
    """The tag, name and allowed versions of each thing that the jobs need."""
    distribution = metadata.distribution("audience-explorer")
    required = [Requirement(text) for text in distribution.requires or []]
    specifiers = {canonicalize_name(requirement.name): requirement.specifier for requirement in required}
    python = SpecifierSet(distribution.metadata["Requires-Python"])
    return [
        (_PYTHON, "Python", python),
        *((_DEPENDENCY + name, name, specifiers[canonicalize_name(name)]) for name in REQUIRES),
    ]
