"""What can be set about launches on EMR Serverless, and what follows from that."""

from abc import ABC
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from audience_explorer_dagster.launchers import Launcher, packing
from audience_explorer_dagster.launchers.launch_store import LaunchStore
from spark_jobs.launch.aws import client

if TYPE_CHECKING:
    from mypy_boto3_emr_serverless import EMRServerlessClient


class EMRServerlessSettings(Launcher, ABC):
    """The settings of the launcher `emr-serverless`."""

    reaches_folders: ClassVar[bool] = False

    application: str = Field(description="The id of the application; its release must have Spark 4.")
    role: str = Field(description="The ARN of the jobs' role, which is in emr/iam/job.json.")
    launches: str = Field(description="Where on S3 launches keep their messages and logs: s3://bucket/prefix.")
    region: str | None = Field(default=None, description="The region; by default AWS's usual settings name it.")
    driver_cores: int = Field(default=4, ge=1, description="vCPUs of the driver, where k-means of `spark` runs.")
    driver_memory_gb: int = Field(default=16, ge=2, description="Its memory; how much goes with how many vCPUs: AWS's.")
    executor_cores: int = Field(default=4, ge=1, description="vCPUs of an executor.")
    executor_memory_gb: int = Field(default=16, ge=2, description="Its memory.")
    max_executors: int = Field(
        default=3,
        ge=1,
        description="How many executors there may be at a time. By default a launch has 16 vCPUs in all, which is a new"
        " account's quota (Service Quotas: Max concurrent vCPUs per account).",
    )
    python_share: float = Field(
        default=0.5, ge=0.1, le=0.9, description="The share of memory that is Python's; the rest is the JVM's heap."
    )
    conf: dict[str, str] = Field(default={}, description="More of Spark's properties, by name; anybody may read them.")
    max_runtime: int = Field(default=6 * 3600, ge=600, description="Seconds after which a job run is ended.")
    extra_tags: dict[str, str] = Field(default={}, description="More tags of job runs.")
    dollars_per_vcpu_hour: float = Field(default=0.052624, ge=0, description="Default: Virginia's for x86_64, 2026.")
    dollars_per_gb_hour: float = Field(default=0.0057785, ge=0, description="Of memory, likewise.")
    dollars_per_disk_gb_hour: float = Field(
        default=0.000111, ge=0, description="Of disk beyond the 20 GB a worker that cost nothing, likewise."
    )
    poll_seconds: float = Field(default=1.0, gt=0, description="How often to poll for messages, in seconds.")

    def dollars(self, billed: dict[str, float]) -> float:
        """What billed resources cost, by the names that AWS gives them."""
        prices = {
            "vCPUHour": self.dollars_per_vcpu_hour,
            "memoryGBHour": self.dollars_per_gb_hour,
            "storageGBHour": self.dollars_per_disk_gb_hour,
        }
        return sum(price * billed.get(name, 0.0) for name, price in prices.items())

    def properties(self, packed: str) -> dict[str, str]:
        """Spark's properties of a launch whose packed archive is at an URL."""
        heap, region = 1 - self.python_share, self.emr.meta.region_name
        return {
            "spark.driver.cores": str(self.driver_cores),
            "spark.driver.memory": f"{int(self.driver_memory_gb * heap * 1024)}m",
            "spark.executor.cores": str(self.executor_cores),
            "spark.executor.memory": f"{int(self.executor_memory_gb * heap * 1024)}m",
            # A part of the heap, on top of it.
            "spark.emr-serverless.memoryOverheadFactor": f"{self.python_share / heap:.4g}",
            "spark.dynamicAllocation.maxExecutors": str(self.max_executors),
            **self.conf,
            "spark.archives": f"{packed}#{packing.NAME}",
            "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": packing.PYTHON,
            "spark.emr-serverless.driverEnv.PYSPARK_PYTHON": packing.PYTHON,
            "spark.executorEnv.PYSPARK_PYTHON": packing.PYTHON,
            # boto3 reads the second one alone, and others the first.
            **{
                f"{process}.{name}": region
                for process in ("spark.emr-serverless.driverEnv", "spark.executorEnv")
                for name in ("AWS_REGION", "AWS_DEFAULT_REGION")
            },
        }

    @cached_property
    def emr(self) -> "EMRServerlessClient":
        """The client of EMR Serverless."""
        return client("emr-serverless", self.region)

    @cached_property
    def launch_store(self) -> LaunchStore:
        """All launches below this location."""
        return LaunchStore(client("s3", self.region), self.launches)
