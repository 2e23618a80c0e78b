"""The sensor that looks for runs whose process is gone where Dagster's run monitoring does not."""

import dagster as dg

from audience_explorer_dagster.run_launcher import MonitoredRunLauncher
from audience_explorer_dagster.running.in_this_process import fail_lost_runs


@dg.sensor(
    description="Fails the runs of `audience-explorer` commands on this machine whose process was killed, so that they"
    " are reported, and nobody waits for them. Gives runs of a deployment that lost their process before they began a"
    " new one.",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def lost_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    failed, launcher = fail_lost_runs(context.instance), context.instance.run_launcher
    resumed = launcher.resume_lost_starts() if isinstance(launcher, MonitoredRunLauncher) else []
    found = [
        *([f"Failed, for their processes are gone: {', '.join(failed)}."] if failed else []),
        *([f"Given a new process, for they lost theirs before they began: {', '.join(resumed)}."] if resumed else []),
    ]
    return dg.SkipReason(" ".join(found) or "None is lost.")
