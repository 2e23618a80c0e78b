"""The launcher that runs jobs on a Spark cluster, by spark-submit, with the driver on this machine."""

import re
import shutil
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import ClassVar

import dagster as dg
from pydantic import Field

from audience_explorer_dagster.launchers import Job, LaunchFailed, Report, packing, refuse_local_engine
from audience_explorer_dagster.launchers.from_environment import from_environment
from audience_explorer_dagster.launchers.local import LocalLauncher

_ARCHIVES = "spark.archives"

# spark-submit gives the program a standard input of its own. That of spark-submit itself is the launcher's, and its end
# says that the launcher is gone. Where there is no /proc, nothing does.
_PROGRAM = """\
import os

launchers = f"/proc/{os.getppid()}/fd/0"
if os.path.exists(launchers):
    os.dup2(os.open(launchers, os.O_RDONLY), 0)

from spark_jobs.__main__ import main

main()
"""


class SparkSubmitLauncher(LocalLauncher):
    """Runs jobs on EMR on EC2 or any other cluster whose master spark-submit knows: `yarn`, `spark://host:port`, ….

    The driver is a process of this machine, in Spark's client mode, and all else is as with jobs on this machine.
    Executors get the packed archive, and need Python of this process's version.

    Which master, and how large executors are, is decided here and by Spark's own configuration (`SPARK_CONF_DIR`), so
    that the `spark_master` of a run's config has no effect.
    """

    takes_turns: ClassVar[bool] = False  # the cluster does the work, and shares it out

    master: str = Field(description="Spark's master, as spark-submit takes it: yarn, spark://host:port, ….")
    conf: dict[str, str] = Field(
        default={}, description="Spark's properties by name; those that are secret belong in spark-defaults.conf."
    )
    submit: str = Field(default="spark-submit", description="spark-submit: on the path, or with its own path.")

    @classmethod
    def from_environment(cls, by_name: bool = False) -> "SparkSubmitLauncher":
        """The launcher as AUDIENCE_EXPLORER_SPARK_… variables have it, each named after a field.

        Args:
            by_name: Leave it to Dagster to look up texts when a run starts, and to show the names of their variables.

        Raises:
            InputError: A value makes no sense, or a needed one is missing.
        """
        return from_environment(cls, "spark-submit", "AUDIENCE_EXPLORER_SPARK_", {}, by_name)

    def launch(self, context: dg.OpExecutionContext, jobs: Sequence[Job]) -> Generator[Report]:
        refuse_local_engine(jobs)
        if shutil.which(self.submit) is None:
            raise LaunchFailed(
                f"{self.submit} is not on the path. Install Apache Spark, of the cluster's version, or say where it is:"
                " AUDIENCE_EXPLORER_SPARK_SUBMIT."
            )
        context.log.info(f"the master is {self.master}")
        yield from super().launch(context, jobs)

    def _command(self, folder: Path) -> list[str]:
        program = folder / "jobs.py"
        program.write_text(_PROGRAM, encoding="utf-8")
        conf = {"spark.ui.showConsoleProgress": "false", **self.conf}
        conf |= {"spark.pyspark.driver.python": sys.executable, "spark.pyspark.python": sys.executable}
        archives = [archive for archive in conf.pop(_ARCHIVES, "").split(",") if archive]
        # Executors that are processes of their own, on this machine too, start in a folder of their own.
        if not re.match(r"local(\[|$)", self.master):
            packed = packing.build(packing.of_this_machine())
            conf["spark.pyspark.python"] = packing.PYTHON
            archives.append(f"{packed}#{packing.NAME}")
        return [
            *(self.submit, "--master", self.master, "--deploy-mode", "client", "--name", "audience-explorer"),
            # As a property alone, Spark hands them both to YARN and to its own executors, which unpack them once more.
            *(("--archives", ",".join(archives)) if archives else ()),
            *(part for name, value in conf.items() for part in ("--conf", f"{name}={value}")),
            *(str(program), "--end-with-stdin"),
        ]
