"""What Dagster loads."""

from collections.abc import Callable

import dagster as dg

from audience_explorer_dagster import settings
from audience_explorer_dagster.assets import (
    category_trends,
    grouped_users,
    raw_audience,
    raw_files,
    segments,
    whole_month,
)
from audience_explorer_dagster.automation import (
    abandoned_instances,
    arrived_in_time,
    category_files,
    complete_months,
    lost_runs,
    raw_arrivals,
    run_failures,
)
from audience_explorer_dagster.automation.schedule import monthly
from audience_explorer_dagster.dry_run_job import dry_run
from audience_explorer_dagster.launchers import Launcher
from audience_explorer_dagster.launchers.ec2.launcher import EC2StepLauncher
from audience_explorer_dagster.launchers.local import LocalLauncher
from audience_explorer_dagster.launchers.spark_submit import SparkSubmitLauncher
from audience_explorer_dagster.promotion import promote
from audience_explorer_dagster.store import Store
from spark_jobs.errors import InputError


def launcher_from_environment() -> Launcher:
    """The launcher that AUDIENCE_EXPLORER_LAUNCHER names; `local` by default."""
    by_name: dict[str, Callable[[], Launcher]] = {
        "local": LocalLauncher,
        "ec2": lambda: EC2StepLauncher.from_environment(by_name=True),
        "spark-submit": lambda: SparkSubmitLauncher.from_environment(by_name=True),
        "emr-serverless": _emr_serverless,
    }
    return by_name[settings.read().launcher]()


def _emr_serverless() -> Launcher:
    # dagster-aws's client, on which it is, takes a second to import.
    from audience_explorer_dagster.launchers.emr_serverless.launcher import EMRServerlessLauncher

    return EMRServerlessLauncher.from_environment(by_name=True)


def definitions(root: str, launcher: Launcher) -> dg.Definitions:
    """The project for a root and a launcher.

    Raises:
        InputError: The launcher's machines can't reach the root.
    """
    on_ec2 = isinstance(launcher, EC2StepLauncher)
    if not launcher.reaches_folders and not root.startswith("s3://"):
        raise InputError(f"AWS's machines can't reach {root}: set AUDIENCE_EXPLORER_ROOT to s3://bucket/prefix.")
    return dg.Definitions(
        assets=[raw_audience, grouped_users, segments, category_trends],
        asset_checks=[raw_files, arrived_in_time],
        jobs=[whole_month, dry_run, promote],
        schedules=[monthly],
        sensors=[
            category_files,
            complete_months,
            raw_arrivals,
            run_failures,
            lost_runs,
            *([abandoned_instances] if on_ec2 else []),
        ],
        resources={"store": Store(root=root), "launcher": launcher},
        # A run is one step, which waits for a launch: a process of its own for it would only cost time.
        executor=dg.in_process_executor,
    )


defs = definitions(settings.read().root, launcher_from_environment())
