"""The engines that run the jobs' DataFrame code, and everything in which they differ.

Both get the same PySpark code. What must be known of them (Sail 0.7, Spark 4.2):

- Sail ignores `sort` before a write or an Arrow function, and rows of a key may come in any order and in many
  batches. So jobs sort inside Arrow functions, and those write the files.
- Sail spreads a local relation's rows by batch, Spark by row. So what is to be read in parallel starts from
  `spark.range(n)` with n partitions, and not from `createDataFrame`.
- Both read a path as a pattern (`[ ] ? * { }`), and Sail one that matches nothing as an empty table. So files are read
  by pyarrow, inside Arrow functions.
- A sum beyond 64 bits wraps on Sail, and is an error on Spark. So jobs add up inside Arrow functions.
- Sail starts all tasks of a stage at once, Spark as many as it has cores.
- Sail has no RDDs, no MLlib, and `cache()` does nothing.
- The Connect client, by which Sail is reached, changes PySpark's functions for the whole process: one process runs
  one engine.
- Spark runs Arrow functions in Python processes of its own, Sail in this one.

The engines are asked for each of these in tests/test_engines.py.
"""

import atexit
import os
import re
import sys
import tempfile
import uuid
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from spark_jobs.config import EngineConfig
from spark_jobs.errors import InputError
from spark_jobs.pieces import Spill
from spark_jobs.resources import Demand, Resources

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, Row, SparkSession

Item = TypeVar("Item")
Work = TypeVar("Work")


_sessions: dict[str, "SparkSession"] = {}


def session(config: EngineConfig, resources: Resources) -> "SparkSession":
    """The session that a job's config asks for; one process starts each at most once."""
    where = "sail" if config.engine == "sail" else config.spark_master
    if where not in _sessions:
        _sessions[where] = _sail() if config.engine == "sail" else _spark(config.spark_master, resources)
    return _sessions[where]


def version_of(spark: "SparkSession") -> str:
    """The name and version of a session's engine, such as `sail 0.7.2`."""
    if _is_sail(spark):
        import pysail

        return f"sail {pysail.__version__}"
    return f"spark {spark.version}"


def exchange(
    spark: "SparkSession",
    items: Sequence[Item],
    split: Callable[[Item], Iterator[Mapping[int, bytes]]],
    merge: Callable[[int, Iterator[bytes]], "pa.RecordBatch"],
    schema: str,
    *,
    keys: int,
    resources: Resources,
    demand: Demand,
) -> "list[Row]":
    """Take items apart, bring together what belongs to each key, and merge it: one shuffle.

    What moves are pieces that the caller has packed. So an engine handles thousands of byte strings instead of hundreds
    of millions of rows, and never needs more memory than the tasks that run at a time.

    Args:
        spark: The session.
        items: What is taken apart, each by one task; it may be done again after a failure.
        split: Yields pieces of an item, by key from 0 to `keys` - 1; any number of times.
        merge: Makes rows of a key's pieces, which come in the order of the items and of their yields.
        schema: Of these rows.
        keys: How many keys there may be.
        resources: What this process may use: so many tasks run at a time as have room, and pieces wait in its scratch
            folder. A cluster's executors have settings of their own, those of Spark.
        demand: What the tasks need of it.

    Returns:
        The rows of all keys that had a piece, in any order.

    Raises:
        InputError: A task raised one, or there is too little memory or scratch room; the message says what is needed.
    """
    if _is_sail(spark):
        return _exchange_on_disk(spark, items, split, merge, schema, resources, demand)

    import pyarrow as pa

    def map_items(batches: Iterator["pa.RecordBatch"]) -> Iterator["pa.RecordBatch"]:
        for batch in batches:
            for item in batch.column(0).to_pylist():
                for turn, pieces in enumerate(split(items[item])):
                    yield pa.RecordBatch.from_arrays(
                        [
                            pa.array(pieces.keys(), pa.int32()),
                            pa.array([item] * len(pieces), pa.int32()),
                            pa.array([turn] * len(pieces), pa.int32()),
                            pa.array(pieces.values(), pa.binary()),
                        ],
                        names=["key", "item", "turn", "piece"],
                    )

    def merge_key(pieces: "pa.Table") -> "pa.Table":
        pieces = pieces.sort_by([("item", "ascending"), ("turn", "ascending")])
        return pa.Table.from_batches(
            [merge(pieces["key"][0].as_py(), (piece.as_py() for piece in pieces["piece"]))],
        )

    mapped = spark.range(0, len(items), 1, len(items)).mapInArrow(
        map_items, "key int, item int, turn int, piece binary"
    )
    return collect(mapped.repartition(keys, "key").groupBy("key").applyInArrow(merge_key, schema))


