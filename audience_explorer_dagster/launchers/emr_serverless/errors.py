"""How a launch on EMR Serverless fails."""

from audience_explorer_dagster.launchers import LaunchFailed


class EMRServerlessLaunchFailed(LaunchFailed):
    """A launch on EMR Serverless failed.

    Attributes:
        what: What went wrong.
        launch: The id of the launch, if it got one.
        job_run: The id of its job run, if there was one.
        log: Where its log is, if it has one.
    """

    def __init__(self, what: str, launch: str | None = None, job_run: str | None = None, log: str | None = None):
        self.what = what
        self.launch = launch
        self.job_run = job_run
        self.log = log
        where = {"job run": job_run, "launch": launch, "log": log}
        facts = ", ".join(f"{name} {value}" for name, value in where.items() if value is not None)
        super().__init__(f"EMR Serverless: {what}" + (f" [{facts}]" if facts else ""))
