"""What a launcher's check has found, as a person or a program reads it."""

import json
import shutil
import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from audience_explorer_dagster.cli.project import tell
from spark_jobs.terminal import visible

if TYPE_CHECKING:
    from audience_explorer_dagster.launchers.aws_checks import Result, State

_LEAST_WIDTH = 40  # characters of a finding
_COLORS: "dict[State, str]" = {"ok": "green", "warning": "yellow", "unseen": "yellow", "failed": "red"}


@contextmanager
def warnings_left_out() -> Iterator[None]:
    """Leave out warnings, such as that the bucket of the root does not exist: checks say it, and what to do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def end_with(results: "Sequence[Result]", as_json: bool) -> None:
    """Print results, and end with 1 if something is red."""
    if as_json:
        click.echo(json.dumps([asdict(result) for result in results], indent=1))
    else:
        click.echo(as_report(results, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
        tell(f"\n{summary(results)}")
    sys.exit(int(any(result.state == "failed" for result in results)))


def as_report(results: "Sequence[Result]", width: int | None) -> str:
    """A line a result, and below it what to do; wrapped to a terminal's width, if there is one."""
    state_width = max(len(result.state) for result in results)
    check_width = max(len(visible(result.check)) for result in results)
    indent = " " * (state_width + check_width + 4)
    lines = []
    for result in results:
        state = click.style(result.state.ljust(state_width), fg=_COLORS[result.state])
        first, *more = _wrapped(result.finding, width, indent)
        lines += [f"{state}  {visible(result.check).ljust(check_width)}  {first}", *(indent + line for line in more)]
        if result.to_do:
            first, *more = _wrapped(result.to_do, width, f"{indent}  ")
            lines += [f"{indent}→ {first}", *(f"{indent}  {line}" for line in more)]
    return "\n".join(lines)


def _wrapped(text: str, width: int | None, indent: str) -> list[str]:
    """The lines of a text beside an indent. Words stay whole, for commands, names and addresses are copied."""
    shown = visible(text)
    if width is None:
        return [shown]
    left = max(width - len(indent), _LEAST_WIDTH)
    return textwrap.wrap(shown, left, break_long_words=False, break_on_hyphens=False) or [""]


def summary(results: "Sequence[Result]") -> str:
    """All of it in a line."""
    counts = Counter(result.state for result in results)
    unseen = f" {counts['unseen']} could not be seen." if counts["unseen"] else ""
    if counts["failed"]:
        return f"Launches would not work yet: {counts['failed']} of {len(results)} failed.{unseen}"
    if unseen:
        return f"Nothing failed, but not all is known:{unseen}"
    return "Launches would work."
