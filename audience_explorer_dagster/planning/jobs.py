"""The jobs that make what a plan computes."""

from collections.abc import Mapping

from audience_explorer_dagster.launchers import Job
from audience_explorer_dagster.planning.decisions import Compute
from audience_explorer_dagster.planning.targets import CLUSTERING_INPUTS, GROUPED_USERS, Target
from spark_jobs.job_configs import JobConfig, MakeClusteringInputs


def jobs_for(computed: Mapping[Target, Compute]) -> tuple[Job, ...]:
    """The jobs, in an order in which each comes after those that it needs.

    A job makes one target, but for the clustering inputs: one job makes those of all of a month's categories, for it
    reads the month once.
    """
    jobs: list[Job] = []
    for month in dict.fromkeys(target.partition.month for target in computed):
        of_month = [target for target in computed if target.partition.month == month]
        grouped = [target for target in of_month if target.asset == GROUPED_USERS]
        inputs = [target for target in of_month if target.asset == CLUSTERING_INPUTS]
        rest = [target for target in of_month if target.asset not in (GROUPED_USERS, CLUSTERING_INPUTS)]
        made_together = [(target,) for target in grouped] + ([tuple(inputs)] if inputs else []) + [(t,) for t in rest]
        jobs += [_job(targets, computed) for targets in made_together]
    return tuple(jobs)


def _job(targets: tuple[Target, ...], computed: Mapping[Target, Compute]) -> Job:
    needs = [source.target for target in targets for source in computed[target].sources if source.target in computed]
    needed_jobs = dict.fromkeys(_job_id(target, computed[target]) for target in needs)
    config = _one_for_all([computed[target].config for target in targets])
    return Job(_job_id(targets[0], computed[targets[0]]), targets, config, tuple(needed_jobs))


def _job_id(target: Target, compute: Compute) -> str:
    """Such as `kmeans coffee|2024-01`, or `make_clustering_inputs 2024-01`: that is one job for all categories."""
    is_for_the_month = target.asset == CLUSTERING_INPUTS
    return f"{compute.config.module} {target.partition.month if is_for_the_month else target.partition}"


def _one_for_all(configs: list[JobConfig]) -> JobConfig:
    """The config of a job that does what the jobs of these configs do."""
    files = [file for config in configs if isinstance(config, MakeClusteringInputs) for file in config.category_files]
    return configs[0].model_copy(update={"category_files": tuple(files)} if files else {})
