"""Months that land one after another on a live deployment: whether its services grow, or leave anything behind."""

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import psutil
import requests

from acceptance.conftest import PROJECT, Explorer
from acceptance.torture import kills
from acceptance.torture.audience import TinyExplorer, make_audience
from acceptance.torture.rounds import going_on, left_behind
from tests.ports import reserved_port

DEPLOY = PROJECT / "deploy"
SERVICES = ("code", "daemon", "webserver")
MONTH_SECONDS = 1800  # that a month may take
_QUERY = "{ runsOrError(limit: 25) { ... on Runs { results { runId status assets { id } } } } }"


@dataclass(frozen=True)
class Sample:
    """What a service has at some moment."""

    bytes: int  # of memory; what several processes share counts once
    threads: int
    files: int  # and sockets
    ports: int
    children: int


class Services:
    """The services of `deploy/systemd` but for the reports', on SQLite, with this process in systemd's place."""

    def __init__(self, explorer: Explorer, port: int):
        self.explorer = explorer
        self.processes: dict[str, psutil.Popen] = {}
        self.url = f"http://127.0.0.1:{port}"
        explorer.environment |= {
            "AUDIENCE_EXPLORER_AUTOMATIC": "1",
            "DAGSTER_GRPC_SOCKET": str(explorer.home / "code.sock"),
            "DAGSTER_WEBSERVER_PORT": str(port),
        }
        (explorer.home / "dagster.yaml").write_text(settings())
        # Services that make SQLite's tables at the same time break them; PostgreSQL's are made before, by install.sh.
        with dg.DagsterInstance.from_config(str(explorer.home)):
            pass

    def start(self, name: str) -> None:
        """Start a service, as its unit does."""
        unit = (DEPLOY / "systemd" / f"audience-explorer-{name}.service").read_text()
        (command,) = re.findall("^ExecStart=(.*)$", unit, re.M)
        program, *arguments = shlex.split(command)
        with (self.explorer.home / f"{name}.log").open("a") as log:
            self.processes[name] = psutil.Popen(
                [Path(sys.executable).parent / Path(program).name, *arguments],
                cwd=PROJECT,
                env=self.explorer.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ask(self) -> bool:
        """Ask the webserver what its page of runs asks."""
        with suppress(requests.RequestException):
            return requests.post(f"{self.url}/graphql", json={"query": _QUERY}, timeout=60).ok
        return False

    def samples(self) -> dict[str, Sample]:
        """What each service has now; the runs in the code server are its children, with memory of their own."""
        return {name: sample(process) for name, process in self.processes.items()}


def settings() -> str:
    """The deployment's settings, with records and what is printed in DAGSTER_HOME."""
    text = (DEPLOY / "dagster.yaml").read_text()
    kept = [part for part in re.split(r"\n(?=\S)", text) if not part.startswith(("storage:", "compute_logs:"))]
    return "\n".join(kept)


def sample(process: psutil.Process) -> Sample:
    """What a process has now."""
    with process.oneshot():
        return Sample(
            process.memory_full_info().pss,
            process.num_threads(),
            process.num_fds(),
            sum(1 for connection in process.net_connections() if connection.status == psutil.CONN_LISTEN),
            len(process.children(recursive=True)),
        )


@contextmanager
def services(explorer: Explorer, names: Sequence[str] = SERVICES) -> Iterator[Services]:
    """Services of a deployment, until the body ends."""
    with reserved_port() as port:
        made = Services(explorer, port)
        try:
            for name in names:
                made.start(name)
            yield made
        finally:
            for process in reversed(made.processes.values()):
                process.terminate()
            psutil.wait_procs(list(made.processes.values()), timeout=20)
            for process in made.processes.values():
                kills.end(process)


def long_run(months: Sequence[str], categories: Sequence[str]) -> tuple[str, list[str]]:
    """Let months land one after another; a table of what the services had after each, and what was wrong."""
    folder = Path(tempfile.mkdtemp(prefix="long-"))
    make_audience(folder / "all", months, categories)
    make_audience(folder / "none", [], categories)
    explorer = TinyExplorer(folder / "explorer", folder / "none")
    explorer.environment["AUDIENCE_EXPLORER_START_MONTH"] = months[0]
    rows: list[tuple[str, float, dict[str, Sample], int]] = []
    with services(explorer) as running:
        for month in months:
            began = time.monotonic()
            shutil.copytree(folder / "all" / "raw" / f"month={month}", explorer.root / "raw" / f"month={month}")
            problem = _wait_for(running, month, len(categories))
            rows.append((month, time.monotonic() - began, running.samples(), database_bytes(explorer.home)))
            print(f"{month}: {rows[-1][1]:.0f} s, {rows[-1][2]}, {rows[-1][3]:,} bytes", flush=True)
            if problem:
                return as_table(rows), [problem]
    violations = going_on(explorer) + left_behind(explorer)
    if not violations:
        shutil.rmtree(folder)
    return as_table(rows), violations


def _wait_for(running: Services, month: str, categories: int) -> str:
    """Wait until a month is done and its run is over; what is wrong, if it does not get there."""
    deadline = time.monotonic() + MONTH_SECONDS
    with dg.DagsterInstance.from_config(str(running.explorer.home)) as instance:
        while time.monotonic() < deadline:
            running.ask()
            reports = instance.get_materialized_partitions(dg.AssetKey("audience_report"))
            done = sum(1 for key in reports if key.endswith(month))
            if done == categories and all(run.is_finished for run in instance.get_runs()):
                time.sleep(3)  # its process ends, and the daemon sees that
                return ""
            time.sleep(1)
    return f"{month} was not done within {MONTH_SECONDS} s; see {running.explorer.home}"


def database_bytes(home: Path) -> int:
    """The bytes of all records."""
    return sum(file.stat().st_size for file in home.rglob("*.db*"))


def as_table(rows: Sequence[tuple[str, float, dict[str, Sample], int]]) -> str:
    """What each service had in the beginning and in the end, and by how much that grew a month, by least squares.

    The first third is left out of the slopes: services import and cache what they need in it.
    """
    lines = ["service    what       first       last  a month"]
    late = rows[len(rows) // 3 :]
    for name in SERVICES:
        for what in Sample.__annotations__:
            values = [getattr(samples[name], what) for _, _, samples, _ in rows]
            slope = _slope([getattr(samples[name], what) for _, _, samples, _ in late])
            lines.append(f"{name:10} {what:8} {values[0]:>11,} {values[-1]:>10,}  {slope:+,.1f}")
    bytes_of_records = [size for *_, size in rows]
    growth = _slope([size for *_, size in late])
    lines.append(f"records    bytes    {bytes_of_records[0]:>11,} {bytes_of_records[-1]:>10,}  {growth:+,.1f}")
    return "\n".join(lines)


def _slope(values: Sequence[float]) -> float:
    return float(np.polyfit(range(len(values)), values, 1)[0]) if len(values) > 1 else 0.0
