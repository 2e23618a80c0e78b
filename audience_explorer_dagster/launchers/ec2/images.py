"""The image that a launch starts from."""

from typing import TYPE_CHECKING

from ami import images
from ami.images import Image
from audience_explorer_dagster.launchers.ec2.errors import ImageMisfit, NoImage

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


def find_image(ec2: "EC2Client", wanted: str) -> Image:
    """The image of an id, or the newest of this account whose name fits a pattern such as `audience-explorer-*`.

    Raises:
        NoImage: There is none.
    """
    found = images.named(ec2, wanted)
    if not found:
        raise NoImage(f"There is no image {wanted} in {ec2.meta.region_name}. Build one: python -m ami build")
    return found[0]


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