def _exchange_on_disk(
    spark: "SparkSession",
    items: Sequence[Item],
    split: Callable[[Item], Iterator[Mapping[int, bytes]]],
    merge: Callable[[int, Iterator[bytes]], "pa.RecordBatch"],
    schema: str,
    resources: Resources,
    demand: Demand,
) -> "list[Row]":
    """`exchange` on Sail, whose own would keep all pieces in memory."""
    tasks = resources.tasks(demand.base, demand.split, demand.what)
    with closing(Spill(resources.scratch)) as spill:

        def keep(numbered: tuple[int, Item]) -> Iterator["pa.RecordBatch"]:
            number, item = numbered
            for turn, pieces in enumerate(split(item)):
                for key, piece in pieces.items():
                    spill.put(key, (number, turn), piece)
            yield from ()

        def merge_key(key: int) -> Iterator["pa.RecordBatch"]:
            yield merge(key, spill.take(key))

        _run_on_sail(spark, enumerate(items), keep, "none int", tasks)
        sizes = spill.sizes()
        largest_first = sorted(sizes, key=lambda key: (-sizes[key], key))
        tasks = resources.tasks(demand.base, int(demand.merge * max(sizes.values(), default=0)), demand.what)
        return _run_on_sail(spark, largest_first, merge_key, schema, tasks)


def _run_on_sail(
    spark: "SparkSession",
    work: Iterable[Work],
    do: Callable[[Work], Iterator["pa.RecordBatch"]],
    schema: str,
    tasks: int,
) -> "list[Row]":
    """What `do` yields for each piece of work. Sail starts all tasks at once, so these take one after another."""
    token = uuid.uuid4().hex
    _work_in_hand[token] = (deque(work), do)

    def run(_: Iterator["pa.RecordBatch"]) -> Iterator["pa.RecordBatch"]:
        yield from _work_off(token)

    try:
        return collect(spark.range(0, tasks, 1, tasks).mapInArrow(run, schema))
    finally:
        del _work_in_hand[token]


# Sail's tasks are threads of this process, and so they share its objects.
_work_in_hand: dict[str, tuple[deque[Any], Callable[[Any], Iterator["pa.RecordBatch"]]]] = {}


def _work_off(token: str) -> Iterator["pa.RecordBatch"]:
    waiting, do = _work_in_hand[token]
    while waiting:
        try:
            work = waiting.popleft()
        except IndexError:  # another task was faster
            return
        try:
            yield from do(work)
        except BaseException:
            waiting.clear()
            raise


def collect(frame: "DataFrame") -> "list[Row]":
    """The rows of a DataFrame.

    Raises:
        InputError: A task raised one.
    """
    with errors_of_tasks():
        return list(frame.collect())


@contextmanager
def errors_of_tasks() -> Iterator[None]:
    """Raise the InputError that a task raised, if it is one; engines wrap it in a trace of their own."""
    try:
        yield
    except Exception as error:
        kinds: list[type[InputError]] = [InputError, *InputError.__subclasses__()]
        names = "|".join(kind.__name__ for kind in kinds)
        of_task = re.search(rf"\b(?:{names}): (.+)", str(error))
        if of_task is None:
            raise
        raise InputError(of_task[1].strip()) from error


