"""The engines that run the jobs' work: the processes of one machine, or Apache Spark. Both give the same bytes.

What a job hands over are functions of this package's own data; what they share is in `engine.py`.
"""

from spark_jobs.config import EngineConfig
from spark_jobs.engines.engine import Demand, Engine, Exchange, Exchanged
from spark_jobs.resources import Resources

__all__ = ["Demand", "Engine", "Exchange", "Exchanged", "start"]


def start(config: EngineConfig, resources: Resources) -> Engine:
    """The engine that a job's config asks for.

    Raises:
        InputError: It is not installed, or does not start; the message says what it needs.
    """
    if config.engine == "local":
        from spark_jobs.engines.local import LocalEngine

        return LocalEngine(resources)
    from spark_jobs.engines.spark import SparkEngine

    return SparkEngine(config.spark_master, resources)
