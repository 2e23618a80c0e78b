"""What `spark_jobs.engines` says of the engines, asked of them: a version that behaves in another way is seen here."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_jobs import engines
from spark_jobs.config import EngineConfig
from spark_jobs.resources import ResourcesConfig
from tests.conftest import Engine

Ask = Callable[[Any, Path], Any]  # what is asked of a session; the folder is for its files


def answer(engine: Engine, ask: Ask, folder: Path) -> Any:
    """What an engine answers, asked in its process; the name of an error it raises is an answer, too."""
    call = (engine.name, ask, folder)
    return _answer(*call) if engine.process is None else engine.process.submit(_answer, *call).result()


def _answer(engine: str, ask: Ask, folder: Path) -> Any:
    spark = engines.session(EngineConfig(engine=engine), ResourcesConfig().resolve())
    try:
        return ask(spark, folder)
    except Exception as error:
        return type(error).__name__


def sorts_before_an_arrow_function(spark: Any, _: Path) -> bool:
    def in_order(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = [value for batch in batches for value in batch.column(0).to_pylist()]
        yield pa.RecordBatch.from_pydict({"in_order": [rows == sorted(rows)]})

    rows = spark.range(0, 1000, 1, 2).selectExpr("id * 7919 % 1009 AS x").sortWithinPartitions("x")
    return all(row[0] for row in rows.mapInArrow(in_order, "in_order boolean").collect())


def hands_a_key_over_in_batches(spark: Any, _: Path) -> bool:
    def batches(table: pa.Table) -> pa.Table:
        return pa.table({"batches": [table.column(0).num_chunks]})

    rows = spark.range(0, 50_000, 1, 4).selectExpr("id", "1 AS key")
    return bool(rows.groupBy("key").applyInArrow(batches, "batches bigint").collect()[0][0] > 1)


def spreads_a_local_relation(spark: Any, _: Path) -> bool:
    return len(_rows_of_tasks(spark.createDataFrame([(n,) for n in range(100)], "x bigint"))) > 1


def _rows_of_tasks(frame: Any) -> list[int]:
    """How many rows each task gets, of those that get any."""

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pydict({"rows": [sum(batch.num_rows for batch in batches)]})

    return [row[0] for row in frame.mapInArrow(count, "rows bigint").collect() if row[0]]


def reads_a_path_as_it_is(spark: Any, folder: Path) -> bool:
    for name in ("a[1]", "a1"):
        (folder / name).mkdir()
        pq.write_table(pa.table({"of": [name]}), folder / name / "part.parquet")
    return bool([row[0] for row in spark.read.schema("of string").parquet(str(folder / "a[1]")).collect()] == ["a[1]"])


def takes_what_is_missing_for_empty(spark: Any, folder: Path) -> bool:
    return bool(spark.read.schema("of string").parquet(str(folder / "missing")).count() == 0)


def caches(spark: Any, folder: Path) -> bool:
    log = str(folder / "log")

    def note(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with open(log, "a") as file:
            file.write("made\n")
        yield from batches

    rows = spark.range(0, 1, 1, 1).mapInArrow(note, "id bigint").cache()
    rows.count()
    rows.count()
    return Path(log).read_text() == "made\n"


def has_rdds(spark: Any, _: Path) -> bool:
    return hasattr(spark, "sparkContext")


def has_mllib(spark: Any, _: Path) -> bool:
    from pyspark.ml.feature import VectorAssembler
    from pyspark.ml.stat import Summarizer

    rows = VectorAssembler(inputCols=["id"], outputCol="vector").transform(spark.range(3))
    return bool(rows.select(Summarizer.mean(rows.vector)).first()[0][0] == 1)


def runs_arrow_functions_in_its_own_process(spark: Any, _: Path) -> bool:
    def process(_batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pydict({"id": [os.getpid()]})

    return bool(spark.range(0, 1, 1, 1).mapInArrow(process, "id bigint").collect()[0][0] == os.getpid())


def changes_pyspark_for_the_process(_spark: Any, _: Path) -> bool:
    from pyspark.sql.utils import is_remote

    return bool(is_remote())


def lets_a_sum_pass_64_bits(spark: Any, _: Path) -> bool:
    return bool(spark.range(2).selectExpr(f"sum({2**62}) AS total").collect()[0][0] == -(2**63))


@pytest.mark.parametrize(
    ("ask", "sail_does", "spark_does"),
    [
        (sorts_before_an_arrow_function, False, True),
        (hands_a_key_over_in_batches, False, True),
        (spreads_a_local_relation, False, True),
        (reads_a_path_as_it_is, False, False),
        (takes_what_is_missing_for_empty, True, "AnalysisException"),
        (caches, False, True),
        (has_rdds, False, True),
        (has_mllib, "UnsupportedOperationException", True),
        (runs_arrow_functions_in_its_own_process, True, False),
        (changes_pyspark_for_the_process, True, False),
        (lets_a_sum_pass_64_bits, True, "ArithmeticException"),
    ],
)
def test_the_engines_are_as_is_written_down(
    engine: Engine, ask: Ask, sail_does: bool | str, spark_does: bool | str, tmp_path: Path
) -> None:
    # Where a new version fails here, mend the docstring of spark_jobs.engines; perhaps the code can be simpler.
    assert answer(engine, ask, tmp_path) == {"sail": sail_does, "spark": spark_does}[engine.name]


def a_range_has_a_task_a_row(spark: Any, _: Path) -> bool:
    return _rows_of_tasks(spark.range(0, 8, 1, 8)) == [1] * 8


def test_each_row_of_a_range_has_a_task_of_its_own(engine: Engine, tmp_path: Path) -> None:
    assert answer(engine, a_range_has_a_task_a_row, tmp_path) is True


ALL_AT_ONCE = threading.Barrier(20)


def starts_20_tasks_at_once(spark: Any, _: Path) -> bool:
    def wait(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from tests.test_engines import ALL_AT_ONCE  # an object of the process, which a function can't carry

        ALL_AT_ONCE.wait(timeout=30)
        yield from batches

    return bool(spark.range(0, 20, 1, 20).mapInArrow(wait, "id bigint").count() == 20)


def test_sail_starts_all_tasks_at_once_however_few_cores_there_are(sail: Engine, tmp_path: Path) -> None:
    assert answer(sail, starts_20_tasks_at_once, tmp_path) is True
