"""Apache Spark as an engine: tasks on any master, which PySpark's session starts or finds.

What must be known of it (Spark 4.2; asked in tests/test_engines.py):

- It spreads a local relation's rows over tasks as it likes. So what is to be read in parallel starts from
  `spark.range(n)` with n partitions.
- It reads a path as a pattern (`[ ] ? * { }`). So files are read by pyarrow, inside Arrow functions.
- It runs Arrow functions in Python processes of its own.
"""

import atexit
import os
import pickle
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import spark_jobs
from spark_jobs.engines.engine import Counted, Engine, Exchange, Exchanged, Item, Merged, Turns
from spark_jobs.errors import InputError
from spark_jobs.resources import Resources
from spark_jobs.work_folders import work_folder

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, Row, SparkSession

_COUNTED = -1  # the key under which items hand over what they counted


class SparkEngine(Engine):
    """Runs tasks as Spark does, which keeps what does not fit into memory by itself."""

    def __init__(self, master: str, resources: Resources):
        self.session = session(master, resources)

    @property
    def version(self) -> str:
        return f"spark {self.session.version}"

    def progress(self) -> str:
        status = self.session.sparkContext.statusTracker()
        stages = [stage for number in status.getActiveStageIds() if (stage := status.getStageInfo(number)) is not None]
        return "; ".join(f"Spark: {s.numCompletedTasks} of {s.numTasks} tasks of {s.name}" for s in stages) or "waiting"

    def exchange(self, work: Exchange[Item, Counted, Merged]) -> Exchanged[Counted, Merged]:
        import cloudpickle
        import pyarrow as pa

        # What a job of its own process gives are objects of its `__main__`, which are other ones in a task's.
        items, split, merge = work.items, work.split, work.merge

        def rows_of(item: int, turn: int, pieces: Mapping[int, bytes]) -> "pa.RecordBatch":
            return pa.RecordBatch.from_arrays(
                [
                    pa.array(pieces.keys(), pa.int32()),
                    pa.array([item] * len(pieces), pa.int32()),
                    pa.array([turn] * len(pieces), pa.int32()),
                    pa.array(pieces.values(), pa.binary()),
                ],
                names=["key", "item", "turn", "piece"],
            )

        def map_items(batches: Iterator["pa.RecordBatch"]) -> Iterator["pa.RecordBatch"]:
            for batch in batches:
                for item in batch.column(0).to_pylist():
                    turns = Turns(split(items[item]))
                    for turn, pieces in enumerate(turns):
                        yield rows_of(item, turn, pieces)
                    yield rows_of(item, 0, {_COUNTED: cloudpickle.dumps(turns.counted)})

        def merge_key(pieces: "pa.Table") -> "pa.Table":
            pieces = pieces.sort_by([("item", "ascending"), ("turn", "ascending")])
            key, in_order = pieces["key"][0].as_py(), (piece.as_py() for piece in pieces["piece"])
            made = [pickle.loads(piece) for piece in in_order] if key == _COUNTED else merge(key, in_order)  # noqa: S301
            return pa.table(
                {"key": pa.array([key], pa.int32()), "made": pa.array([cloudpickle.dumps(made)], pa.binary())}
            )

        mapped = self.session.range(0, len(items), 1, len(items)).mapInArrow(
            map_items, "key int, item int, turn int, piece binary"
        )
        rows = collect(
            mapped.repartition(work.keys + 1, "key").groupBy("key").applyInArrow(merge_key, "key int, made binary")
        )
        made = {row["key"]: pickle.loads(row["made"]) for row in rows}  # noqa: S301  # from tasks of this job
        return Exchanged(made.pop(_COUNTED), made)


def collect(frame: "DataFrame") -> "list[Row]":
    """The rows of a DataFrame.

    Raises:
        InputError: A task raised one.
    """
    with errors_of_tasks():
        return list(frame.collect())


@contextmanager
def errors_of_tasks() -> Iterator[None]:
    """Raise the InputError that a task raised, if it is one; Spark wraps it in a trace of its own."""
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


_sessions: dict[str, "SparkSession"] = {}


def session(master: str, resources: Resources) -> "SparkSession":
    """The session at a master; one process starts each at most once.

    Raises:
        InputError: Spark is not installed, or does not start.
    """
    if master not in _sessions:
        _sessions[master] = _start(master, resources)
    return _sessions[master]


def _start(master: str, resources: Resources) -> "SparkSession":
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise InputError(
            "Apache Spark is not installed. Its extra brings it: pip install 'audience-explorer[spark]'. It needs Java"
            " 17 or later. Or choose the engine local, which needs neither."
        ) from error
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # by spark-submit, whose settings stand
    local = master.startswith("local")
    # Nothing here has a table. On EMR Spark would ask the Glue catalog, which takes rights that no job has.
    builder = SparkSession.builder.config("spark.sql.session.timeZone", "UTC").config(_CATALOG, "in-memory")
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
            " later (Debian: apt-get install openjdk-17-jre-headless). Or choose the engine local, which needs none."
        ) from error
    spark.sparkContext.setLogLevel("ERROR")
    atexit.register(spark.stop)
    if not submitted and not local:
        _ship_code(spark)
    return spark


_CATALOG = "spark.sql.catalogImplementation"
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
    package = Path(spark_jobs.__file__).parent
    kept = ExitStack()
    archive = kept.enter_context(work_folder()) / f"{package.name}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(package.rglob("*.py")):
            packed.write(file, file.relative_to(package.parent))
    spark.sparkContext.addPyFile(str(archive))
    atexit.register(kept.close)  # executors that come later get it from there, too
