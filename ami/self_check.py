"""Shows that an engine works on this machine: `python self_check.py local`, or `spark`."""

import os
import sys
from typing import Any


def local() -> str:
    """Run tasks in processes, each with the packages that jobs import."""
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as processes:
        versions = {task.result() for task in [processes.submit(_versions) for _ in range(4)]}
    return f"local runs tasks in processes: {', '.join(sorted(versions))}"


def _versions() -> str:
    import numpy as np
    import pyarrow as pa
    import scipy

    return f"numpy {np.__version__}, scipy {scipy.__version__}, pyarrow {pa.__version__}"


def spark() -> str:
    """Run a query on Apache Spark, with an Arrow function; see which BLAS it has, and whether it can open s3a://."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session: Any = SparkSession.builder.master("local[*]").getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    doubled = session.range(0, 1000, 1, 4).mapInArrow(lambda batches: batches, "id bigint")
    total = doubled.selectExpr("sum(id)").collect()[0][0]
    if total != 499_500:
        raise SystemExit(f"the sum of 0 to 999 is not {total}")
    jvm = session._jvm
    mllib = getattr(getattr(jvm.org.apache.spark.ml.linalg, "BLAS$"), "MODULE$")
    blas = mllib.nativeBLAS().getClass().getSimpleName()
    if blas != "JNIBLAS":
        raise SystemExit(f"Spark's NativeBLAS is {blas}, not JNIBLAS: libopenblas0-pthread is missing or not found")
    # Opening one builds the clients, and asks S3 nothing.
    path = jvm.org.apache.hadoop.fs.Path("s3a://self-check/")
    system = path.getFileSystem(session._jsc.hadoopConfiguration()).getClass().getSimpleName()
    session.stop()
    return f"spark runs a query, its NativeBLAS is {blas}, s3a:// is opened by {system}"


if __name__ == "__main__":
    print({"local": local, "spark": spark}[sys.argv[1]](), flush=True)
