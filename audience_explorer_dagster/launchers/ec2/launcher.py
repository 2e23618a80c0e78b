"""The launcher that runs jobs on an EC2 instance, which is started for them and ended when they are done."""

from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

import dagster as dg
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import Field

from audience_explorer_dagster.launchers import PIPELINE_TAG, Job, Launcher, Report
from audience_explorer_dagster.launchers.ec2 import code, instances
from audience_explorer_dagster.launchers.ec2.access import client, launches_of_root
from audience_explorer_dagster.launchers.ec2.errors import (
    BootFailed,
    NoCapacity,
    SpotInterrupted,
    kind_of,
)
from audience_explorer_dagster.launchers.ec2.images import NAME, check_fit, find_image
from audience_explorer_dagster.launchers.ec2.launch import Launch
from audience_explorer_dagster.launchers.ec2.launches import Launches, LaunchTags
from audience_explorer_dagster.launchers.from_environment import from_environment
from audience_explorer_dagster.partitions import Partition, short_name
from audience_explorer_dagster.store import new_folder_name

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


class EC2StepLauncher(Launcher):
    """Runs the jobs of a launch on one EC2 instance.

    It is a Dagster Pipes client of its own: the jobs speak the Pipes protocol to a file, and the instance's boot
    program ships that, and the log, to S3 as numbered objects, which are read here (see `launches.py`, `ami/boot.py`).

    An instance that AWS takes back, or that does not boot, is replaced by one of the next type or subnet, which goes on
    with the first job that was not done. A job that fails is not repeated.
    """

    reaches_folders: ClassVar[bool] = False

    launches: str = Field(description="Where on S3 launches keep their messages and logs: s3://bucket/prefix.")
    instance_profile: str = Field(
        description="The name or ARN of the instances' profile; its role is in ami/iam/instance.json."
    )
    region: str | None = Field(default=None, description="The region; by default AWS's usual settings name it.")
    image: str = Field(default=f"{NAME}*", description="An image's id, or a pattern of names, whose newest is taken.")
    instance_types: list[str] = Field(
        default=["m7i.2xlarge", "m6i.2xlarge", "m5.2xlarge"], min_length=1, description="Types, the preferred first."
    )
    market: Literal["spot", "on-demand", "spot-then-on-demand"] = Field(
        default="spot-then-on-demand",
        description="spot-then-on-demand takes an on-demand instance if no type and subnet has a spot one.",
    )
    subnets: list[str] = Field(default=[], description="Their ids, the preferred first; empty: the default network's.")
    security_groups: list[str] = Field(
        default=[], description="Their ids; no port need be open. Empty: the network's default."
    )
    volume_gb: int = Field(default=50, ge=8, description="The size of the root volume.")
    volume_type: str = Field(default="gp3", description="The type of the root volume.")
    key_pair: str | None = Field(default=None, description="The name of an SSH key pair, for debugging only.")
    max_runtime: int = Field(default=6 * 3600, ge=10, description="Seconds after which an instance is ended.")
    boot_timeout: int = Field(default=600, ge=1, description="Seconds in which an instance must give a sign of life.")
    retries: int = Field(default=3, ge=0, description="How often a launch whose instance is lost is launched again.")
    extra_tags: dict[str, str] = Field(default={}, description="More tags of instances and volumes.")
    poll_seconds: float = Field(default=1.0, gt=0, description="How often to look for messages, in seconds.")

    @classmethod
    def from_environment(cls, by_name: bool = False) -> "EC2StepLauncher":
        """The launcher as AUDIENCE_EXPLORER_EC2_… variables have it, each named after a field.

        Lists are separated by commas; tags are `name=value`.

        Args:
            by_name: Leave it to Dagster to look up texts when a run starts, and to show the names of their variables.

        Raises:
            InputError: A value makes no sense, or a needed one is missing.
        """
        defaults = {"launches": launches_of_root()}
        return from_environment(cls, "EC2", "AUDIENCE_EXPLORER_EC2_", defaults, by_name)

    def launch(self, context: dg.OpExecutionContext, jobs: Sequence[Job]) -> Generator[Report]:
        try:
            yield from self._launch(context, jobs)
        except (BotoCoreError, ClientError) as error:
            raise kind_of(error)(str(error)) from error

    def _launch(self, context: dg.OpExecutionContext, jobs: Sequence[Job]) -> Iterator[Report]:
        self._end_earlier(context)
        image = find_image(self.ec2, self.image)
        check_fit(image, self.volume_gb)
        code_location = self.all_launches.keep_code(*code.pack())
        asked = instances.offers(self.instance_types, self.subnets, self.market)
        waiting, failed, told = list(jobs), set[str](), set[str]()
        for attempt in range(1 + self.retries):
            tags = launch_tags(context)
            launch = Launch(self, self.all_launches.folder(tags), tags, context)
            try:
                for report in launch.run(image, code_location, asked, waiting):
                    if report.event == "output":
                        if report.folder in told:  # by an instance before, which was lost in the middle of its job
                            continue
                        told.add(report.folder)
                    else:
                        waiting = [job for job in waiting if job.id != report.job]
                    if report.event == "failed":
                        failed.add(report.job)
                    yield report
                return
            except (SpotInterrupted, BootFailed, NoCapacity) as error:
                if error.instance is None or attempt == self.retries or not waiting:
                    raise
                context.log.warning(f"{error}. Launched again: {len(waiting)} of {len(jobs)} jobs are left")
                launch.wait_until_gone()
            # What an instance before saw fail, this one knows nothing of.
            for job in [job for job in waiting if failed.intersection(job.needs)]:
                waiting.remove(job)
                failed.add(job.id)
                yield Report(job.id, "failed", error=f"not run, because {', '.join(job.needs)} failed")
            if not waiting:
                return
            asked = launch.next_offers(asked)

    def _end_earlier(self, context: dg.OpExecutionContext) -> None:
        """End what an earlier process of the run left, or of the run that it repeats: nobody waits for it."""
        runs = {context.run.run_id, context.run.tags.get("dagster/parent_run_id")} - {None}
        left = [found.id for run in runs for found in instances.find(self.ec2, {"run": str(run)})]
        if left:
            context.log.warning(f"{', '.join(left)}, left by an earlier attempt of this run, is ended")
            instances.terminate(self.ec2, left)

    @cached_property
    def ec2(self) -> "EC2Client":
        """The EC2 client."""
        return client("ec2", self.region)

    @cached_property
    def ec2_once(self) -> "EC2Client":
        """An EC2 client that repeats no request by itself."""
        return client("ec2", self.region, once=True)

    @cached_property
    def all_launches(self) -> Launches:
        """All launches below this location."""
        return Launches(client("s3", self.region), self.launches)


def launch_tags(context: dg.OpExecutionContext) -> LaunchTags:
    """The tags of a new launch of a run."""
    run = context.run
    pipeline = run.tags.get(PIPELINE_TAG) or run.tags.get("dagster/backfill") or run.root_run_id or run.run_id
    label = short_name([Partition.parse(key) for key in context.partition_keys])
    return LaunchTags(launch=new_folder_name(), pipeline=pipeline, run=run.run_id, label=label)
