"""A process compiles the statements of each of Dagster's databases once, and not once an event."""

import gc
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from sqlalchemy import Connection, Engine, NullPool, event, literal_column, select

from audience_explorer_dagster.records.sqlite_engines import STORAGES, keep_engines


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are kept, until the end of a test."""
    for storage in STORAGES:
        monkeypatch.setattr(storage, "create_engine", vars(storage)["create_engine"])
    keep_engines()


def test_each_database_has_one_engine(tmp_path: Path) -> None:
    used: list[Engine] = []

    def note(connection: Connection) -> None:
        used.append(connection.engine)

    event.listen(Engine, "engine_connect", note)
    try:
        with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
            for month in ("2024-01", "2024-02", "2024-03"):
                instance.report_runless_asset_event(dg.AssetMaterialization("kmeans", partition=month))
            assert instance.get_materialized_partitions(dg.AssetKey("kmeans")) == {"2024-01", "2024-02", "2024-03"}
    finally:
        event.remove(Engine, "engine_connect", note)

    engines, databases = set(map(id, used)), {str(engine.url) for engine in used}
    assert len(used) > len(engines)
    assert len(engines) == len(databases)


def test_the_write_ahead_log_outlives_the_connections_of_an_event(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("kmeans", partition="2024-01"))
        logs = list(tmp_path.rglob("index.db-wal"))
    assert len(logs) == 1


def test_the_files_of_the_databases_that_were_used_last_are_open_and_no_others(tmp_path: Path) -> None:
    runs = [f"run-{number}" for number in range(20)]
    gc.disable()  # which would close them some time, and is rare where much is in memory
    try:
        with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
            for run in runs:
                instance.all_logs(run)
            opened = [file.path for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path))]
    finally:
        gc.enable()
    assert {Path(path).stem for path in opened} & set(runs) <= set(runs[4:])
    assert runs[-1] in {Path(path).stem for path in opened}


def test_what_is_compiled_for_a_database_is_not_kept_without_end(tmp_path: Path) -> None:
    made = vars(sqlite_event_log)["create_engine"](f"sqlite:///{tmp_path / 'a.db'}", poolclass=NullPool)
    with made.connect() as connection:
        for number in range(400):
            connection.execute(select(literal_column(str(number))))
    assert 0 < len(made._compiled_cache) <= 300