def location_for(spark: "SparkSession", location: str) -> str:
    """A file or folder as Spark itself finds it, whose default file system may be another than this machine's."""
    if location.startswith("s3://"):
        # EMR has a file system for it; elsewhere it is hadoop-aws's.
        known = spark._jsc.hadoopConfiguration().get("fs.s3.impl")
        return location if known else location.replace("s3://", "s3a://", 1)
    return location if "://" in location else f"file://{location}"


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


def _spark(master: str, resources: Resources) -> "SparkSession":
    from pyspark.sql import SparkSession

    # A process that runs Sail leaves this to those it starts.
    os.environ.pop("SPARK_CONNECT_MODE_ENABLED", None)
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # by spark-submit, whose settings stand
    local = master.startswith("local")
    builder = SparkSession.builder.config("spark.sql.session.timeZone", "UTC")
    if not submitted:
        # Tasks must run on this Python, with these packages; on a cluster, where they are at the same place.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = (
            builder.master(f"local[{resources.cores}]" if master == "local[*]" else master)
            .appName("audience-explorer")
            .config(map=_s3a_settings())
        )
        builder = builder.config("spark.ui.showConsoleProgress", "false")
        heap = os.environ.get("SPARK_DRIVER_MEMORY") or f"{max(1024, resources.memory * _HEAP_SHARE // 2**20):.0f}m"
        builder = builder.config("spark.driver.memory", heap)
        if local:
            os.environ.setdefault("SPARK_LOCAL_HOSTNAME", "localhost")
            builder = builder.config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "16")
        else:
            builder = builder.config(map=_executor_environment())
    try:
        spark = builder.getOrCreate()
    except Exception as error:
        raise InputError(
            f"Apache Spark does not start at {master} ({type(error).__name__}: {str(error)[:200]}). It needs Java 17 or"
            " later (Debian: apt-get install openjdk-17-jre-headless) and the package's extra:"
            " pip install 'audience-explorer[spark]'. Or choose the engine sail, which needs neither."
        ) from error
    spark.sparkContext.setLogLevel("ERROR")
    atexit.register(spark.stop)
    if not submitted and not local:
        _ship_code(spark)
    return spark


_HEAP_SHARE = 0.5  # of the memory that may be used; Python's processes, which do most of the work, have the rest


def _s3a_settings() -> dict[str, str]:
    """What Spark must be told to read and write S3, beside the jars of `ami/jars.txt`: nothing that is secret.

    Credentials are where each machine has them, in its environment or by its role. So is the region, unless this
    process has one; without a setting it would look for every bucket from us-east-2.
    """
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    settings = {"spark.hadoop.fs.s3a.endpoint.region": region}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:  # no bucket has a name in its DNS
        settings |= {"spark.hadoop.fs.s3a.endpoint": endpoint, "spark.hadoop.fs.s3a.path.style.access": "true"}
    return settings


# What tasks must have as this process has it: the kernels of numpy's BLAS (see the package), and where S3 is.
_SHARED_VARIABLES = (
    "OPENBLAS_CORETYPE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)


def _executor_environment() -> dict[str, str]:
    return {f"spark.executorEnv.{name}": os.environ[name] for name in _SHARED_VARIABLES if name in os.environ}


def _ship_code(spark: "SparkSession") -> None:
    """Give the executors this very code, whatever they have."""
    package = Path(__file__).parent
    folder = tempfile.TemporaryDirectory(prefix="audience-explorer-")
    archive = Path(folder.name, f"{package.name}.zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(package.rglob("*.py")):
            packed.write(file, file.relative_to(package.parent))
    spark.sparkContext.addPyFile(str(archive))
    atexit.register(folder.cleanup)  # executors that come later get it from there, too
