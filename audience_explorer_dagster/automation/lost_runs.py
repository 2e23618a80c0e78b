"""The sensor that fails runs of commands whose process is gone."""

import dagster as dg

from audience_explorer_dagster.running.in_this_process import fail_lost_runs


@dg.sensor(
    description="Fails the runs of `audience-explorer` commands on this machine whose process was killed, so that they"
    " are reported, and nobody waits for them.",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def lost_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    failed = fail_lost_runs(context.instance)
    return dg.SkipReason(f"Failed, for their processes are gone: {', '.join(failed)}." if failed else "None is lost.")
