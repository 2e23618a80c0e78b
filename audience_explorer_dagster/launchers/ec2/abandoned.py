"""Instances for which nobody waits any more, because the process that launched them was killed."""

from ami.instances import Instance
from audience_explorer_dagster.launchers.launch_store import LaunchStore, LaunchTags
from spark_jobs.launch import lease


def why_abandoned(store: LaunchStore, instance: Instance) -> str | None:
    """Why nobody waits for an instance; None if somebody does, or might: its launch may lie in another store.

    Raises:
        BotoCoreError, ClientError: AWS does not say.
    """
    tags = LaunchTags.of(instance.tags)
    if tags is None or instance.state == "shutting-down":
        return None
    age = store.folder(tags).lease_age()
    if age is None or lease.is_valid(age):
        return None
    return f"nobody has waited for it for {age:.0f} s"
