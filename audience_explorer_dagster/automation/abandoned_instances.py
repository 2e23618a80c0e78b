"""The sensor that ends instances for which nobody waits."""

import json

import dagster as dg
from botocore.exceptions import BotoCoreError, ClientError

from ami import instances
from audience_explorer_dagster.launchers import Launcher
from audience_explorer_dagster.launchers.ec2 import abandoned
from audience_explorer_dagster.launchers.ec2.launcher import EC2StepLauncher
from audience_explorer_dagster.launchers.launch_store import LaunchTags


@dg.sensor(
    description="Ends instances that nobody waits for: those whose run is over, or was killed. Its log says so one time"
    " before it is done.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def abandoned_instances(context: dg.SensorEvaluationContext, launcher: dg.ResourceParam[Launcher]) -> dg.SkipReason:
    assert isinstance(launcher, EC2StepLauncher)
    announced: list[str] = json.loads(context.cursor or "[]")
    found = {}
    told = []
    for instance in instances.find(launcher.ec2):
        try:
            why = _why_abandoned(context.instance, launcher, instance)
        except (BotoCoreError, ClientError) as error:  # the others are looked at all the same
            told.append(f"whether {instance.id} is abandoned can't be told: {error}.")
            continue
        if why is not None:
            found[instance.id] = why
    for name, why in found.items():
        told.append(f"{name} {'is ended' if name in announced else 'will be ended the next time'}: {why}.")
        context.log.warning(told[-1])
        if name in announced:
            instances.terminate(launcher.ec2, [name])
    context.update_cursor(json.dumps(list(found)))
    return dg.SkipReason(" ".join(told) or "No instance is abandoned.")


def _why_abandoned(dagster: dg.DagsterInstance, launcher: EC2StepLauncher, instance: instances.Instance) -> str | None:
    """Why nobody waits for an instance; None if somebody does, or might: other deployments may share the account."""
    tags = LaunchTags.of(instance.tags)
    if tags is None or instance.state == "shutting-down":
        return None
    run = dagster.get_run_by_id(tags.run)
    if run is None:
        return None
    if run.is_finished:
        return f"its run {tags.run} is over ({run.status.value})"
    # A process that was killed leaves its run unfinished.
    why = abandoned.why_abandoned(launcher.launch_store, instance)
    return None if why is None else f"{why}: the process of its run {tags.run} is gone"
