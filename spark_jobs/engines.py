"""The engines that run the jobs' DataFrame code, and everything in which they differ.

Both get the same PySpark code. What must be known of them (Sail 0.7, Spark 4.2):

- Sail ignores `sort` before a write or an Arrow function, and rows of a key may come in any order and in many
  batches. So jobs sort inside Arrow functions, and those write the files.
- Sail spreads a local relation's rows by batch, Spark by row. So what is to be read in parallel starts from
  `spark.range(n)` with n partitions, and not from `createDataFrame`.
- Sail reads a path as a pattern (`[ ] ? * { }`), and a pattern that matches nothing as an empty table. So files are
  read by pyarrow, inside Arrow functions.
- Sail has no RDDs, no MLlib, and `cache()` does nothing.
- The Connect client, by which Sail is reached, changes PySpark's functions for the whole process: one process runs
  one engine.
- Spark runs Arrow functions in Python processes of its own, Sail in this one.
"""

import atexit
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from spark_jobs.config import EngineConfig
from spark_jobs.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, Row, SparkSession

Item = TypeVar("Item")


@functools.cache
def session(engine: str, spark_master: str = "local[*]") -> "SparkSession":
    """The session of an engine; one process starts each at most once."""
    return _sail() if engine == "sail" else _spark(spark_master)


def session_of(config: EngineConfig) -> "SparkSession":
    """The session that a job's config asks for."""
    return session(config.engine, config.spark_master)


def version_of(spark: "SparkSession") -> str:
    """The name and version of a session's engine, such as `sail 0.7.2`."""
    if _is_sail(spark):
        import pysail

        return f"sail {pysail.__version__}"
    return f"spark {spark.version}"


def map_items(
    spark: "SparkSession", items: Sequence[Item], do: Callable[[Item], Iterator["pa.RecordBatch"]], schema: str
) -> "DataFrame":
    """A DataFrame of what `do` yields for each item, one task an item."""

    def read(batches: Iterator["pa.RecordBatch"]) -> Iterator["pa.RecordBatch"]:
        for batch in batches:
            for index in batch.column(0).to_pylist():
                yield from do(items[index])

    return spark.range(0, len(items), 1, len(items)).mapInArrow(read, schema)


def collect(frame: "DataFrame") -> "list[Row]":
    """The rows of a DataFrame.

    Raises:
        InputError: A task raised one; engines wrap it in a trace of their own, of which only its message is kept.
    """
    try:
        return list(frame.collect())
    except Exception as error:
        kinds: list[type[InputError]] = [InputError, *InputError.__subclasses__()]
        names = "|".join(kind.__name__ for kind in kinds)
        of_task = re.search(rf"\b(?:{names}): (.+)", str(error))
        if of_task is None:
            raise
        raise InputError(of_task[1].strip()) from error


def _is_sail(spark: "SparkSession") -> bool:
    return type(spark).__module__.startswith("pyspark.sql.connect")


def _sail() -> "SparkSession":
    from pysail.spark import SparkConnectServer
    from pyspark.sql import SparkSession

    os.environ.setdefault("RUST_LOG", "error")
    # The address on which it listens is this machine's own, and the port a free one.
    server = SparkConnectServer(ip="127.0.0.1", port=0)
    server.start(background=True)
    host, port = server.listening_address
    spark = SparkSession.builder.remote(f"sc://{host}:{port}").create()

    def stop() -> None:
        spark.stop()
        server.stop()

    atexit.register(stop)
    return spark


def _spark(master: str) -> "SparkSession":
    from pyspark.sql import SparkSession

    # Workers must be this Python, with these packages.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_HOSTNAME", "localhost")
    # A process that runs Sail leaves this to those it starts.
    os.environ.pop("SPARK_CONNECT_MODE_ENABLED", None)
    try:
        builder = SparkSession.builder.master(master).appName("audience-explorer")
        spark = (
            builder.config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", "16")
            .config("spark.driver.memory", os.environ.get("SPARK_DRIVER_MEMORY", "4g"))
            .getOrCreate()
        )
    except Exception as error:
        raise InputError(
            f"Apache Spark does not start ({type(error).__name__}: {str(error)[:200]}). It needs Java 17 or later"
            " (Debian: apt-get install openjdk-17-jre-headless) and the package's extra:"
            " pip install 'audience-explorer[spark]'. Or choose the engine sail, which needs neither."
        ) from error
    spark.sparkContext.setLogLevel("ERROR")
    atexit.register(spark.stop)
    return spark
