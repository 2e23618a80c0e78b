"""The sensor that tells of runs that failed."""

import dagster as dg

from audience_explorer_dagster.automation.notifications import Notice, notify, sinks_from_environment
from spark_jobs.errors import InputError


@dg.run_failure_sensor(
    name="run_failures",
    description="Tells of each run that failed, with what failed and why, where AUDIENCE_EXPLORER_NOTIFY says: in its"
    " own log by default.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def run_failures(context: dg.RunFailureSensorContext) -> None:
    notice = Notice.of(context.dagster_run, context.failure_event, context.get_step_failure_events())
    try:
        sinks = sinks_from_environment(context.log)
    except InputError as error:
        context.log.error(f"{error} So nobody was told of this: {notice.text}")
        return
    for sink, why in notify(sinks, notice).items():
        # The run's failure must not be lost with the sink's.
        context.log.error(f"{sink} could not be told, {why}, of this: {notice.text}")
