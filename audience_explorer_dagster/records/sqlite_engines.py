"""The SQLAlchemy engines of Dagster's databases, for homes that have SQLite.

Dagster makes an engine for every event that it writes and every record that it looks for, and so loses the statements
that the last one compiled: that was a third of the time of a run that computes nothing. Here each database keeps its
engine, for as long as the process lives.
"""

from collections.abc import Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any

import sqlalchemy
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage

STORAGES: tuple[ModuleType, ...] = (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage)

_MOST_ENGINES = 64  # a run has a database of its own, and a code server sees many runs


def keep_engines() -> None:
    """Let Dagster use one engine a database in this process. They hold no connections, only statements."""
    for storage in STORAGES:
        vars(storage)["create_engine"] = _engine


def _engine(address: str, *, poolclass: Any, connect_args: Mapping[str, Any] | None = None) -> sqlalchemy.Engine:
    """The engine of a database, with the options that Dagster gives it."""
    return _kept_engine(address, poolclass, tuple((connect_args or {}).items()))


@lru_cache(maxsize=_MOST_ENGINES)
def _kept_engine(address: str, poolclass: Any, connect_args: tuple[tuple[str, Any], ...]) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(address, poolclass=poolclass, connect_args=dict(connect_args))
