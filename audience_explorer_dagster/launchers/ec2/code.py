"""The code that an instance runs: `spark_jobs` of this project, packed so that the same code is the same file."""

import hashlib
import io
from functools import cache
from pathlib import Path

import spark_jobs
from spark_jobs.launch.targz import write_tar_gz


@cache
def pack() -> tuple[str, bytes]:
    """The archive of `spark_jobs` (tar.gz), and its SHA-256 in hex before it."""
    project = Path(spark_jobs.__file__).parents[1]
    sources = spark_jobs.source_files()
    packed = io.BytesIO()
    write_tar_gz(packed, ((file.relative_to(project).as_posix(), file.read_bytes()) for file in sources))
    return hashlib.sha256(packed.getvalue()).hexdigest(), packed.getvalue()
