"""Whom to kill, and when: after a while, or when a stage begins."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from acceptance.backfill import is_alive, is_launch, processes_of
from acceptance.torture.audience import TinyExplorer
from acceptance.torture.outputs import is_worker

STAGES = ("group_by_user", "make_clustering_inputs", "select_k", "kmeans", "follow_segments", "make_report")
_POLL = 0.01  # seconds


@dataclass(frozen=True)
class Kill:
    """What is to be killed, and when: `after` seconds from the start, or from the beginning of a stage."""

    victim: str
    stage: str | None
    after: float

    def __str__(self) -> str:
        when = f"{self.after:.2f} s after {self.stage} starts" if self.stage else f"after {self.after:.2f} s"
        return f"{self.victim} {when}"


def draw(chance: random.Random, victims: Iterable[str], seconds: float, stages: Iterable[str] = STAGES) -> Kill:
    """Choose a victim and a moment of something that lasts so many seconds undisturbed."""
    victim = chance.choice(list(victims))
    if victim == "worker":  # which are there while k is chosen and clusters are found
        return Kill(victim, chance.choice(STAGES[2:4]), chance.uniform(0, 1))
    stage = chance.choice([*stages]) if chance.random() < 0.5 else None
    return Kill(victim, stage, chance.uniform(0, seconds if stage is None else 0.4))


def carry_out(
    kill: Kill, log: Path, is_over: Callable[[], bool], victims: Callable[[str], list[psutil.Process]], deadline: float
) -> str | None:
    """Wait for the moment, and kill whoever is meant; the stage that it hit, or None if all was over before.

    Args:
        kill: Whom and when.
        log: What is logged, which tells stages.
        is_over: Whether there is nothing left to kill.
        victims: The processes of a kind that live now.
        deadline: When to give up waiting, by `time.monotonic`.
    """
    began: float | None = None if kill.stage else time.monotonic()
    while time.monotonic() < deadline and not is_over():
        if began is None and kill.stage and f" {kill.stage}" in stages_of(log):
            began = time.monotonic()
        if began is not None and time.monotonic() >= began + kill.after and (found := victims(kill.victim)):
            for process in found:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            return last_stage(log)
        time.sleep(_POLL)
    return None


def stages_of(log: Path) -> str:
    """The lines by which stages begin, of what a command logged."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(line for line in text.splitlines() if " starts" in line)


def last_stage(log: Path) -> str:
    """The stage that began last."""
    words = stages_of(log).split()
    began = [word for word in words if word in STAGES]
    return began[-1] if began else "before the first job"


def victims_of(explorer: TinyExplorer, command: psutil.Process) -> Callable[[str], list[psutil.Process]]:
    """Finds the victims of a command: itself, which runs the run and launches; its jobs; a worker; or all at once."""

    def find(kind: str) -> list[psutil.Process]:
        if kind == "command":
            return [command] if is_alive(command) else []
        below: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            below = command.children(recursive=True)
        if kind == "job":
            return [process for process in below if is_launch(process)]
        if kind == "worker":
            return [process for process in below if is_worker(process)][:1]
        return [process for process in processes_of(explorer) if is_alive(process)]

    return find


def end(process: "psutil.Popen") -> None:
    """End a process group of this program's own, whatever state it is in."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
