"""The program of the driver on EMR Serverless: the agent that runs the jobs of one launch there.

It is in the packed archive, and is given the S3 folder of the launch; see `spark_jobs/launch`. Once nobody waits for
the launch any more, it ends the jobs, which would cost for hours.
"""

from botocore.exceptions import BotoCoreError, ClientError

from spark_jobs.launch.agent import Jobs, Machine, run_launch
from spark_jobs.launch.aws import client
from spark_jobs.launch.folder import RetryingFolder, S3Folder
from spark_jobs.launch.lease import is_valid
from spark_jobs.launch.writer import Log, Messages

_LEASE_POLL_SECONDS = 30.0


def main(location: str) -> int:
    """Do the launch whose folder is at `location`; 0 if all its jobs ended well."""
    folder = RetryingFolder(S3Folder(client("s3", None), location))

    def end_if_abandoned(jobs: Jobs, _messages: Messages, log: Log) -> bool:
        try:
            age = folder.lease_age()
        except (BotoCoreError, ClientError) as error:
            print(f"the age of the lease is not known: {error}", flush=True)
            return False
        if is_valid(age):
            return False
        why = "somebody deleted this launch" if age is None else f"nobody has waited for this launch for {age:.0f} s"
        log.add(f"{why}: its jobs are ended\n".encode())
        jobs.kill()
        return True

    # EMR runs it as a user without rights, and limits the job run; the jobs end before that, by the launch's limit.
    machine = Machine(watch=end_if_abandoned, watch_seconds=_LEASE_POLL_SECONDS)
    return 0 if run_launch(folder, machine).exit_code == 0 else 1
