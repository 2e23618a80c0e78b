"""A Spark standalone cluster on this machine: a master and workers, each a process with memory and folders of its own.

They listen on loopback addresses and free ports only.
"""

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pyspark

if TYPE_CHECKING:
    from types import TracebackType

ADDRESS = "127.0.0.1"

_SPARK = Path(pyspark.__path__[0])
_SECONDS = 300  # that a daemon may take to start


class SparkCluster:
    """A master and its workers, from `with` to its end.

    Args:
        folder: For logs, settings and what spills.
        jars: A folder of jars that drivers and executors have on their class path.
        environment: What all processes have in theirs, such as where S3 is.
        workers: How many; each has one core, and runs one executor at a time.
        memory: MiB of each executor's heap.

    Attributes:
        master: Its URL, `spark://…`.
        environment: For drivers: by it they find settings that fit.
        workers: The workers.
    """

    def __init__(self, folder: Path, jars: Path, environment: dict[str, str], workers: int = 3, memory: int = 256):
        self.memory = memory << 20
        self._folder, self._number = folder, workers
        settings = {
            "spark.driver.host": ADDRESS,
            "spark.driver.bindAddress": ADDRESS,
            "spark.ui.enabled": "false",
            "spark.executor.cores": "1",
            "spark.executor.memory": f"{memory}m",
            # Of 300 MiB that Spark would put by, and so not start in less than 450.
            "spark.testing.reservedMemory": str(64 << 20),
            **{f"spark.{process}.extraClassPath": f"{jars}/*" for process in ("driver", "executor")},
        }
        java_options = os.environ.get("SPARK_SUBMIT_OPTS", "")  # those of drivers
        if java_options:
            settings["spark.executor.extraJavaOptions"] = java_options
        (folder / "conf").mkdir(parents=True)
        lines = "".join(f"{name} {value}\n" for name, value in settings.items())
        (folder / "conf" / "spark-defaults.conf").write_text(lines)
        self._daemon_environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))},
            **environment,
            "SPARK_HOME": str(_SPARK),
            "SPARK_LOCAL_IP": ADDRESS,
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_DAEMON_JAVA_OPTS": java_options,
        }
        self.environment = {**environment, "SPARK_CONF_DIR": str(folder / "conf"), "SPARK_LOCAL_IP": ADDRESS}
        self.master = ""
        self.workers: list[Worker] = []
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._watch_memory, daemon=True)

    def __enter__(self) -> "SparkCluster":
        try:
            master = self._start("master", "deploy.master.Master", ["--host", ADDRESS, "--port", "0"])
            self.master = _said(master, r"Starting Spark master at (spark://\S+)\s")
            for _ in range(self._number):
                self._start_worker()
            for worker in self.workers:
                worker.wait()
        except BaseException:
            self._end()
            raise
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self._ended.set()
        self._watch.join()
        self._end()

    def kill(self, worker: "Worker") -> None:
        """End a worker and all it started, at once and with no word to anybody; another one takes its place."""
        _kill(worker.pid)
        self.workers.remove(worker)
        self._start_worker()

    def _start_worker(self) -> None:
        name = f"worker-{len(self._daemons)}"
        arguments = ["--host", ADDRESS, "--cores", "1", "--memory", f"{self.memory >> 20}M"]
        arguments += ["--work-dir", str(self._folder / name), self.master]
        log = self._start(name, "deploy.worker.Worker", arguments)
        self.workers.append(Worker(self._daemons[-1].pid, log))

    def _start(self, name: str, daemon: str, arguments: Sequence[str]) -> Path:
        log, local = self._folder / f"{name}.log", self._folder / f"{name}-local"
        local.mkdir()
        with log.open("wb") as output:
            self._daemons.append(
                subprocess.Popen(
                    [_SPARK / "bin" / "spark-class", f"org.apache.spark.{daemon}", "--webui-port", "0", *arguments],
                    env={**self._daemon_environment, "SPARK_LOCAL_DIRS": str(local)},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
        return log

    def _end(self) -> None:
        for daemon in self._daemons:
            _kill(daemon.pid)
            daemon.wait()

    def _watch_memory(self) -> None:
        while not self._ended.wait(0.5):
            for worker in list(self.workers):
                worker.peak = max(worker.peak, sum(map(_memory, _tree(worker.pid))))


@dataclass
class Worker:
    """A worker of a cluster."""

    pid: int
    log: Path
    peak: int = field(default=0)  # the most bytes of memory that it, its executors and their Python had together

    @property
    def busy(self) -> bool:
        """Whether its executor has a Python process, and so runs a task of ours or has run one."""
        return any(_is_python(process) for process in _tree(self.pid))

    def wait(self) -> None:
        """Wait until the master knows it."""
        _said(self.log, "(Successfully registered) with master")


def _said(log: Path, pattern: str) -> str:
    """What a daemon said, as soon as it has."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.1)
    raise TimeoutError(f"it did not say {pattern!r} in {_SECONDS} s:\n{log.read_text(errors='replace')[-2000:]}")


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _is_python(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.name().startswith("python"))
    return False


def _memory(process: psutil.Process) -> int:
    """Its bytes of memory, and its share of those that forked processes have together."""
    with contextlib.suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


def _kill(pid: int) -> None:
    for process in _tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
