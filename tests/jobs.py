"""Jobs for tests of launchers, most of which do not run them."""

from audience_explorer_dagster.launchers import Job
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import KMEANS, Target
from spark_jobs.config import Engine, EngineConfig, KMeansConfig
from spark_jobs.job_configs import KMeans


def kmeans_job(name: str, engine: Engine = "local", *, inputs: str = "in", output: str = "out") -> Job:
    """A job of kmeans, on inputs that may not be there."""
    config = KMeans(inputs=inputs, output=output, config=KMeansConfig(k=2), engine=EngineConfig(engine=engine))
    return Job(name, (Target(KMEANS, Partition("2024-01", "tea")),), config)
