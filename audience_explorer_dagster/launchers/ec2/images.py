"""Machine images: how they are named and tagged, and whether one fits the code that is to run on it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from audience_explorer_dagster.launchers.ec2.errors import ImageMisfit, NoImage
from spark_jobs import REQUIRES

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import ImageTypeDef

PROJECT = {"project": "audience-explorer"}  # the tag of all that is this project's
NAME = "audience-explorer-"  # what the names of images begin with
BOOT = "1"  # the version of what the boot program and the launcher agree on

_BOOT = "boot"
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


def tags_of(python: str, dependencies: Mapping[str, str]) -> dict[str, str]:
    """The tags of an image.

    Args:
        python: The version of its Python.
        dependencies: The version of each distribution of `spark_jobs.REQUIRES`, by name.
    """
    versions = {_DEPENDENCY + canonicalize_name(name): version for name, version in dependencies.items()}
    return {**PROJECT, _BOOT: BOOT, _PYTHON: python, **versions}


def misfits(tags: Mapping[str, str]) -> list[str]:
    """What of an image does not fit this project, each in a few words; nothing if it fits."""
    found = []
    if tags.get(_BOOT) != BOOT:
        found.append(f"its boot program is of version {tags.get(_BOOT, 'unknown')}, {BOOT} is needed")
    for tag, name, wanted in _wanted():
        version = tags.get(tag)
        if version is None:
            found.append(f"it has no {name}")
        elif not wanted.contains(version, prereleases=True):
            found.append(f"it has {name} {version}, {name}{wanted} is needed")
    return found


def find_image(ec2: "EC2Client", wanted: str) -> Image:
    """The image of an id, or the newest of this account whose name fits a pattern such as `audience-explorer-*`.

    Raises:
        NoImage: There is none.
    """
    if wanted.startswith("ami-"):
        filters = [{"Name": "image-id", "Values": [wanted]}]
    else:
        filters = [{"Name": "name", "Values": [wanted]}, {"Name": "state", "Values": ["available"]}]
    owners = [] if wanted.startswith("ami-") else ["self"]
    found = ec2.describe_images(Filters=filters, Owners=owners)["Images"]  # type: ignore[arg-type]
    if not found:
        raise NoImage(f"There is no image {wanted} in {ec2.meta.region_name}. Build one: python -m ami build")
    return _newest_first(found)[0]


def ours(ec2: "EC2Client") -> list[Image]:
    """This project's images, the newest first."""
    filters = [{"Name": f"tag:{name}", "Values": [value]} for name, value in PROJECT.items()]
    filters.append({"Name": "name", "Values": [f"{NAME}*"]})
    return _newest_first(ec2.describe_images(Owners=["self"], Filters=filters)["Images"])  # type: ignore[arg-type]


def check_fit(image: Image, volume_gb: int) -> None:
    """Refuse an image that lacks what the jobs need, or that the root volume has no room for.

    Raises:
        ImageMisfit: It does; the message names the image and each thing.
    """
    if volume_gb < image.gigabytes:
        raise ImageMisfit(
            f"Image {image.name} ({image.id}) needs a root volume of {image.gigabytes} GB: volume_gb is {volume_gb}."
        )
    if found := image.misfits:
        raise ImageMisfit(
            f"Image {image.name} ({image.id}) does not fit this project: {'; '.join(found)}."
            " Build a new one: python -m ami build"
        )


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
