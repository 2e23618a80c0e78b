"""A month on a Spark cluster by spark-submit, whose executors have what they are sent; killed, it leaves nothing."""

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from acceptance.conftest import PROJECT, Explorer, spark_home
from acceptance.emr_serverless import ASKED, BY_APPLICATIONS
from spark_jobs import demo_audience
from tests.conftest import started

pytestmark = pytest.mark.spark


@pytest.fixture
def explorer(tmp_path: Path, packed_once: None) -> Explorer:  # noqa: ARG001
    """Audience Explorer with a small audience, set up for a cluster of two executors."""
    spark = spark_home(tmp_path / "spark")
    explorer = Explorer(tmp_path)
    explorer.environment |= {
        "AUDIENCE_EXPLORER_LAUNCHER": "spark-submit",
        "AUDIENCE_EXPLORER_SPARK_MASTER": "local-cluster[2,1,1024]",
        "AUDIENCE_EXPLORER_SPARK_SUBMIT": f"{spark}/bin/spark-submit",
        "AUDIENCE_EXPLORER_SPARK_CONF": "spark.executor.memory=1g",
        "SPARK_HOME": str(spark),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    demo_audience.make(str(explorer.root), users=2_000)
    return explorer


def test_a_month_on_a_cluster_is_that_of_this_machine(explorer: Explorer, tmp_path: Path) -> None:
    here = Explorer(tmp_path / "here")
    demo_audience.make(str(here.root), users=2_000)
    local = here.pipeline(*ASKED)
    done = explorer.pipeline(*ASKED, "--engine", "spark")
    assert done.launched == local.launched
    for name in (name for name in done.launched if name.startswith("kmeans")):
        for file in BY_APPLICATIONS:
            assert (done.folders[name] / file).read_bytes() == (local.folders[name] / file).read_bytes()


def test_a_killed_pipeline_leaves_neither_driver_nor_spark(explorer: Explorer, tmp_path: Path) -> None:
    explorer.environment["AUDIENCE_EXPLORER_SPARK_MASTER"] = "local[2]"
    command = ["audience-explorer", "pipeline", *ASKED, "--engine", "spark"]
    with started(command, cwd=PROJECT, env=explorer.environment, stderr=subprocess.DEVNULL):
        _wait_for(lambda: any("jobs.py" in line and "python" in line for line in _processes(tmp_path)))
    _wait_for(lambda: not _processes(tmp_path))


def _processes(folder: Path) -> list[str]:
    """The command lines of processes whose environment names a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended
            if str(folder).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def _wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 900
    while not what():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.2)
