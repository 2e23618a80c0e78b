"""Schedules."""

import dagster as dg

from audience_explorer_dagster import settings
from audience_explorer_dagster.assets import WHOLE_MONTH_JOB
from audience_explorer_dagster.automation.month_requests import config_from_environment, month_request
from audience_explorer_dagster.partitions import months


@dg.schedule(
    job_name=WHOLE_MONTH_JOB,
    cron_schedule=settings.read().schedule,
    execution_timezone="UTC",
    description="Runs the month that just ended, with the config of AUDIENCE_EXPLORER_RUN_CONFIG.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)
def monthly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    ended = months.get_partition_keys(current_time=context.scheduled_execution_time)
    if not ended:
        return dg.SkipReason("No month has ended since AUDIENCE_EXPLORER_START_MONTH.")
    return month_request(ended[-1], config_from_environment())
