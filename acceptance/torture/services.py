"""Rounds in which the services of a live deployment, its runs and their jobs are killed while months land."""

import random
import time
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil

from acceptance.backfill import is_launch
from acceptance.torture import outputs
from acceptance.torture.audience import MONTHS, TinyExplorer
from acceptance.torture.long_run import Services, services
from acceptance.torture.rounds import Round, Undisturbed, differences, going_on, left_behind, pipeline

VICTIMS = ("daemon", "code server", "run", "job")
_SETTLED_SECONDS = 420  # until all runs are over, those that were given a new process as well
_MOST_KILLS = 3


def kill_services(folder: Path, undisturbed: Undisturbed, seed: str) -> Round:
    """Kill services, runs and jobs while the sensor has months run; a command does what a killed job left undone."""
    done, began, chance = Round(seed), time.monotonic(), random.Random(seed)
    explorer = TinyExplorer(folder, undisturbed.audience, undisturbed.records)
    with outputs.watched(explorer) as watcher:
        with services(explorer, ("code", "daemon")) as running:
            for _ in range(chance.randint(1, _MOST_KILLS)):
                victim, asset = chance.choice(VICTIMS), chance.choice(outputs.ASSETS)
                if _kill(running, victim, asset, time.monotonic() + _SETTLED_SECONDS / 3, chance.uniform(0, 1)):
                    done.killed[victim, f"{asset} is there"] += 1
            done.violations += _settle(running)
        last = explorer.command(*pipeline(), ok=False)
        if last.returncode:
            done.violations.append(f"the command in the end failed: {last.stdout[-2000:]}{last.stderr[-2000:]}")
    done.figures["seen whole"] = watcher.outputs
    done.violations += watcher.violations + differences(explorer, undisturbed)
    done.violations += going_on(explorer) + left_behind(explorer)
    done.seconds = time.monotonic() - began
    return done


def _kill(running: Services, victim: str, asset: str, deadline: float, later: float) -> bool:
    """Kill a victim some time after the first output of an asset, and start a service again; whether it was there."""
    while time.monotonic() < deadline and not list((running.explorer.root / asset).rglob(outputs.MANIFEST)):
        time.sleep(0.02)
    time.sleep(later)
    while time.monotonic() < deadline:
        if found := find(running, victim):
            for process in found:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            for service, name in (("daemon", "daemon"), ("code server", "code")):
                if victim == service:  # as systemd does
                    running.processes[name].wait()
                    running.start(name)
            return True
        time.sleep(0.02)
    return False


def find(running: Services, victim: str) -> list[psutil.Process]:
    """The processes that end when a victim is killed."""
    code = running.processes["code"]
    below: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        below = code.children(recursive=True)
    if victim == "daemon":
        return [running.processes["daemon"]]
    if victim == "code server":  # its unit ends all that it started
        return [code, *below]
    if victim == "job":
        return [process for process in below if is_launch(process)]
    return [process for process in below if is_run(process)]


def is_run(process: psutil.Process) -> bool:
    """Whether a process is a run's: the code server starts it by multiprocessing."""
    with suppress(psutil.Error):
        return "multiprocessing.spawn" in " ".join(process.cmdline())
    return False


def _settle(running: Services) -> list[str]:
    """Wait until the runs of both months are over; those that are not."""
    deadline = time.monotonic() + _SETTLED_SECONDS
    with dg.DagsterInstance.from_config(str(running.explorer.home)) as instance:
        while time.monotonic() < deadline:
            runs = instance.get_runs()
            months = {run.tags.get("dagster/partition") for run in runs}
            if months >= set(MONTHS) and all(run.is_finished for run in runs):
                return []
            time.sleep(1)
        return [f"not over after {_SETTLED_SECONDS} s: {[(run.run_id, run.status.value) for run in runs]}"]
