"""The launcher that runs jobs on EMR Serverless: a Spark cluster for as long as they take, on machines of AWS's."""

from collections.abc import Generator, Sequence

import dagster as dg
from botocore.exceptions import BotoCoreError, ClientError

from audience_explorer_dagster.launchers import Job, Report, refuse_local_engine
from audience_explorer_dagster.launchers.emr_serverless.errors import EMRServerlessLaunchFailed
from audience_explorer_dagster.launchers.emr_serverless.launch import Launch
from audience_explorer_dagster.launchers.emr_serverless.settings import EMRServerlessSettings
from audience_explorer_dagster.launchers.from_environment import from_environment
from spark_jobs.launch.aws import launches_of_root


class EMRServerlessLauncher(EMRServerlessSettings):
    """Runs the jobs of a launch as one job run of an EMR Serverless application.

    dagster-aws's client starts it and waits for its end. Messages come over a channel of this project's: the driver's
    program (`emr/driver.py`) writes what the jobs say as numbered objects on S3, as the agent on EC2 does, and they are
    read here. That client reads messages from CloudWatch only, once all is over; and dagster-aws's reader over S3 loses
    them, with no error, when S3 does not answer for a while.
    """

    @classmethod
    def from_environment(cls, by_name: bool = False) -> "EMRServerlessLauncher":
        """The launcher as AUDIENCE_EXPLORER_EMR_… variables have it, each named after a field.

        Args:
            by_name: Leave it to Dagster to look up texts when a run starts, and to show the names of their variables.

        Raises:
            InputError: A value makes no sense, or a needed one is missing.
        """
        defaults = {"launches": launches_of_root()}
        return from_environment(cls, "EMR Serverless", "AUDIENCE_EXPLORER_EMR_", defaults, by_name)

    def launch(self, context: dg.OpExecutionContext, jobs: Sequence[Job]) -> Generator[Report]:
        refuse_local_engine(jobs)
        try:
            yield from Launch(self, context, jobs).run()
        except (BotoCoreError, ClientError) as error:
            raise EMRServerlessLaunchFailed(str(error)) from error
