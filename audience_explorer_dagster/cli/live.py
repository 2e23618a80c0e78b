"""What a pipeline shows while it runs: one display in a terminal, plain lines everywhere else."""

import io
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audience_explorer_dagster.cli.project import tell
from spark_jobs.terminal import visible, visible_lines

if TYPE_CHECKING:
    import dagster as dg
    from rich.console import Console, RenderableType
    from rich.progress import Progress

_MOST_JOBS = 6  # that are shown
_REFRESHES = 4  # a second
_PROGRESS = re.compile(r"\[ *\d+\.\d s\] ")  # what begins a line of progress, see `spark_jobs.reporting`
# What is found of outputs is in a page of each asset's; see `running.recording`.
_CHECK = re.compile(r"\w+: check \w+ failed for ")
_STARTS = " starts"  # what ends the message of a job that starts, see `spark_jobs.workers.run_job`


@dataclass(frozen=True)
class Watch:
    """What a pipeline reports to: lines for a person, and the events of its runs if they are wanted."""

    announce: Callable[[str], None]
    listen: "Callable[[dg.EventLogEntry], None] | None" = None


@contextmanager
def watching(targets: int) -> Iterator[Watch]:
    """Show in a terminal how far a pipeline of so many targets is, until the body ends; elsewhere print lines."""
    if not sys.stderr.isatty():
        yield Watch(tell)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(file=sys.stderr)
    if console.is_dumb_terminal:
        yield Watch(tell)
        return
    display = _Display(console, targets)
    live = Live(
        display,
        console=console,
        refresh_per_second=_REFRESHES,
        transient=True,  # it goes when all is done
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with live, redirect_stderr(_Above(console)):
        yield Watch(display.announce, display.listen)


class _Above(io.TextIOBase):
    """Prints lines above the display, but for those of progress, which the display shows."""

    def __init__(self, console: "Console"):
        self._console = console
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if not _PROGRESS.match(line):
                self._console.print(line, markup=False, highlight=False)
        return len(text)


@dataclass
class _Display:
    """How far a pipeline is, the jobs that run, where, and what was logged last."""

    console: "Console"
    targets: int
    running: dict[str, float] = field(default_factory=dict)  # jobs, by when they started
    where: str = ""
    last: str = ""

    def __post_init__(self) -> None:
        self._progress = _progress(self.console)
        self._task = self._progress.add_task("", total=self.targets, rate="")
        self._began = time.monotonic()
        self._done = 0

    def announce(self, line: str) -> None:
        """Take the line on a month that starts."""
        self.running = {}
        self.where = self.last = ""
        self._progress.update(self._task, description=line)

    def listen(self, event: "dg.EventLogEntry") -> None:
        """Take an event of a run."""
        if event.dagster_event is None:
            if event.level == logging.WARNING and not _CHECK.match(event.user_message):
                self.console.print(visible_lines(event.user_message), markup=False, highlight=False)  # it stays
            else:
                self._log(event.user_message)
        elif event.dagster_event.is_step_materialization:
            self._done += 1
            rate = self._done / max(time.monotonic() - self._began, 0.1)
            self._progress.update(self._task, advance=1, rate=f"{rate:.1f} a second")
            done = event.dagster_event.partition
            # A job of one target is named by its partition; that of all categories ends as soon as others start.
            self.running = {job: since for job, since in self.running.items() if job.partition(" ")[2] != done}

    def _log(self, message: str) -> None:
        line = message.splitlines()[0] if message else ""
        if line.startswith("launched "):
            self.where = line
        elif line.endswith(_STARTS):
            job = line.removesuffix(_STARTS)
            others = {other: since for other, since in self.running.items() if "|" in other}
            self.running = {**others, job: time.monotonic()}  # anew, for another thread shows it
        else:
            self.last = line

    def __rich__(self) -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        jobs = [f"  {job}, {time.monotonic() - since:.0f} s" for job, since in list(self.running.items())[-_MOST_JOBS:]]
        more = len(self.running) - len(jobs)
        lines = [self.where, *jobs, *([f"  and {more} more"] if more else []), self.last]
        texts = [Text(visible(line), no_wrap=True, overflow="ellipsis", style="dim") for line in lines if line]
        return Group(self._progress, *texts)


def _progress(console: "Console") -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    return Progress(*columns, console=console, expand=True)
