"""The jobs that make what a plan computes."""

from collections.abc import Mapping

from audience_explorer_dagster.launchers import Job
from audience_explorer_dagster.planning.decisions import Compute
from audience_explorer_dagster.planning.targets import (
    AUDIENCE_REPORT,
    CLUSTERING_INPUTS,
    GROUPED_USERS,
    SEGMENTS,
    Target,
)
from spark_jobs.job_configs import JobConfig, MakeClusteringInputs

# Of a month, in this order: its users, the inputs of all categories together, the rest a category at a time, and last
# what takes hardly any time, and would keep the rest from running beside each other.
_REST = 2
_ORDER = {GROUPED_USERS: 0, CLUSTERING_INPUTS: 1, SEGMENTS: 3, AUDIENCE_REPORT: 4}


def jobs_for(computed: Mapping[Target, Compute]) -> tuple[Job, ...]:
    """The jobs, in an order in which each comes after those that it needs.

    A job makes one target, but for the clustering inputs: one job makes those of all of a month's categories, for it
    reads the month once.
    """
    made_by: dict[str, list[Target]] = {}
    for target in sorted(computed, key=lambda target: (target.partition.month, _ORDER.get(target.asset, _REST))):
        made_by.setdefault(_job_id(target, computed[target]), []).append(target)
    return tuple(_job(name, tuple(targets), computed) for name, targets in made_by.items())


def _job(name: str, targets: tuple[Target, ...], computed: Mapping[Target, Compute]) -> Job:
    sources = [source.target for target in targets for source in computed[target].sources if source.target in computed]
    needs = dict.fromkeys(_job_id(target, computed[target]) for target in sources)
    return Job(name, targets, _one_for_all([computed[target].config for target in targets]), tuple(needs))


def _job_id(target: Target, compute: Compute) -> str:
    """Such as `kmeans coffee|2024-01`, or `make_clustering_inputs 2024-01`: that is one job for all categories."""
    is_for_the_month = target.asset == CLUSTERING_INPUTS
    return f"{compute.config.module} {target.partition.month if is_for_the_month else target.partition}"


def _one_for_all(configs: list[JobConfig]) -> JobConfig:
    """The config of a job that does what the jobs of these configs do."""
    files = [file for config in configs if isinstance(config, MakeClusteringInputs) for file in config.category_files]
    return configs[0].model_copy(update={"category_files": tuple(files)} if files else {})
