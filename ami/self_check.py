"""Shows that an engine works on this machine: `python self_check.py sail`, or `spark`; one engine a process."""

import os
import sys
from typing import Any


def sail() -> str:
    """Run a query on Sail."""
    from pysail.spark import SparkConnectServer
    from pyspark.sql import SparkSession

    server = SparkConnectServer(ip="127.0.0.1", port=0)
    server.start(background=True)
    host, port = server.listening_address
    session = SparkSession.builder.remote(f"sc://{host}:{port}").create()
    _query(session)
    session.stop()
    server.stop()
    return "sail runs a query"


def spark() -> str:
    """Run a query on Apache Spark, with an Arrow function; see which BLAS it has, and whether it can open s3a://."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session: Any = SparkSession.builder.master("local[*]").getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    _query(session)
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


def _query(session: Any) -> None:
    doubled = session.range(0, 1000, 1, 4).mapInArrow(lambda batches: batches, "id bigint")
    total = doubled.selectExpr("sum(id)").collect()[0][0]
    if total != 499_500:
        raise SystemExit(f"the sum of 0 to 999 is not {total}")


if __name__ == "__main__":
    print({"sail": sail, "spark": spark}[sys.argv[1]](), flush=True)
