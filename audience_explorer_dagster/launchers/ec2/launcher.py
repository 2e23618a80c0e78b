"""The launcher that runs jobs on an EC2 instance, which is started for them and ended when they are done."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
from botocore.exceptions import BotoCoreError, ClientError

from ami import instances
from audience_explorer_dagster.launchers import Job, Report
from audience_explorer_dagster.launchers.ec2 import code
from audience_explorer_dagster.launchers.ec2.abandoned import why_abandoned
from audience_explorer_dagster.launchers.ec2.errors import (
    BootFailed,
    NoCapacity,
    NoWayToS3,
    SpotInterrupted,
    kind_of,
)
from audience_explorer_dagster.launchers.ec2.explanations import explained
from audience_explorer_dagster.launchers.ec2.images import check_fit, find_image
from audience_explorer_dagster.launchers.ec2.launch import Launch
from audience_explorer_dagster.launchers.ec2.settings import EC2Settings
from audience_explorer_dagster.launchers.ec2.start import launch_options
from audience_explorer_dagster.launchers.from_environment import from_environment
from audience_explorer_dagster.launchers.launch_store import new_launch_tags
from audience_explorer_dagster.launchers.network import dead_ends
from spark_jobs.launch.aws import launches_of_root


class LostCosts:
    """What the instances cost that were lost, after the last output of each: the next output has it on record."""

    def __init__(self) -> None:
        self._dollars: list[float | None] = []

    def add(self, dollars: float | None) -> None:
        """Add those of an instance; None if its price is not known."""
        self._dollars.append(dollars)

    def take(self) -> dict[str, Any]:
        """The facts for an output, once; none if nothing was lost since the output before."""
        lost, self._dollars = self._dollars, []
        known = [dollars for dollars in lost if dollars is not None]
        return {
            **({"lost_instances": len(lost)} if lost else {}),
            **({"lost_dollars": round(sum(known), 6)} if known else {}),
        }


class EC2StepLauncher(EC2Settings):
    """Runs the jobs of a launch on one EC2 instance.

    It is a Dagster Pipes client of its own: the jobs speak the Pipes protocol to a file, and the agent on the instance
    writes that, and the log, to S3 as numbered objects, which are read here (see `spark_jobs/launch`).

    An instance that AWS takes back, or that does not boot, is replaced by one of the next type or subnet, which goes on
    with the first job that was not done. A job that fails is not repeated, nor is a subnet tried again from which
    no way leads to S3, and whose instance said nothing.
    """

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
            raise kind_of(error)(explained(error)) from error

    def _launch(self, context: dg.OpExecutionContext, jobs: Sequence[Job]) -> Iterator[Report]:
        self._end_earlier(context)
        self._end_abandoned(context)
        image = find_image(self.ec2, self.image)
        check_fit(image, self.volume_gb)
        if image.is_old:
            context.log.warning(image.age_warning)
        code_location = self.launch_store.keep_code(*code.pack())
        options = launch_options(self.instance_types, self.subnets, self.market)
        closed = self._dead_ends(context)
        waiting, failed, finished = list(jobs), set[str](), set[str]()
        lost = LostCosts()
        for attempt in range(1 + self.retries):
            tags = new_launch_tags(context)
            launch = Launch(self, self.launch_store.folder(tags), tags, context, closed)
            try:
                for report in launch.run(image, code_location, options, waiting):
                    if report.event == "output":
                        if report.folder in finished:  # by an instance before, which was lost in the middle of its job
                            continue
                        finished.add(report.folder)
                        report = replace(report, launch={**report.launch, **lost.take()})  # noqa: PLW2901
                    else:
                        waiting = [job for job in waiting if job.id != report.job]
                    if report.event == "failed":
                        failed.add(report.job)
                    yield report
                return
            except (SpotInterrupted, BootFailed, NoCapacity, NoWayToS3) as error:
                if isinstance(error, NoWayToS3):
                    options = [option for option in options if option.subnet not in closed]
                if error.instance is None or attempt == self.retries or not waiting or not options:
                    raise
                context.log.warning(f"{error}. Launched again: {len(waiting)} of {len(jobs)} jobs are left")
                launch.wait_until_gone()
                lost.add(launch.uncounted_dollars())
            yield from _leave_out(waiting, failed)
            if not waiting:
                return
            options = launch.options_after(options)

    def _dead_ends(self, context: dg.OpExecutionContext) -> dict[str | None, str]:
        """The subnets from which no way leads to S3, as far as can be seen, which are warned of.

        They are tried all the same: names of S3 may lead to an endpoint that is nobody's to see here.
        """
        try:
            found = dead_ends(self.ec2, self.subnets, self.public_ip)
        except (BotoCoreError, ClientError) as error:  # roles of earlier versions may not look
            context.log.debug(f"whether subnets have a way to S3 is not known: {error}")
            return {}
        for subnet, why in found.items():
            context.log.warning(f"{subnet or 'the default network'}: {why}")
        return found

    def _end_abandoned(self, context: dg.OpExecutionContext) -> None:
        """End instances that others left and nobody waits for: no daemon may be there whose sensor would.

        One whose cloud-init never starts has no watchdog, and so would never end by itself.
        """
        try:
            for instance in instances.find(self.ec2):
                if why := why_abandoned(self.launch_store, instance):
                    context.log.warning(f"{instance.id} is ended: {why}")
                    instances.terminate(self.ec2, [instance.id])
        except (BotoCoreError, ClientError) as error:  # no reason not to launch
            context.log.warning(f"whether instances are abandoned is not known: {error}")

    def _end_earlier(self, context: dg.OpExecutionContext) -> None:
        """End what an earlier process of the run left, or of the run that it repeats: nobody waits for it."""
        runs = {context.run.run_id, context.run.tags.get("dagster/parent_run_id")} - {None}
        left = [found.id for run in runs for found in instances.find(self.ec2, {"run": str(run)})]
        if left:
            context.log.warning(f"{', '.join(left)}, left by an earlier attempt of this run, is ended")
            instances.terminate(self.ec2, left)


def _leave_out(waiting: list[Job], failed: set[str]) -> Iterator[Report]:
    """Take out the jobs that need one that failed on an instance before, of which the next knows nothing."""
    for job in list(waiting):  # they come after those that they need
        if failed.isdisjoint(job.needs):
            continue
        waiting.remove(job)
        failed.add(job.id)
        yield Report(job.id, "failed", error=f"not run, because {', '.join(job.needs)} failed")
