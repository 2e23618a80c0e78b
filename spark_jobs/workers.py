"""Jobs beside each other: worker processes of this machine, each of which runs one job at a time.

k-means of a small category keeps one core busy, and a month has dozens of categories. What a worker's job reports goes
through the process of the launch, so that only that one speaks to the Dagster run.

A worker is `python -m spark_jobs.workers`: it takes jobs as JSON lines on its standard input, and ends when that does.
Reports are JSON lines on its standard output; what else a job prints goes to standard error.
"""

import importlib
import json
import os
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from spark_jobs import outputs
from spark_jobs.arrow import leave_pandas_out
from spark_jobs.errors import InputError, S3Error, as_line
from spark_jobs.job_configs import JOBS, KMeans, SelectK
from spark_jobs.outputs import Manifest
from spark_jobs.processes import end_with
from spark_jobs.reporting import Reporter
from spark_jobs.resources import Resources, ResourcesConfig

_SMALL = 4 << 20  # bytes of clustering inputs up to which a job leaves room for others
_WORKER_BYTES = 600 << 20  # of memory that a worker needs for such a job


def run_job(job: Mapping[str, Any], report: Reporter) -> str | None:
    """Run a job of a launch in this process; what went wrong, if anything did."""
    if job["module"] not in JOBS:
        return f"there is no job {job['module']}"
    report.progress(f"{job['id']} starts")
    try:
        values = JOBS[job["module"]].model_validate(job["config"]).values()
        importlib.import_module(f"spark_jobs.{job['module']}").run(**values, report=report)
    except (InputError, S3Error) as error:
        return str(error)
    except OSError as error:
        if error.errno is None:  # another library's own, which its message may not explain
            traceback.print_exc()
        return as_line(error)
    except Exception as error:  # whatever it is, the jobs after it have their turn
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return None


def room_for(job: Mapping[str, Any]) -> int:
    """How many jobs like this one may run at a time: 1 for one that keeps all cores busy, or needs much memory."""
    if job["module"] not in (SelectK.module, KMeans.module):
        return 1
    try:
        config = JOBS[job["module"]].model_validate(job["config"])
        assert isinstance(config, SelectK | KMeans)
        if config.engine.engine != "local" or _size(config.inputs) > _SMALL:
            return 1
        resources = config.resources.resolve()
    except (InputError, S3Error, ValueError, KeyError):  # which it will say itself
        return 1
    return max(1, min(resources.cores, resources.memory // _WORKER_BYTES))


def _size(inputs: str) -> int:
    summary = outputs.read_manifest(inputs, "clustering_inputs")["summary"]
    return int(summary["bytes_out"])


class Said(NamedTuple):
    """What a worker's job said: a call of its reporter, or that it ended, and which error with."""

    job: str
    what: str  # progress, output or ended
    values: list[Any]


class Workers:
    """Worker processes, which are started as they are needed."""

    def __init__(self) -> None:
        self.running: set[str] = set()  # the ids of the jobs that run
        self._said: queue.SimpleQueue[tuple[_Worker, Said]] = queue.SimpleQueue()
        self._idle: list[_Worker] = []
        self._all: list[_Worker] = []

    def start(self, job: Mapping[str, Any], beside: int) -> None:
        """Start a job, on its share of what it might use alone; `beside` jobs share that."""
        if not self._idle:
            self._idle.append(_Worker())
            self._all.append(self._idle[-1])
        resources = ResourcesConfig.model_validate(job["config"].get("resources", {})).resolve()
        share = _share(resources, beside).model_dump()
        self.running.add(job["id"])
        given = {**job, "config": {**job["config"], "resources": share}}
        threading.Thread(target=self._follow, args=(self._idle.pop(), given), daemon=True).start()

    def hear(self) -> Said:
        """What one of the running jobs says next."""
        worker, said = self._said.get()
        if said.what == "ended":
            self.running.remove(said.job)
            if worker.alive:
                self._idle.append(worker)
        return said

    def close(self) -> None:
        """End the workers, and what they run."""
        for worker in self._all:
            worker.kill()

    def _follow(self, worker: "_Worker", job: Mapping[str, Any]) -> None:
        for said in worker.run(job):
            self._said.put((worker, said))


def _share(resources: Resources, beside: int) -> ResourcesConfig:
    return ResourcesConfig(
        memory=f"{resources.memory // beside}B", cores=max(1, resources.cores // beside), scratch=resources.scratch
    )


class _Worker:
    """A worker process, seen from the launch."""

    def __init__(self) -> None:
        code = str(Path(__file__).parents[1])  # what this process was loaded from
        self._process = subprocess.Popen(
            [sys.executable, "-m", "spark_jobs.workers"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")]))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def run(self, job: Mapping[str, Any]) -> Iterator[Said]:
        """Run a job; what it says, and last that it ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                said = Said(*json.loads(line))
                yield said
                if said.what == "ended":
                    return
        except (OSError, ValueError):  # a pipe to a process that is gone, or half of its last line
            pass
        code = self._process.wait()
        why = f"was killed (signal {-code}), most likely for want of memory" if code < 0 else f"exited with code {code}"
        yield Said(job["id"], "ended", [f"its process {why}"])

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


# --- in the worker ---------------------------------------------------------------------------------


class _WorkerReporter(Reporter):
    """Hands over what a job reports, as JSON lines."""

    def __init__(self, job: str, out: TextIO):
        super().__init__()
        self._job, self._out = job, out

    def say(self, what: str, *values: Any) -> None:
        """Hand something over."""
        # One write a line: a job may report from several threads.
        self._out.write(json.dumps([self._job, what, values]) + "\n")
        self._out.flush()

    def _show(self, message: str) -> None:
        # Others report at the same time.
        self.say("progress", message if message.startswith(self._job) else f"{self._job}: {message}")

    def output(self, folder: str, manifest: Manifest) -> None:
        self.say("output", folder, manifest)


def main() -> None:
    """Run the jobs on standard input, one after another."""
    end_with(os.getppid())
    leave_pandas_out()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # what jobs print is no report
        for line in sys.stdin:
            job = json.loads(line)
            report = _WorkerReporter(job["id"], out)
            report.say("ended", run_job(job, report))


if __name__ == "__main__":
    main()
