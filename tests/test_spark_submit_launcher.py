"""The spark-submit launcher, with a stand-in for spark-submit; with the real one: acceptance/spark_submit.py."""

import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from audience_explorer_dagster.definitions import launcher_from_environment
from audience_explorer_dagster.launchers import Job, LaunchFailed, Report, packing
from audience_explorer_dagster.launchers.spark_submit import SparkSubmitLauncher
from spark_jobs.errors import InputError
from tests.conftest import started
from tests.jobs import kmeans_job
from tests.test_local_launcher import Context

JOB = kmeans_job("job", "spark")

# As the real one does, it gives the program a standard input of its own, and brings what that prints to its output.
SUBMIT = """
import json, os, subprocess, sys
from pathlib import Path
Path({told!r}).write_text(json.dumps(sys.argv[1:]))
program = sys.argv.index("audience-explorer") + 1
while sys.argv[program] in ("--archives", "--conf"):
    program += 2
{script}
"""
RUN = """
done = subprocess.run([sys.executable, *sys.argv[program:]], stdin=subprocess.PIPE, stderr=subprocess.STDOUT)
sys.exit(done.returncode)
"""


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The packed archive, which is made of nothing here."""
    file = tmp_path / "packed.tar.gz"
    monkeypatch.setattr(packing, "build", lambda _: file)
    return file


@pytest.fixture
def submit(tmp_path: Path) -> Callable[[str], str]:
    """Make a spark-submit of a script."""

    def make(script: str) -> str:
        file = tmp_path / "spark-submit"
        told = str(tmp_path / "told.json")
        file.write_text(f"#!{sys.executable}\n{SUBMIT.format(told=told, script=textwrap.dedent(script))}")
        file.chmod(0o755)
        return str(file)

    return make


def launch(job: Job = JOB, **settings: Any) -> Iterator[Report]:
    return SparkSubmitLauncher(**settings).launch(cast(Any, Context()), [job])


def told(folder: Path) -> list[str]:
    return cast(list[str], json.loads((folder / "told.json").read_text()))


def test_the_cluster_gets_the_archive_and_the_driver_runs_here(
    submit: Callable[[str], str], packed: Path, tmp_path: Path
) -> None:
    list(launch(master="yarn", submit=submit(""), conf={"spark.executor.memory": "8g"}))
    command = told(tmp_path)
    assert command[:6] == ["--master", "yarn", "--deploy-mode", "client", "--name", "audience-explorer"]
    assert command[-1] == "--end-with-stdin"
    conf = dict(part.split("=", 1) for part in command if "=" in part)
    assert conf["spark.executor.memory"] == "8g"
    assert command[command.index("--archives") + 1] == f"{packed}#environment"
    assert conf["spark.pyspark.python"] == "./environment/bin/python"
    assert conf["spark.pyspark.driver.python"] == sys.executable


@pytest.mark.parametrize("master", ["yarn", "spark://host:7077"])
def test_archives_are_no_property_of_which_spark_on_yarn_makes_a_second_copy(
    submit: Callable[[str], str], packed: Path, tmp_path: Path, master: str
) -> None:
    list(launch(master=master, submit=submit(""), conf={"spark.archives": "s3://b/own.zip#own"}))
    command = told(tmp_path)
    assert not [part for part in command if part.startswith("spark.archives")]
    assert command[command.index("--archives") + 1] == f"s3://b/own.zip#own,{packed}#environment"


@pytest.mark.parametrize("master", ["local", "local[4]"])
def test_spark_in_one_process_needs_no_archive(
    submit: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, master: str
) -> None:
    monkeypatch.setattr(packing, "build", None)
    list(launch(master=master, submit=submit("")))
    assert f"spark.pyspark.python={sys.executable}" in told(tmp_path)


def test_jobs_report_through_it(submit: Callable[[str], str]) -> None:
    job = kmeans_job("job", "spark", inputs="nowhere")
    (report,) = launch(job, master="local", submit=submit(RUN))
    assert report.event == "failed"
    assert "nowhere holds no finished output" in report.error


def test_a_spark_that_does_not_start_says_why(submit: Callable[[str], str]) -> None:
    with pytest.raises(LaunchFailed, match=r"exited with code 13; its last words: no master at spark://nowhere"):
        list(launch(master="local", submit=submit("print('no master at spark://nowhere'); sys.exit(13)")))


def test_a_spark_submit_that_is_missing_is_named_with_the_way_out() -> None:
    with pytest.raises(LaunchFailed, match=r"no-such-submit is not on the path.*AUDIENCE_EXPLORER_SPARK_SUBMIT"):
        list(launch(master="yarn", submit="no-such-submit"))


def test_the_local_engine_is_refused() -> None:
    with pytest.raises(LaunchFailed, match=r"job asks for the engine local.*--engine"):
        list(launch(kmeans_job("job", "local"), master="yarn"))


def test_jobs_end_with_whoever_launched_them(submit: Callable[[str], str], tmp_path: Path) -> None:
    """A killed orchestrator can't end them, nor does spark-submit, so they watch spark-submit's standard input."""
    program = tmp_path / "endless.py"
    program.write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "text = Path(sys.argv[1]).read_text().partition('from spark_jobs')[0]\n"
        "exec(text)\n"
        "from spark_jobs.__main__ import end_with_stdin\n"
        "end_with_stdin()\n"
        f"Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "time.sleep(1000)\n"
    )
    spark_submit = submit(RUN.replace("[sys.executable, ", f"[sys.executable, {str(program)!r}, "))
    orchestrator = tmp_path / "orchestrator.py"
    orchestrator.write_text(
        f"from tests.test_spark_submit_launcher import launch\nlist(launch(master='local', submit={spark_submit!r}))\n"
    )
    with started([sys.executable, orchestrator], env={**os.environ, "PYTHONPATH": os.getcwd()}):
        _wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    pid = int((tmp_path / "pid").read_text())
    _wait_for(lambda: not Path(f"/proc/{pid}").exists())


def _wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 240
    while not what():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)


def test_settings_come_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIENCE_EXPLORER_LAUNCHER", "spark-submit")
    with pytest.raises(InputError, match="AUDIENCE_EXPLORER_SPARK_MASTER: needed"):
        launcher_from_environment()
    monkeypatch.setenv("AUDIENCE_EXPLORER_SPARK_MASTER", "spark://host:7077")
    monkeypatch.setenv("AUDIENCE_EXPLORER_SPARK_CONF", "spark.executor.cores=4")
    assert isinstance(launcher_from_environment(), SparkSubmitLauncher)
    found = SparkSubmitLauncher.from_environment()
    assert (found.master, found.conf, found.submit) == (
        "spark://host:7077",
        {"spark.executor.cores": "4"},
        "spark-submit",
    )
