"""Where Dagster keeps the records of a root."""

import os
from pathlib import Path

import click

from spark_jobs import storage
from spark_jobs.terminal import visible_lines

HOME = "DAGSTER_HOME"
_NAME = ".dagster_home"

_SETTINGS = """\
# Dagster's settings; what may stand here is in its documentation.
telemetry:
  enabled: false
concurrency:
  runs:
    # Each is a process of 0.3 GB. The pool below bounds those that launch, but for the very first: Dagster looks up its
    # limit before it has made it.
    max_concurrent_runs: 3
    # A month runs once at a time, whoever asks for it: a sensor, the schedule, a backfill, a person.
    tag_concurrency_limits:
      - key: dagster/partition
        value: {applyLimitPerUniqueValue: true}
        limit: 1
  pools:
    # Of the pool `launches`, which every run that may launch is in. On this machine a launch takes all there is, so the
    # others wait in the queue. Where each has a machine of its own (the launcher ec2), let more run at a time.
    granularity: run
    default_limit: 1
"""


def home_of(root: str) -> Path:
    """The folder of a root's records: $DAGSTER_HOME, or else the root's own.

    One in the current folder, where they were before, is used as long as the root has none of its own.
    """
    if named := os.environ.get(HOME):
        return Path(named).absolute()
    own, before = _own_home(root), Path(_NAME).absolute()
    if own == before or not before.exists():
        return own
    if own.exists():
        _tell(f"The records are in {own}. Those in {before} are not used; to use them: export {HOME}={before}")
        return own
    _tell(f"The records are in {before}, as before. To keep them with the root: mv {before} {own}")
    return before


def _own_home(root: str) -> Path:
    """A root's own home: in the root, or in this user's folder of states if that is on S3, which holds no database."""
    where = storage.absolute(root)
    if "://" not in where:
        return Path(where) / _NAME
    states = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return states.absolute() / "audience-explorer" / where.replace("://", "/") / _NAME


def make_home(folder: Path) -> Path:
    """Make a home, with settings if it has none."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "dagster.yaml"
    if not settings.exists():
        storage.write_text(str(settings), _SETTINGS)  # at once, for another command may read it by now
    return folder


def _tell(message: str) -> None:
    click.echo(visible_lines(message), err=True)
