"""The SQLAlchemy engines of Dagster's databases, for homes that have SQLite.

Dagster makes an engine and a connection for every event that it writes and every record that it looks for. So it loses
the statements that the last one compiled, and SQLite, whose last connection to a database ends each time, moves the
write-ahead log into the database and deletes it each time. That was more than half of the time of a run that computes
nothing. Here the databases that were used last keep their engine and one idle connection.
"""

import sqlite3
import threading
from collections.abc import Hashable, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any, NamedTuple

import sqlalchemy
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage

STORAGES: tuple[ModuleType, ...] = (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage)

_MOST_ENGINES = 16  # a run has a database of its own, and a daemon sees many: 1 to 2 MB and 4 files each
_MOST_STATEMENTS = 200  # compiled, a database, or half more: each look at a schema's version leaves one of 10 kB
_TIMEOUT = 30  # seconds that a process waits for another one's lock


class _Kept(NamedTuple):
    engine: sqlalchemy.Engine
    idle: sqlite3.Connection
    lock: threading.Lock  # of the idle connection, which may wait for another process


_lock = threading.Lock()  # of what follows
_kept: dict[Hashable, _Kept] = {}  # by what they were made of, the last used last


def keep_engines() -> None:
    """Let Dagster use one engine a database in this process."""
    for storage in STORAGES:
        vars(storage)["create_engine"] = _engine


def _engine(address: str, *, poolclass: Any, connect_args: Mapping[str, Any] | None = None) -> sqlalchemy.Engine:
    """The engine of a database, with the options that Dagster gives it."""
    made_of = (address, poolclass, tuple((connect_args or {}).items()))
    with _lock:
        kept = _kept.pop(made_of, None) or _make(address, poolclass, connect_args or {})
        _kept[made_of] = kept
        replaced = _kept.pop(next(iter(_kept))) if len(_kept) > _MOST_ENGINES else None
    if replaced:
        # At once: an engine is part of a cycle, so that Python lets it go late, and with hundreds of others.
        with replaced.lock:
            replaced.idle.close()
    # SQLite opens a database, and a write-ahead log that it has by now, when it is read. If others took its place in
    # between, it goes without.
    with kept.lock, suppress(sqlite3.ProgrammingError):
        kept.idle.execute("PRAGMA schema_version").fetchone()
    return kept.engine


def _make(address: str, poolclass: Any, connect_args: Mapping[str, Any]) -> _Kept:
    engine = sqlalchemy.create_engine(
        address, poolclass=poolclass, connect_args=dict(connect_args), query_cache_size=_MOST_STATEMENTS
    )
    path = engine.url.database
    assert path, f"{address} is a file"
    # Any thread may use it, and close it: SQLite lets one at it at a time.
    return _Kept(engine, sqlite3.connect(path, timeout=_TIMEOUT, check_same_thread=False), threading.Lock())
