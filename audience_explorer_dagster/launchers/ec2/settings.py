"""What can be set about launches on EC2, and the clients and the launch store that follow from it."""

from abc import ABC
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ami.images import NAME
from audience_explorer_dagster.launchers import Launcher
from audience_explorer_dagster.launchers.launch_store import LaunchStore
from spark_jobs.launch.aws import client

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


class EC2Settings(Launcher, ABC):
    """The settings of the launcher `ec2`."""

    reaches_folders: ClassVar[bool] = False

    launches: str = Field(description="Where on S3 launches keep their messages and logs: s3://bucket/prefix.")
    instance_profile: str = Field(
        description="The name or ARN of the instances' profile; its role is in ami/iam/instance.json."
    )
    region: str | None = Field(default=None, description="The region; by default AWS's usual settings name it.")
    image: str = Field(default=f"{NAME}*", description="An image's id, or a pattern of names, whose newest is taken.")
    # The last ones fit into the quota of a new account, which is 5 vCPUs.
    instance_types: list[str] = Field(
        default=["m7i.2xlarge", "m6i.2xlarge", "m5.2xlarge", "m7i.xlarge", "m6i.xlarge"],
        min_length=1,
        description="Types, the preferred first.",
    )
    market: Literal["spot", "on-demand", "spot-then-on-demand"] = Field(
        default="spot-then-on-demand",
        description="spot-then-on-demand takes an on-demand instance if no type and subnet has a spot one.",
    )
    subnets: list[str] = Field(default=[], description="Their ids, the preferred first; empty: the default network's.")
    security_groups: list[str] = Field(
        default=[], description="Their ids; no port need be open. Empty: the network's default."
    )
    public_ip: bool | None = Field(
        default=None,
        description="Whether instances get a public address, which is their way to S3 where a subnet has an internet"
        " gateway, and no endpoint; by default the subnet's own setting decides.",
    )
    volume_gb: int = Field(default=50, ge=8, description="The size of the root volume.")
    volume_type: str = Field(default="gp3", description="The type of the root volume.")
    key_pair: str | None = Field(default=None, description="The name of an SSH key pair, for debugging only.")
    max_runtime: int = Field(default=6 * 3600, ge=10, description="Seconds after which an instance is ended.")
    boot_timeout: int = Field(default=600, ge=1, description="Seconds in which an instance must give a sign of life.")
    retries: int = Field(default=3, ge=0, description="How often a launch whose instance is lost is launched again.")
    extra_tags: dict[str, str] = Field(default={}, description="More tags of instances and volumes.")
    poll_seconds: float = Field(default=1.0, gt=0, description="How often to poll for messages, in seconds.")

    @cached_property
    def ec2(self) -> "EC2Client":
        """The EC2 client."""
        return client("ec2", self.region)

    @cached_property
    def ec2_once(self) -> "EC2Client":
        """An EC2 client that repeats no request by itself."""
        return client("ec2", self.region, attempts=1)

    @cached_property
    def launch_store(self) -> LaunchStore:
        """All launches below this location."""
        return LaunchStore(client("s3", self.region), self.launches)
