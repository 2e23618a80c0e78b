"""The ways in which a launch on EC2 can fail, each a named error with the facts as attributes."""

from botocore.exceptions import BotoCoreError, ClientError

from audience_explorer_dagster.launchers import LaunchFailed
from audience_explorer_dagster.launchers.aws import is_refusal
from audience_explorer_dagster.launchers.ec2.explanations import WITHOUT_NETWORK


class EC2LaunchFailed(LaunchFailed):
    """A launch on EC2 failed.

    Attributes:
        what: What went wrong.
        launch: The id of the launch, if it got one.
        instance: The id of its instance, if there was one.
        log: Where its log is, if it has one.
    """

    def __init__(self, what: str, launch: str | None = None, instance: str | None = None, log: str | None = None):
        self.what = what
        self.launch = launch
        self.instance = instance
        self.log = log
        where = {"instance": instance, "launch": launch, "log": log}
        facts = ", ".join(f"{name} {value}" for name, value in where.items() if value is not None)
        super().__init__(f"{type(self).__name__}: {what}" + (f" [{facts}]" if facts else ""))


class NoImage(EC2LaunchFailed):
    """There is no machine image to launch."""


class ImageMisfit(EC2LaunchFailed):
    """The machine image lacks what the jobs need."""


class NoCapacity(EC2LaunchFailed):
    """No type, subnet and market that the configuration allows had an instance to give."""


class BootFailed(EC2LaunchFailed):
    """The instance gave no sign of life in time, or its boot program ended before the jobs did."""


class JobFailed(EC2LaunchFailed):
    """The process of the jobs ended before all of them had their turn."""


class OutOfMemory(EC2LaunchFailed):
    """The kernel ended the process of the jobs, because the machine had no memory left."""


class SpotInterrupted(EC2LaunchFailed):
    """AWS took the spot instance back."""


class TerminatedFromOutside(EC2LaunchFailed):
    """Somebody ended the instance: neither this launch, nor AWS, nor the instance itself."""


class Overdue(EC2LaunchFailed):
    """The instance ran for as long as `max_runtime` allows."""


class MessagesLost(EC2LaunchFailed):
    """The instance wrote more messages than arrived."""


class NoNetwork(EC2LaunchFailed):
    """No subnet is configured, and there is no default network."""


class NoWayToS3(EC2LaunchFailed):
    """The instance gave no sign of life, and no way leads from its subnet to S3."""


class Refused(EC2LaunchFailed):
    """AWS refused a request: a permission is missing, or a setting makes no sense to it."""


class Unreachable(EC2LaunchFailed):
    """AWS did not answer for too long."""


def kind_of(error: BotoCoreError | ClientError) -> type[EC2LaunchFailed]:
    """What an error of AWS's makes of a launch."""
    if isinstance(error, ClientError) and error.response["Error"]["Code"] in WITHOUT_NETWORK:
        return NoNetwork
    return Refused if is_refusal(error) else Unreachable
