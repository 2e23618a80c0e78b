"""The code that an instance runs: `spark_jobs` of this project, packed so that the same code is the same file."""

import gzip
import hashlib
import io
import tarfile
from functools import cache
from pathlib import Path

import spark_jobs


@cache
def pack() -> tuple[str, bytes]:
    """The archive of `spark_jobs` (tar.gz), and its SHA-256 in hex before it."""
    package = Path(spark_jobs.__file__).parent
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in sorted(package.rglob("*.py")):
            entry = tarfile.TarInfo(f"{package.name}/{file.relative_to(package).as_posix()}")
            text = file.read_bytes()
            entry.size, entry.mode = len(text), 0o644
            tar.addfile(entry, io.BytesIO(text))
    archive = gzip.compress(tarred.getvalue(), mtime=0)
    return hashlib.sha256(archive).hexdigest(), archive
